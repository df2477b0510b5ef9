#pragma once
// Host memory that asynchronous copies read in place. Internal to kernels/emulation.
#include <cstddef>

namespace lathe::emulation {

void* allocate_pinned(std::size_t bytes);
/// Throws Fault where it wasn't allocated so, or was freed.
void release_pinned(void* address);
bool is_pinned(const void* address, std::size_t bytes);
std::size_t pinned_in_use();

}  // namespace lathe::emulation
