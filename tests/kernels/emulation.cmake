if(LATHE_CUDA STREQUAL "EMULATED")
  lathe_test(kernels_emulation
    SOURCES kernels/emulation/detectors_test.cc kernels/emulation/fragments_test.cc kernels/emulation/profile_test.cc kernels/emulation/runtime_test.cc
      kernels/emulation/sound_test.cc
    LINKS lathe::kernels)
  # Messages are compared with the lines of the sources that they name.
  target_compile_definitions(test_kernels_emulation PRIVATE LATHE_TEST_SOURCES="${CMAKE_CURRENT_SOURCE_DIR}/kernels/emulation")
  lathe_add_kernel(test_kernels_emulation kernels/emulation/planted.cu kernels/emulation/profiled.cu)
endif()
