lathe_test(kernels_attention SOURCES kernels/attention_test.cc LINKS lathe::kernels)
