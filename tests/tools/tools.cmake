lathe_test(command SOURCES tools/bad_input_test.cc tools/command_test.cc LINKS lathe::training nlohmann_json::nlohmann_json)
target_compile_definitions(test_command PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>")
add_dependencies(test_command lathe_command)
lathe_test(command_line
  SOURCES tools/help_test.cc tools/options_test.cc tools/replay_test.cc tools/terminal_test.cc
  LINKS lathe::training nlohmann_json::nlohmann_json util)
target_compile_definitions(test_command_line PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>" LATHE_SOURCE="${PROJECT_SOURCE_DIR}")
add_dependencies(test_command_line lathe_command)
lathe_test(settings
  SOURCES
    tools/run_file_test.cc tools/suggestions_test.cc
    ${PROJECT_SOURCE_DIR}/tools/run_file.cc ${PROJECT_SOURCE_DIR}/tools/command_line/suggestions.cc
  LINKS lathe::text fmt::fmt)
target_include_directories(test_settings SYSTEM PRIVATE ${TOMLPLUSPLUS_INCLUDE_DIR})
