#pragma once
// What addresses of this process are called: functions, source lines, thread-local variables, constants. Internal to kernels/emulation.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "lathe/kernels/emulation/running.h"

namespace lathe::emulation {

/// "layernorm_forward_kernel<float, 4>": without namespaces and parameters.
std::string function_name(const void* function);

/// The kernel's source line for a return address, of which the lower half is given: "kernels/layernorm.cu:87". Where a header's code was
/// inlined, the line of the kernel file that called it.
std::string source_line(std::uint32_t code);

/// What accesses remember of a return address.
inline std::uint32_t low_half(const void* code) { return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(code)); }

/// A source file as the tree names it, "kernels/layernorm.cu"; another's by its last two parts.
std::string source_name(std::string_view file);

/// The calling thread's thread-local variables of the module that has this function: where __shared__ variables are.
Range thread_local_range(const void* function);

struct ThreadLocalVariable {
  std::string name;    ///< "'tile'"
  std::string owner;   ///< the function that declares it, as a demangled symbol
  std::size_t offset;  ///< from thread_local_range()'s beginning
  std::size_t bytes;
  bool guard;  ///< the compiler's own, by which it knows what it has initialised
};
/// The variable that has this byte, unless it is another kernel's (one that was launched before); null where none has. Where the module has
/// no symbols, all is one variable.
const ThreadLocalVariable* thread_local_variable(const void* function, std::size_t offset);

/// Bytes of the __shared__ variables that a kernel itself declares; 0 where its module has no symbols.
std::size_t static_shared_bytes(const void* function);

/// Whether the program's own constants are there: what a compiler would put into a kernel's constant memory.
bool is_constant(std::uintptr_t address);

}  // namespace lathe::emulation
