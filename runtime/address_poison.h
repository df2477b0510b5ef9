#pragma once
// Memory that AddressSanitizer shall let nobody touch. Nothing without it. Internal to runtime/.
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif

namespace lathe {

inline void poison([[maybe_unused]] const std::byte* address, [[maybe_unused]] std::int64_t bytes) {
#ifdef ASAN_POISON_MEMORY_REGION
  ASAN_POISON_MEMORY_REGION(address, static_cast<std::size_t>(bytes));
#endif
}
inline void unpoison([[maybe_unused]] const std::byte* address, [[maybe_unused]] std::int64_t bytes) {
#ifdef ASAN_UNPOISON_MEMORY_REGION
  ASAN_UNPOISON_MEMORY_REGION(address, static_cast<std::size_t>(bytes));
#endif
}

}  // namespace lathe
