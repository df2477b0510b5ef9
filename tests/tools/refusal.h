#pragma once
// Holding the command to how it refuses: exit status 2, one line that says what and where, nothing written.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {

class RefusalTest : public testing::Test {
 protected:
  RefusalTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 60, 1);
  }
  std::string path(const std::filesystem::path& name) const { return (folder_ / name).string(); }
  void write(const std::filesystem::path& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }

  /// Expects one line that holds all of `facts`, status 2, and no output folder. What the run prints of its progress stands before it.
  std::string expect_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& facts,
                             bool output_may_exist = false) const {
    const CommandResult result = run_lathe(folder_.path(), arguments);
    EXPECT_EQ(result.status, 2) << result.error;
    EXPECT_EQ(result.out, "");
    EXPECT_FALSE(result.error.empty());
    if (result.error.empty()) return {};
    EXPECT_EQ(result.error.back(), '\n');
    const auto begin = result.error.rfind("lathe: ");
    EXPECT_NE(begin, std::string::npos) << result.error;
    if (begin == std::string::npos) return {};
    std::string line = result.error.substr(begin);
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
    EXPECT_LT(line.size(), 300U) << line;
    for (const std::string& fact : facts)
      EXPECT_NE(line.find(fact), std::string::npos) << "\"" << fact << "\" is missing in: " << line;
    EXPECT_TRUE(output_may_exist || !std::filesystem::exists(folder_ / "run")) << line;
    return line;
  }
  std::vector<std::string> finetune(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"finetune",        "--model",  path("model"), "--train",
                                          path("train.tsv"), "--output", path("run")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<std::string> finetune_on(const std::string& file, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"finetune", "--model", path("model"), "--train", path(file), "--output", path("run")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  TemporaryFolder folder_;
};

}  // namespace lathe
