#pragma once
// How one source becomes code for several instruction sets. Every file of CPU kernels is compiled once a target with
// LATHE_CPU_TARGET set to v3 or v4, and defines run() for its argument structs in the namespace of that name; the public
// functions, compiled for any x86-64, choose between them. Internal to kernels/.
#include "lathe/kernels/stream.h"

namespace lathe {
namespace v3 {
template <class Arguments>
void run(CpuStream stream, const Arguments& args);
}
namespace v4 {
template <class Arguments>
void run(CpuStream stream, const Arguments& args);
}

/// Runs `args` on the stream's target.
template <class Arguments>
void run_on_target(CpuStream stream, const Arguments& args) {
  if (stream.work == Work::rehearsed) return;
  if (stream.target == CpuTarget::v4) {
    v4::run(stream, args);
  } else {
    v3::run(stream, args);
  }
}
}  // namespace lathe
