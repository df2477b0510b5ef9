if(LATHE_CUDA STREQUAL "EMULATED")
  lathe_test(kernels_emulation
    SOURCES kernels/emulation/detectors_test.cc
    LINKS lathe::kernels)
  lathe_add_kernel(test_kernels_emulation kernels/emulation/planted.cu)
endif()
