lathe_test(training
  SOURCES training/dataset_test.cc training/finetune_test.cc training/loader_test.cc training/metrics_test.cc training/output_folder_test.cc training/packing_test.cc training/pretrain_test.cc
  LINKS lathe::training nlohmann_json::nlohmann_json)
find_program(LATHE_PYTHON NAMES python3 REQUIRED)
lathe_test(pages
  SOURCES training/axis_test.cc training/curves_test.cc training/page_text_test.cc training/report_page_test.cc
  LINKS lathe::training)
target_compile_definitions(test_pages PRIVATE LATHE_PYTHON="${LATHE_PYTHON}")
if(LATHE_SANITIZE)
  return()  # the sanitizers have taken malloc's place already
endif()
lathe_test(steady_state SOURCES training/steady_state_test.cc LINKS lathe::training ${CMAKE_DL_LIBS})
set_target_properties(test_steady_state PROPERTIES ENABLE_EXPORTS ON)
