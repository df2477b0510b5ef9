lathe_test(records
  SOURCES text/columns_test.cc text/data_check_test.cc text/documents_test.cc text/labels_test.cc text/line_reader_test.cc text/masking_test.cc text/records_test.cc text/split_test.cc text/utf8_test.cc
  LINKS lathe::text lathe::checkpoint)
