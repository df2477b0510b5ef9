#include "lathe/runtime/file_lock.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <fstream>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class FileLockTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
  fs::path path_ = folder_ / "lock";
};

TEST_F(FileLockTest, ExcludesASecondAndNamesTheFirst) {
  std::optional<FileLock> first = FileLock::take(path_);
  ASSERT_TRUE(first);
  EXPECT_FALSE(FileLock::take(path_));
  EXPECT_EQ(lock_holder(path_), fmt::format("process {}", ::getpid()));
  first.reset();
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_EQ(lock_holder(path_), "");
  EXPECT_TRUE(FileLock::take(path_));
}

TEST_F(FileLockTest, AskingWhoHoldsItTakesNothing) {
  const std::optional<FileLock> lock = FileLock::take(path_);
  for (int i = 0; i < 3; ++i) EXPECT_NE(lock_holder(path_), "");
  EXPECT_FALSE(FileLock::take(path_)) << "closing the descriptor that asked has not given the lock away";
}

TEST_F(FileLockTest, MovesAlong) {
  std::optional<FileLock> lock = FileLock::take(path_);
  FileLock moved = std::move(*lock);
  lock.reset();
  EXPECT_FALSE(FileLock::take(path_));
  EXPECT_TRUE(fs::exists(path_));
}

TEST_F(FileLockTest, AFileOfAKilledProcessHindersNobody) {
  std::array<int, 2> ready = {};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::optional<FileLock> lock = FileLock::take(path_);
    static_cast<void>(::write(ready[1], "x", 1));
    for (;;) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_FALSE(FileLock::take(path_));
  EXPECT_EQ(lock_holder(path_), fmt::format("process {}", child));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(fs::exists(path_)) << "what is left behind";
  EXPECT_EQ(lock_holder(path_), "");
  EXPECT_TRUE(FileLock::take(path_));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(FileLockTest, SaysWhyItCannotBeMade) { EXPECT_THROW(FileLock::take(folder_ / "absent" / "lock"), FileError); }

}  // namespace
}  // namespace lathe
