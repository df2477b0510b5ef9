#include "lathe/runtime/atomic_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t files_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

TEST(AtomicFile, ReplacesTheWholeFile) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.txt", "a longer text");
  write_file_atomically(folder / "a.txt", "short");
  EXPECT_EQ(contents(folder / "a.txt"), "short");
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(AtomicFile, LeavesTheOldFileAndNothingElseWhereWritingFails) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.txt", "old");
  const auto fails = [&](const std::filesystem::path& temporary) {
    std::ofstream(temporary) << "half";
    throw FileError(temporary, "disk full");
  };
  EXPECT_THROW(write_file_atomically(folder / "a.txt", fails), FileError);
  EXPECT_EQ(contents(folder / "a.txt"), "old");
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(AtomicFile, NamesTheFolderThatIsMissing) {
  const TemporaryFolder folder;
  try {
    write_file_atomically(folder / "missing" / "a.txt", "x");
    FAIL() << "nothing was thrown";
  } catch (const FileError& failure) {
    EXPECT_NE(std::string(failure.what()).find("missing"), std::string::npos) << failure.what();
  }
}

}  // namespace
}  // namespace lathe
