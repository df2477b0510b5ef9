lathe_test(training
  SOURCES training/dataset_test.cc training/finetune_test.cc training/loader_test.cc training/metrics_test.cc training/output_folder_test.cc training/packing_test.cc
  LINKS lathe::training nlohmann_json::nlohmann_json)
if(LATHE_SANITIZE)
  return()  # the sanitizers have taken malloc's place already
endif()
lathe_test(steady_state SOURCES training/steady_state_test.cc LINKS lathe::training ${CMAKE_DL_LIBS})
set_target_properties(test_steady_state PROPERTIES ENABLE_EXPORTS ON)
