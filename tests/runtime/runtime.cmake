set(cuda_tests)
if(LATHE_CUDA_BACKEND)
  set(cuda_tests runtime/cuda_device_test.cc)
endif()
lathe_test(runtime CUDA
  SOURCES runtime/atomic_file_test.cc runtime/device_test.cc runtime/error_test.cc runtime/file_lock_test.cc runtime/host_memory_test.cc
    runtime/parameters_test.cc runtime/processors_test.cc runtime/random_test.cc runtime/tape_test.cc runtime/tensor_test.cc ${cuda_tests}
  LINKS lathe::runtime)
