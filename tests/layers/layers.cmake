lathe_test(layers
  SOURCES layers/bert_test.cc layers/functions_test.cc
  LINKS lathe::layers lathe::text lathe::training)
