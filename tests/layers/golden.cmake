lathe_test(golden
  SOURCES layers/golden_test.cc
  LINKS lathe::training nlohmann_json::nlohmann_json)
target_compile_definitions(test_golden PRIVATE LATHE_GOLDEN_MODELS="${CMAKE_CURRENT_SOURCE_DIR}/golden/model")
