# What every file of a build with the CUDA backend is compiled with.
set(LATHE_KERNEL_DEFINITIONS)
if(LATHE_CUDA STREQUAL "EMULATED")
  set(LATHE_KERNEL_DEFINITIONS LATHE_EMULATED)
endif()

# How a kernel file becomes C++ for the emulation. Each access to memory calls the emulation, in ThreadSanitizer's place; the optimizations
# that are off would make other accesses of them than the source has, or calls that cannot be told apart by where they return to
# (docs/emulation.md).
set(LATHE_EMULATED_OPTIONS -x c++ -std=c++20 -O2 -g1 -march=x86-64-v3 -ffp-contract=fast -fsanitize=thread
  --param=tsan-instrument-func-entry-exit=0 -fno-tree-vectorize -fno-tree-loop-distribute-patterns -fno-store-merging
  -fno-optimize-sibling-calls -fno-crossjumping -fno-tree-tail-merge
  -include lathe/kernels/emulation/prelude.h -Wno-unknown-pragmas)

# lathe_add_kernel(<target> <file.cu>...): adds kernel files to a target, for the backend that Lathe was built with: compiled by nvcc for CUDA,
# by the C++ compiler for the emulation. Without either they are left out.
function(lathe_add_kernel target)
  if(LATHE_CUDA STREQUAL "EMULATED")
    target_sources(${target} PRIVATE ${ARGN})
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${LATHE_EMULATED_OPTIONS}")
    target_link_libraries(${target} PRIVATE lathe::kernels)
  endif()
endfunction()
