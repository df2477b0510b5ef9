#pragma once
// How kernel code touches memory where the compiler's own instrumentation would not see one access as one.
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

/// One access of `bytes` bytes (2, 4, 8, 16), which must be aligned to its size.
void load(void* to, const void* from, std::size_t bytes);
void store(void* to, const void* from, std::size_t bytes);

/// The two halves of an atomic operation; no other thread runs between them.
void atomic_begin(void* old, const void* address, std::size_t bytes);
void atomic_end(void* address, const void* value, std::size_t bytes);

// Inlined, so that what it calls returns to the kernel.
template <class T, class Update>
[[gnu::always_inline]] inline T atomic(T* address, const Update& update) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  T old;
  atomic_begin(&old, address, sizeof(T));
  const T value = update(old);
  atomic_end(address, &value, sizeof(T));
  return old;
}

}  // namespace emulation
}  // namespace lathe
