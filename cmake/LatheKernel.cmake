# The CUDA backend: nvcc compiles the kernel files, or the C++ compiler for the emulation, or there is none. Training doesn't use it yet, so that
# AUTO leaves it out.
set(LATHE_CUDA_BACKEND OFF)
set(LATHE_KERNEL_DEFINITIONS) # what every file of such a build is compiled with
if(LATHE_CUDA STREQUAL "EMULATED")
  set(LATHE_CUDA_BACKEND ON)
  set(LATHE_KERNEL_DEFINITIONS LATHE_HAS_CUDA LATHE_EMULATED)
  message(STATUS "Lathe: for the CPU, and CUDA's kernels emulated on it")
elseif(LATHE_CUDA STREQUAL "ON")
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "LATHE_CUDA=ON, but nvcc was not found: install the CUDA toolkit, 12 or later, or set CUDACXX to its nvcc")
  endif()
  # sm_80 and sm_90a as machine code, and PTX from which newer GPUs' drivers make theirs.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 80-virtual)
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
    message(FATAL_ERROR "Lathe needs nvcc 12 or later; found ${CMAKE_CUDA_COMPILER_VERSION} (${CMAKE_CUDA_COMPILER}): set CUDACXX to a newer one")
  endif()
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    # CMake 3.25 doesn't know that nvcc compiles C++20.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_COMPILE_FEATURES cuda_std_20)
    list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  find_package(CUDAToolkit 12 REQUIRED)
  set(LATHE_CUDA_BACKEND ON)
  set(LATHE_KERNEL_DEFINITIONS LATHE_HAS_CUDA)
  message(STATUS "Lathe: for the CPU and for CUDA ${CMAKE_CUDA_COMPILER_VERSION} (${CMAKE_CUDA_ARCHITECTURES})")
else()
  message(STATUS "Lathe: for the CPU; -DLATHE_CUDA=ON adds the CUDA kernels, EMULATED runs them on the host")
endif()

# How a kernel file becomes C++ for the emulation. Each access to memory calls the emulation, in ThreadSanitizer's place; the optimizations
# that are off would make other accesses of them than the source has, or calls that cannot be told apart by where they return to
# (docs/emulation.md).
set(LATHE_EMULATED_OPTIONS -x c++ -std=c++20 -O2 -g1 -march=x86-64-v3 -ffp-contract=fast -fsanitize=thread
  --param=tsan-instrument-func-entry-exit=0 -fno-tree-vectorize -fno-tree-loop-distribute-patterns -fno-store-merging
  -fno-optimize-sibling-calls -fno-crossjumping -fno-tree-tail-merge
  -include lathe/kernels/emulation/prelude.h -Wno-unknown-pragmas)

# How nvcc compiles one. constexpr functions that host and device share need no annotation; profilers see source lines.
set(LATHE_CUDA_OPTIONS --expt-relaxed-constexpr -lineinfo -Xcompiler=-Wall,-Wextra)

# lathe_add_kernel(<target> <file.cu>...): adds kernel files to a target, for the backend that Lathe was built with: compiled by nvcc for CUDA,
# by the C++ compiler for the emulation. Without either they are left out.
function(lathe_add_kernel target)
  if(NOT LATHE_CUDA_BACKEND)
    return()
  endif()
  target_sources(${target} PRIVATE ${ARGN})
  if(LATHE_CUDA STREQUAL "EMULATED")
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${LATHE_EMULATED_OPTIONS}")
  else()
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE CUDA COMPILE_OPTIONS "${LATHE_CUDA_OPTIONS}")
  endif()
  if(NOT target STREQUAL "lathe_kernels")
    target_link_libraries(${target} PRIVATE lathe::kernels)
  endif()
endfunction()
