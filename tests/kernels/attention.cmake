lathe_test(kernels_attention_forward CUDA SOURCES kernels/attention_forward_test.cc LINKS lathe::kernels)
lathe_test(kernels_attention_backward CUDA SOURCES kernels/attention_backward_test.cc LINKS lathe::kernels)
lathe_test(kernels_attention_differences SOURCES kernels/attention_differences_test.cc LINKS lathe::kernels)
