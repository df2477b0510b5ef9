lathe_test(bench_cases SOURCES benchmarks/cases_test.cc benchmarks/step_test.cc LINKS lathe_bench)
if(LATHE_CUDA STREQUAL "EMULATED")
  lathe_test(kernels_profile SOURCES kernels/profile_test.cc LINKS lathe_bench)
endif()
# The arithmetic of benchmarks/scaling, which times nothing.
find_program(LATHE_PYTHON NAMES python3 REQUIRED)
add_test(NAME scaling COMMAND ${LATHE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/scaling_test.py)
set_tests_properties(scaling PROPERTIES TIMEOUT 60)
