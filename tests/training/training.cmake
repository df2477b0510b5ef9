lathe_test(training
  SOURCES training/dataset_test.cc training/finetune_test.cc training/loader_test.cc training/memory_estimate_test.cc training/metrics_test.cc training/output_folder_test.cc training/packing_test.cc training/step_test.cc training/pretrain_test.cc training/token_cache_test.cc training/upload_test.cc training/step_times_test.cc
  LINKS lathe::training fmt::fmt nlohmann_json::nlohmann_json)
if(LATHE_CUDA_BACKEND)
  lathe_test(cuda_training CUDA
    SOURCES training/cuda_finetune_test.cc training/cuda_gradients_test.cc training/cuda_loop_test.cc training/cuda_step_test.cc training/memory_estimate_test.cc training/upload_test.cc
    LINKS lathe::training)
endif()
# Several ranks that train one model: once as a run alone, and under mpirun.
lathe_test(data_parallel SOURCES runtime/communicator_main.cc training/data_parallel_test.cc training/shard_optimizer_test.cc training/step_trace_test.cc LINKS lathe::training fmt::fmt nlohmann_json::nlohmann_json)
lathe_mpi_tests(data_parallel 1 2 3 4)
if(LATHE_NCCL_BACKEND STREQUAL "EMULATED")
  lathe_test(overlap SOURCES runtime/communicator_main.cc training/overlap_test.cc LINKS lathe::training fmt::fmt)
  lathe_mpi_tests(overlap 2)
endif()

# The same with a published model on real text, where everything is tested. The run alone leaves what the others compare with.
lathe_test(sst2_ranks WHOLE SOURCES runtime/communicator_main.cc training/sst2_ranks_test.cc LINKS lathe::training)
set(alone "${CMAKE_CURRENT_BINARY_DIR}/sst2_ranks")
file(MAKE_DIRECTORY "${alone}")
target_compile_definitions(test_sst2_ranks PRIVATE LATHE_ALONE="${alone}")
set_tests_properties(sst2_ranks PROPERTIES FIXTURES_SETUP sst2_alone)
lathe_mpi_tests(sst2_ranks WHOLE 1 2 3 4)
foreach(ranks 1 2 3 4)
  if(TEST sst2_ranks_${ranks})
    set_tests_properties(sst2_ranks_${ranks} PROPERTIES FIXTURES_REQUIRED sst2_alone)
  endif()
endforeach()
find_program(LATHE_PYTHON NAMES python3 REQUIRED)
lathe_test(pages
  SOURCES training/axis_test.cc training/curves_test.cc training/page_text_test.cc training/report_page_test.cc
  LINKS lathe::training)
target_compile_definitions(test_pages PRIVATE LATHE_PYTHON="${LATHE_PYTHON}")

# Pre-training beside PyTorch's (scripts/golden_pretrain.py): the first steps, and where everything is tested all of them.
lathe_test(pretrain_golden SOURCES training/pretrain_golden_test.cc LINKS lathe::training fmt::fmt nlohmann_json::nlohmann_json)
target_compile_definitions(test_pretrain_golden PRIVATE LATHE_GOLDEN_PRETRAIN="${CMAKE_CURRENT_SOURCE_DIR}/golden/pretrain")
add_test(NAME pretrain_golden_whole CONFIGURATIONS Everything COMMAND test_pretrain_golden)
set_tests_properties(pretrain_golden_whole PROPERTIES TIMEOUT 1800 ENVIRONMENT LATHE_GOLDEN_STEPS=300)
add_executable(pretrain_golden_inputs EXCLUDE_FROM_ALL training/pretrain_golden_inputs.cc)
target_compile_options(pretrain_golden_inputs PRIVATE ${LATHE_WARNINGS})
target_include_directories(pretrain_golden_inputs PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(pretrain_golden_inputs PRIVATE lathe_training)

if(LATHE_SANITIZE)
  return()  # the sanitizers have taken malloc's place already
endif()
lathe_test(steady_state SOURCES training/steady_state_test.cc LINKS lathe::training ${CMAKE_DL_LIBS})
set_target_properties(test_steady_state PROPERTIES ENABLE_EXPORTS ON)
