# lathe_add_kernel(<target> <file.cu>...): adds kernel files to a target, for the backend that Lathe was built with: compiled by nvcc for CUDA,
# by the C++ compiler for the emulation. Without either they are left out. In Lathe's tree, and installed with it for the programs that use it.
macro(lathe_add_kernel target)
  get_target_property(lathe_kernel_backend lathe::kernels LATHE_KERNEL_BACKEND)
  if(lathe_kernel_backend STREQUAL "cuda")
    lathe_enable_cuda()
  endif()
  if(NOT lathe_kernel_backend STREQUAL "none")
    lathe_add_kernel_files(${lathe_kernel_backend} ${target} ${ARGN})
  elseif(NOT "${target}" STREQUAL "lathe_kernels")
    message(STATUS "${target} is without ${ARGN}: Lathe was built without a CUDA backend (LATHE_CUDA=ON or EMULATED)")
  endif()
endmacro()

# What nvcc needs, in the folder that calls it and below. A macro, as a language can't be enabled in a function.
macro(lathe_enable_cuda)
  if(NOT CMAKE_CUDA_COMPILE_OBJECT)
    include(CheckLanguage)
    check_language(CUDA)
    if(NOT CMAKE_CUDA_COMPILER)
      message(FATAL_ERROR "Lathe's CUDA backend was asked for, but nvcc was not found: install the CUDA toolkit, 12 or later, or set CUDACXX to its nvcc")
    endif()
    # sm_80 and sm_90a as machine code, and PTX from which newer GPUs' drivers make theirs.
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 80-virtual)
    endif()
    enable_language(CUDA)
  endif()
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
endmacro()

# What lathe_add_kernel does once it knows the backend.
function(lathe_add_kernel_files backend target)
  # How a kernel file becomes C++ for the emulation. Each access to memory calls the emulation, in ThreadSanitizer's place; the optimizations
  # that are off would make other accesses of them than the source has, or calls that cannot be told apart by where they return to
  # (docs/emulation.md).
  set(emulated_options -x c++ -std=c++20 -O2 -g1 -march=x86-64-v3 -ffp-contract=fast -fsanitize=thread
    --param=tsan-instrument-func-entry-exit=0 -fno-tree-vectorize -fno-tree-loop-distribute-patterns -fno-store-merging
    -fno-optimize-sibling-calls -fno-crossjumping -fno-tree-tail-merge
    -include lathe/kernels/emulation/prelude.h -Wno-unknown-pragmas)
  # How nvcc compiles one. constexpr functions that host and device share need no annotation; profilers see source lines.
  set(cuda_options --expt-relaxed-constexpr -lineinfo -Xfatbin=-compress-all -Xcompiler=-Wall,-Wextra)
  if(backend STREQUAL "cuda" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
    list(APPEND cuda_options --compress-mode=size) # 30 % smaller; drivers before CUDA 12.4's can't read it, and these programs need one of 13
  endif()
  set(emulated_language CXX)
  set(cuda_language CUDA)

  target_sources(${target} PRIVATE ${ARGN})
  set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE ${${backend}_language} COMPILE_OPTIONS "${${backend}_options}")
  if(backend STREQUAL "cuda")
    set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF)
    get_target_property(architectures ${target} CUDA_ARCHITECTURES)
    if(NOT architectures) # a target that was made before the language was enabled
      set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
    endif()
  endif()
  if(NOT target STREQUAL "lathe_kernels")
    target_link_libraries(${target} PRIVATE lathe::kernels)
    if(backend STREQUAL "cuda")
      target_link_libraries(${target} PRIVATE CUDA::cudart_static) # a launch is CUDA's, in the kernel file itself
    endif()
  endif()
endfunction()
