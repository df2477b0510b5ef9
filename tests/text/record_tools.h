#pragma once
// What the tests of data sets share.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/text/records.h"

namespace lathe::test {

/// What `action` throws as an E; "nothing thrown" where it doesn't, which no expectation below contains.
template <class E>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing thrown";
}

/// Reads `contents` as if they were the file "data".
inline DataSet read_string(const std::string& contents, RecordOptions options) {
  std::istringstream stream(contents);
  return read_records(stream, "data", std::move(options));
}

inline std::vector<std::string> texts_of(const Records& records) {
  std::vector<std::string> texts;
  for (std::int64_t i = 0; i < records.size(); ++i) texts.emplace_back(records.text(i));
  return texts;
}

inline std::vector<std::string> labels_of(const Records& records) {
  std::vector<std::string> labels;
  for (std::int64_t i = 0; i < records.size(); ++i) labels.emplace_back(records[i].label);
  return labels;
}

inline std::vector<std::int64_t> lines_of(const Records& records) {
  std::vector<std::int64_t> lines;
  for (std::int64_t i = 0; i < records.size(); ++i) lines.push_back(records.line(i));
  return lines;
}

/// The folder of the data sets that only some machines have.
inline std::optional<std::filesystem::path> test_data() {
  const char* folder = std::getenv("LATHE_TEST_DATA");
  if (folder == nullptr) return std::nullopt;
  return std::filesystem::path(folder);
}

}  // namespace lathe::test
