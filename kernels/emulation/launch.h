#pragma once
// Launches of kernels: their shape, and their arguments by value.
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "lathe/kernels/emulation/vector_types.h"

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

class Stream;

struct Shape {
  cuda::dim3 grid, block;
  std::size_t shared_bytes = 0;
};

/// A kernel with its arguments, as the one who launches it has them: both are copied.
struct Call {
  const void* function;              ///< what the kernel is known by
  void (*enter)(const void* bound);  ///< calls it with the arguments in `bound`
  const void* bound;
  std::size_t bound_bytes;
  std::size_t argument_offset;  ///< in `bound`, of what CUDA passes
  std::size_t argument_bytes;
};

/// Puts the kernel at the end of the stream's queue, or into the graph that the stream is being captured into. Throws Fault where a GPU
/// of sm_80 would refuse it.
void enqueue(Stream* stream, const Shape& shape, const Call& call);

template <class... Parameters>
struct BoundKernel {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;
};

template <class... Parameters>
void enter_kernel(const void* bound) {
  const auto& call = *static_cast<const BoundKernel<Parameters...>*>(bound);
  std::apply(call.kernel, call.arguments);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), const Shape& shape, Stream* stream,
            const std::type_identity_t<Parameters>&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a kernel's arguments are copied byte by byte");
  using Bound = BoundKernel<Parameters...>;
  Bound bound{kernel, {arguments...}};
  // Bytes between the arguments, and within them, are 0, so that equal arguments are equal bytes.
  __builtin_clear_padding(&bound);
  enqueue(stream, shape,
          {.function = reinterpret_cast<const void*>(kernel),
           .enter = enter_kernel<Parameters...>,
           .bound = &bound,
           .bound_bytes = sizeof(Bound),
           .argument_offset = sizeof(Bound) - sizeof(bound.arguments),
           .argument_bytes = sizeof(bound.arguments)});
}

/// Where the calling thread of a kernel stands.
cuda::uint3 thread_index();
cuda::uint3 block_index();
cuda::dim3 block_dimensions();
cuda::dim3 grid_dimensions();
/// The block's dynamic shared memory, aligned to 128 bytes.
void* dynamic_shared();

}  // namespace emulation
}  // namespace lathe
