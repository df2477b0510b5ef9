lathe_test(command SOURCES tools/bad_input_test.cc tools/bench_test.cc tools/cache_test.cc tools/command_test.cc tools/device_test.cc tools/launch_test.cc tools/look_test.cc tools/pretrain_test.cc LINKS lathe::training nlohmann_json::nlohmann_json)
if(LATHE_MPI_BACKEND AND MPIEXEC_EXECUTABLE)
  target_compile_definitions(test_command PRIVATE LATHE_MPIEXEC="${MPIEXEC_EXECUTABLE}")
endif()
lathe_test(command_line
  SOURCES tools/help_test.cc tools/options_test.cc tools/replay_test.cc tools/terminal_test.cc
  LINKS lathe::training nlohmann_json::nlohmann_json util)
target_compile_definitions(test_command_line PRIVATE LATHE_SOURCE="${PROJECT_SOURCE_DIR}")
lathe_test(settings
  SOURCES
    tools/rank_report_test.cc tools/rank_verdict_test.cc tools/run_file_test.cc tools/suggestions_test.cc
    ${PROJECT_SOURCE_DIR}/tools/rank_report.cc ${PROJECT_SOURCE_DIR}/tools/rank_verdict.cc ${PROJECT_SOURCE_DIR}/tools/run_file.cc ${PROJECT_SOURCE_DIR}/tools/command_line/suggestions.cc
  LINKS lathe::checkpoint lathe::text fmt::fmt nlohmann_json::nlohmann_json)
target_include_directories(test_settings SYSTEM PRIVATE ${TOMLPLUSPLUS_INCLUDE_DIR})
lathe_test(faults SOURCES tools/faults_test.cc LINKS lathe::training fmt::fmt nlohmann_json::nlohmann_json)
if(LATHE_SANITIZE MATCHES "address|thread")  # either takes more addresses than a limit of them (ulimit -v) leaves, before the command begins
  target_compile_definitions(test_faults PRIVATE LATHE_NO_ADDRESS_LIMIT)
endif()
find_program(LATHE_PYTHON NAMES python3 REQUIRED)
set(command_tests command command_line faults)
if(LATHE_CUDA STREQUAL "EMULATED")
  lathe_test(emulated_command SOURCES tools/emulated_test.cc LINKS lathe::training nlohmann_json::nlohmann_json)
  list(APPEND command_tests emulated_command)
endif()
if(LATHE_MPI_BACKEND AND MPIEXEC_EXECUTABLE)  # as several ranks, on the emulated GPU where there is one
  set(mpirun_sources tools/mpirun_test.cc)
  if(LATHE_CUDA STREQUAL "EMULATED")
    list(APPEND mpirun_sources tools/mpirun_products_test.cc)
  endif()
  lathe_test(mpirun SOURCES ${mpirun_sources} LINKS lathe::training nlohmann_json::nlohmann_json)
  target_compile_definitions(test_mpirun PRIVATE LATHE_MPIRUN="${MPIEXEC_EXECUTABLE}"
    $<$<STREQUAL:${LATHE_CUDA},EMULATED>:LATHE_MPIRUN_EMULATED>)
  set_tests_properties(mpirun PROPERTIES PROCESSORS 2)
  list(APPEND command_tests mpirun)
endif()
if(LATHE_MPI_BACKEND AND NOT LATHE_CUDA STREQUAL "EMULATED")  # the emulation's NCCL goes by MPI
  # The command of a build without MPI, of the same objects: what no_mpi.cc defines isn't looked for in the archive.
  add_executable(lathe_without_mpi $<TARGET_OBJECTS:lathe_command> ${PROJECT_SOURCE_DIR}/runtime/no_mpi.cc)
  target_link_libraries(lathe_without_mpi PRIVATE lathe_training lathe_bench CLI11::CLI11 fmt::fmt nlohmann_json::nlohmann_json PkgConfig::utf8proc)
  lathe_test(launch_without_mpi
    SOURCES tools/launch_test.cc tools/launch_without_mpi_test.cc ${PROJECT_SOURCE_DIR}/runtime/no_mpi.cc LINKS lathe::training)
  target_compile_definitions(test_launch_without_mpi PRIVATE
    LATHE_COMMAND="$<TARGET_FILE:lathe_without_mpi>" LATHE_MPIRUN="${MPIEXEC_EXECUTABLE}")
  add_dependencies(test_launch_without_mpi lathe_without_mpi)
endif()
if(LATHE_MPI_BACKEND AND MPIEXEC_EXECUTABLE) # ranks of which one fails, under an mpirun of the tests' own
  add_library(rank_fault MODULE tools/rank_fault.cc)
  target_compile_options(rank_fault PRIVATE ${LATHE_WARNINGS})
  target_link_libraries(rank_fault PRIVATE MPI::MPI_CXX ${CMAKE_DL_LIBS})
  lathe_test(rank_faults SOURCES tools/rank_faults_test.cc LINKS lathe::training fmt::fmt)
  lathe_mpi_environment(rank_faults)
  set_tests_properties(rank_faults PROPERTIES PROCESSORS 2)
  target_compile_definitions(test_rank_faults PRIVATE LATHE_MPIRUN="${MPIEXEC_EXECUTABLE}" LATHE_RANK_FAULT="$<TARGET_FILE:rank_fault>")
  add_dependencies(test_rank_faults rank_fault)
  list(APPEND command_tests rank_faults)
endif()
if(NOT LATHE_SANITIZE)  # the browser is what is tested here; the pages are made under the sanitizers by others
  lathe_test(browser SOURCES tools/browser_test.cc LINKS lathe::training)
  target_compile_definitions(test_browser PRIVATE LATHE_PYTHON="${LATHE_PYTHON}" LATHE_SOURCE="${PROJECT_SOURCE_DIR}")
  list(APPEND command_tests browser)
endif()
foreach(test ${command_tests})
  target_compile_definitions(test_${test} PRIVATE LATHE_COMMAND="$<TARGET_FILE:lathe_command>")
  add_dependencies(test_${test} lathe_command)
endforeach()

# A thousand malformed and odd files, each with what must become of it (docs/reliability.md).
set(hostile_options)
if(LATHE_SANITIZE)
  set(hostile_options --sanitized)
endif()
add_test(NAME hostile_inputs
  COMMAND ${LATHE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/hostile_inputs_test.py $<TARGET_FILE:lathe_command> ${hostile_options})
set_tests_properties(hostile_inputs PROPERTIES TIMEOUT 900)
lathe_test_environment(hostile_inputs)
