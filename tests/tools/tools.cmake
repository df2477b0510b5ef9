lathe_test(command SOURCES tools/bad_input_test.cc tools/command_test.cc LINKS lathe::training nlohmann_json::nlohmann_json)
target_compile_definitions(test_command PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>")
add_dependencies(test_command lathe_command)
if(NOT LATHE_SANITIZE)  # the browser is what is tested here; the pages are made under the sanitizers by others
  find_program(LATHE_PYTHON NAMES python3 REQUIRED)
  lathe_test(browser SOURCES tools/browser_test.cc LINKS lathe::training)
  target_compile_definitions(test_browser PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>" LATHE_PYTHON="${LATHE_PYTHON}"
                                                  LATHE_SOURCE="${PROJECT_SOURCE_DIR}")
  add_dependencies(test_browser lathe_command)
endif()
