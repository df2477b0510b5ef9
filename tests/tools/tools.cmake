lathe_test(command SOURCES tools/bad_input_test.cc tools/command_test.cc LINKS lathe::training nlohmann_json::nlohmann_json)
lathe_test(faults SOURCES tools/faults_test.cc LINKS lathe::training fmt::fmt nlohmann_json::nlohmann_json)
foreach(test test_command test_faults)
  target_compile_definitions(${test} PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>")
  add_dependencies(${test} lathe_command)
endforeach()

# A thousand malformed and odd files, each with what must become of it (docs/reliability.md).
find_program(LATHE_PYTHON NAMES python3 REQUIRED)
add_test(NAME hostile_inputs
  COMMAND ${LATHE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/hostile_inputs_test.py $<TARGET_FILE:lathe_command> $<$<BOOL:${LATHE_SANITIZE}>:--sanitized>
  COMMAND_EXPAND_LISTS)
set_tests_properties(hostile_inputs PROPERTIES TIMEOUT 900)
