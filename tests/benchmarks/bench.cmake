lathe_test(bench_cases SOURCES benchmarks/cases_test.cc benchmarks/step_test.cc LINKS lathe_bench)
if(LATHE_CUDA STREQUAL "EMULATED")
  lathe_test(kernels_profile SOURCES kernels/profile_test.cc LINKS lathe_bench)
endif()
