lathe_test(wordpiece SOURCES text/wordpiece_test.cc text/wordpiece_golden_test.cc LINKS lathe::text)
target_compile_definitions(test_wordpiece PRIVATE LATHE_GOLDEN_TOKENIZER="${CMAKE_CURRENT_SOURCE_DIR}/golden/tokenizer")
