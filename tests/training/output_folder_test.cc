#include "lathe/training/output_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class OutputFolderTest : public testing::Test {
 protected:
  OutputFolderTest() {
    fs::create_directory(folder_ / "model");
    fs::create_directory(folder_ / "run");
    touch("data.tsv");
  }
  void touch(const fs::path& name) const { std::ofstream(folder_ / name) << "x"; }
  void check(const fs::path& output, Existing existing = Existing::refuse) const {
    const std::vector<fs::path> inputs = {folder_ / "data.tsv"};
    check_output_folder(output, folder_ / "model", inputs, existing);
  }
  TemporaryFolder folder_;
};

TEST_F(OutputFolderTest, AbsentAndEmptyFoldersAreFine) {
  EXPECT_NO_THROW(check(folder_ / "new" / "deeper"));
  EXPECT_FALSE(fs::exists(folder_ / "new")) << "checking writes nothing";
  EXPECT_NO_THROW(check(folder_ / "run"));
}

TEST_F(OutputFolderTest, RefusesTheModelItselfAndWhatLiesInIt) {
  EXPECT_THROW(check(folder_ / "model"), UsageError);
  EXPECT_THROW(check(folder_ / "model" / "inside"), UsageError);
  EXPECT_THROW(check(folder_ / "run" / ".." / "model"), UsageError);
  fs::create_symlink(folder_ / "model", folder_ / "link");
  EXPECT_THROW(check(folder_ / "link" / "inside"), UsageError);
  EXPECT_NO_THROW(check(folder_ / "model2")) << "a name that begins alike is another folder";
}

TEST_F(OutputFolderTest, RefusesAFolderThatHoldsDataOrTheModel) {
  EXPECT_THROW(check(folder_.path(), Existing::overwrite), UsageError);
}

TEST_F(OutputFolderTest, RefusesFoldersOfOthers) {
  touch("run/notes.txt");
  EXPECT_THROW(check(folder_ / "run"), UsageError);
  EXPECT_THROW(check(folder_ / "run", Existing::overwrite), UsageError);
}

TEST_F(OutputFolderTest, ReplacesARunOnlyWhenAskedAndLeavesOtherFiles) {
  touch("run/run.toml");
  touch("run/model.safetensors");
  touch("run/curves.svg");
  touch("run/report.html");
  touch("run/notes.txt");
  EXPECT_THROW(check(folder_ / "run"), UsageError);
  EXPECT_NO_THROW(check(folder_ / "run", Existing::overwrite));
  static_cast<void>(prepare_output_folder(folder_ / "run", Existing::overwrite));
  EXPECT_TRUE(fs::exists(folder_ / "run" / "notes.txt"));
  EXPECT_FALSE(fs::exists(folder_ / "run" / "run.toml"));
  EXPECT_FALSE(fs::exists(folder_ / "run" / "model.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "run" / "curves.svg"));
  EXPECT_FALSE(fs::exists(folder_ / "run" / "report.html"));
}

TEST_F(OutputFolderTest, BelongsToOneRunAtATime) {
  touch("run/run.toml");
  {
    const FileLock first = prepare_output_folder(folder_ / "run", Existing::overwrite);
    EXPECT_THROW(check(folder_ / "run", Existing::overwrite), UsageError);
    EXPECT_THROW(static_cast<void>(prepare_output_folder(folder_ / "run", Existing::overwrite)), UsageError);
    touch("run/run.toml");
  }
  // Whoever checked before the first had begun, and comes when it is done, finds its run.
  EXPECT_THROW(static_cast<void>(prepare_output_folder(folder_ / "run", Existing::refuse)), UsageError);
  EXPECT_TRUE(fs::exists(folder_ / "run" / "run.toml"));
  EXPECT_NO_THROW(static_cast<void>(prepare_output_folder(folder_ / "run", Existing::overwrite)));
}

TEST_F(OutputFolderTest, WhatAKilledRunBeganCountsForNothing) {
  touch("run/.lathe.lock");
  touch("run/model.safetensors.99.partial");
  EXPECT_NO_THROW(check(folder_ / "run"));
  static_cast<void>(prepare_output_folder(folder_ / "run", Existing::refuse));
  EXPECT_TRUE(fs::is_empty(folder_ / "run"));
  touch("run/notes.txt.99.partial");
  EXPECT_THROW(check(folder_ / "run"), UsageError) << "somebody else's";
}

TEST_F(OutputFolderTest, RefusesWhatIsNotAFolderOrNotWritable) {
  touch("file");
  EXPECT_THROW(check(folder_ / "file"), FileError);
  EXPECT_THROW(check(folder_ / "file" / "below"), FileError);
  constexpr fs::perms kReadable = fs::perms::group_read | fs::perms::group_exec | fs::perms::others_read | fs::perms::others_exec;
  fs::permissions(folder_ / "run", fs::perms::owner_read | fs::perms::owner_exec | kReadable);
  fs::permissions(folder_.path(), kReadable, fs::perm_options::add);
  // Nothing is unwritable to root: a process that is nobody looks.
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (::geteuid() == 0 && ::setresuid(kNobody, kNobody, kNobody) != 0) ::_exit(4);
    const auto refused = [&](const fs::path& output) {
      try {
        check(output);
      } catch (const FileError& failure) {
        return std::string(failure.what()).find("cannot be written") != std::string::npos;
      }
      return false;
    };
    ::_exit((refused(folder_ / "run") ? 0 : 1) + (refused(folder_ / "run" / "new") ? 0 : 2));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "1: the folder itself, 2: a new one in it, 4: the test can't become nobody";
  fs::permissions(folder_ / "run", fs::perms::owner_all);
}

}  // namespace
}  // namespace lathe
