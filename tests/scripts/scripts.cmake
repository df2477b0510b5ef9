# The shell side: ./quickstart, ./run_tests and their pieces, with stand-ins for apt, pip, CMake and the network. Sanitizers
# have nothing to look at here.
if(NOT LATHE_SANITIZE)
  foreach(name packages quickstart count)
    add_test(NAME scripts_${name} COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/${name}_test.sh)
  endforeach()
  find_program(LATHE_PYTHON NAMES python3 REQUIRED)
  add_test(NAME scripts_fetch COMMAND ${LATHE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/fetch_test.py)
  add_test(NAME scripts_gpu_check COMMAND ${LATHE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/gpu_check_test.py)
  set_tests_properties(scripts_packages scripts_quickstart scripts_count scripts_fetch scripts_gpu_check PROPERTIES TIMEOUT 300)
endif()
