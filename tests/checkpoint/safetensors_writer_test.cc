#include "lathe/checkpoint/safetensors_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <numeric>

#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::contents;
using checkpoint_test::message_of;
using checkpoint_test::raw;
using checkpoint_test::safetensors;
using checkpoint_test::TemporaryFolder;

template <class T>
std::span<const std::byte> bytes(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

/// Keeps files of this process below a size while it lives, which makes writes fail as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t most) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {most, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  FileSizeLimit(FileSizeLimit&&) = delete;
  FileSizeLimit& operator=(FileSizeLimit&&) = delete;

 private:
  rlimit before_ = {};
  void (*handler_)(int);
};

std::size_t files_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

TEST(SafetensorsWriter, WritesTheFormatToTheByte) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "m.safetensors";
  const std::vector<float> b = {1, 2}, a = {3};
  const std::vector<std::int64_t> ids = {9};
  write_safetensors(path, std::vector<TensorView>{{"b", SafetensorsType::f32, {2, 1}, bytes(b)},
                                                  {"z", SafetensorsType::i64, {1}, bytes(ids)},
                                                  {"a", SafetensorsType::f32, {}, bytes(a)}});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[12,20]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(contents(path), safetensors(header, raw(ids) + raw(a) + raw(b)));
}

TEST(SafetensorsWriter, WhatIsWrittenReadsBack) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "m.safetensors";
  std::vector<float> weights(12'345);
  std::iota(weights.begin(), weights.end(), -3.5F);
  const std::vector<float> none;
  const std::string name = "caf\xC3\xA9 \"quoted\"";
  write_safetensors(path,
                    std::vector<TensorView>{{name, SafetensorsType::f32, {12'345}, bytes(weights)},
                                            {"none", SafetensorsType::f32, {7, 0}, bytes(none)}},
                    {{"format", "pt"}, {"key", "a\nb"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata().at("key"), "a\nb");
  ASSERT_NE(file.find(name), nullptr);
  std::vector<float> read(weights.size());
  file.read_f32(*file.find(name), read);
  EXPECT_EQ(read, weights);
  EXPECT_EQ(file.find("none")->shape, (std::vector<std::int64_t>{7, 0}));
}

TEST(SafetensorsWriter, TheOrderOfTheTensorsDoesNotMatter) {
  const TemporaryFolder folder;
  const std::vector<float> one = {1}, two = {2}, three = {3};
  std::vector<TensorView> tensors = {{"x", SafetensorsType::f32, {1}, bytes(one)},
                                     {"y", SafetensorsType::f32, {1}, bytes(two)},
                                     {"B", SafetensorsType::f32, {1}, bytes(three)}};
  write_safetensors(folder.path() / "1", tensors);
  std::ranges::reverse(tensors);
  write_safetensors(folder.path() / "2", tensors);
  EXPECT_EQ(contents(folder.path() / "1"), contents(folder.path() / "2"));
}

TEST(SafetensorsWriter, RefusesWhatIsNoSetOfTensors) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "m.safetensors";
  const std::vector<float> two = {1, 2};
  const auto write = [&](std::vector<TensorView> tensors) { write_safetensors(path, tensors); };
  EXPECT_THROW(write({{"a", SafetensorsType::f32, {3}, bytes(two)}}), LogicError);
  EXPECT_THROW(write({{"a", SafetensorsType::f32, {-1, -2}, bytes(two)}}), LogicError);
  EXPECT_THROW(write({{"a", SafetensorsType::f32, {2}, bytes(two)}, {"a", SafetensorsType::f32, {2}, bytes(two)}}), LogicError);
  EXPECT_THROW(write({{"a", SafetensorsType::f32, {2}, bytes(two)}, {"a", SafetensorsType::i32, {2}, bytes(two)}}), LogicError);
  EXPECT_THROW(write({{"__metadata__", SafetensorsType::f32, {2}, bytes(two)}}), LogicError);
  EXPECT_THROW(write({{"\xFF", SafetensorsType::f32, {2}, bytes(two)}}), LogicError);
  EXPECT_EQ(files_in(folder.path()), 0U);
}

TEST(SafetensorsWriter, AFailedWriteLeavesThePreviousFile) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.file("m.safetensors", "previous");
  const std::vector<float> weights(100'000);
  std::string message;
  {
    const FileSizeLimit limit(65'536);
    message = message_of<FileError>([&] {
      write_safetensors(path, std::vector<TensorView>{{"a", SafetensorsType::f32, {100'000}, bytes(weights)}});
    });
  }
  EXPECT_EQ(message, path.string() + ": cannot write after 65536 bytes: File too large");
  EXPECT_EQ(contents(path), "previous");
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(SafetensorsWriter, AFolderThatIsMissingIsNamed) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "missing" / "m.safetensors";
  EXPECT_EQ(message_of<FileError>([&] { write_safetensors(path, {}); }),
            path.string() + ": cannot open for writing: No such file or directory");
}

}  // namespace
}  // namespace lathe
