# The CUDA backend: nvcc compiles the kernel files, or the C++ compiler for the emulation, or there is none. AUTO leaves it out: what a build
# holds, and the minutes that it takes, don't depend on whether some nvcc lies about. ./quickstart asks for it where there is a GPU.
include(LatheKernel)
set(LATHE_CUDA_BACKEND OFF)
set(LATHE_KERNEL_BACKEND none) # none, cuda or emulated: what lathe_add_kernel goes by
set(LATHE_KERNEL_DEFINITIONS) # what every file of such a build is compiled with
if(LATHE_CUDA STREQUAL "EMULATED")
  set(LATHE_CUDA_BACKEND ON)
  set(LATHE_KERNEL_BACKEND emulated)
  set(LATHE_KERNEL_DEFINITIONS LATHE_HAS_CUDA LATHE_EMULATED)
  message(STATUS "Lathe: for the CPU, and CUDA's kernels emulated on it")
elseif(LATHE_CUDA STREQUAL "ON")
  lathe_enable_cuda()
  set(LATHE_CUDA_BACKEND ON)
  set(LATHE_KERNEL_BACKEND cuda)
  set(LATHE_KERNEL_DEFINITIONS LATHE_HAS_CUDA)
  message(STATUS "Lathe: for the CPU and for CUDA ${CMAKE_CUDA_COMPILER_VERSION} (${CMAKE_CUDA_ARCHITECTURES})")
else()
  message(STATUS "Lathe: for the CPU; -DLATHE_CUDA=ON adds the CUDA kernels, EMULATED runs them on the host")
endif()
