set(cuda_tests)
if(LATHE_CUDA_BACKEND)
  set(cuda_tests layers/cuda_functions_test.cc)
endif()
lathe_test(layers
  SOURCES layers/bert_test.cc layers/functions_test.cc ${cuda_tests}
  LINKS lathe::layers lathe::text lathe::training)
