lathe_test(kernels_products CUDA
  SOURCES kernels/matmul_test.cc kernels/cross_entropy_test.cc kernels/embedding_test.cc kernels/optimizer_test.cc
  LINKS lathe::kernels OpenMP::OpenMP_CXX)
