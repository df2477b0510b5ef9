lathe_test(checkpoint
  SOURCES
    checkpoint/bert_names_test.cc
    checkpoint/config_test.cc
    checkpoint/float_conversion_test.cc
    checkpoint/inspection_test.cc
    checkpoint/json_test.cc
    checkpoint/model_cache_test.cc
    checkpoint/model_folder_test.cc
    checkpoint/published_weights_test.cc
    checkpoint/safetensors_test.cc
    checkpoint/safetensors_writer_test.cc
  LINKS lathe::checkpoint)
