#pragma once
// The language that kernel files are written in: CUDA C++ as nvcc has it, or as the emulation gives it to a host compiler.
#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/language.h"
#else
#include <cuda_runtime.h>
#endif
