lathe_test(optim SOURCES optim/optim_test.cc LINKS lathe::optim)
