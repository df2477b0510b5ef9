lathe_test(command SOURCES tools/bad_input_test.cc tools/command_test.cc tools/look_test.cc LINKS lathe::training nlohmann_json::nlohmann_json)
target_compile_definitions(test_command PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>")
add_dependencies(test_command lathe_command)
