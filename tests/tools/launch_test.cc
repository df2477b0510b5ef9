// Several processes that a launcher started and that know nothing of each other: refused before they train on one folder.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "tests/tools/refusal.h"

namespace lathe {
namespace {

class LaunchTest : public RefusalTest {
 protected:
  /// Runs the command as a launcher would, with the variables that it sets.
  CommandResult launched(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& variables) const {
    return run_lathe(folder_.path(), arguments, "", {}, [&] {
      for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    });
  }
  std::vector<std::string> pretrain() const {
    return {"pretrain", "--task", "mlm", "--model", path("model"), "--train", path("train.tsv"), "--output", path("run")};
  }
};

TEST_F(LaunchTest, SeveralProcessesAreRefused) {
  const std::map<std::string, std::string> launchers = {
      {"OMPI_COMM_WORLD_SIZE", "mpirun"}, {"PMI_SIZE", "mpiexec"}, {"SLURM_STEP_NUM_TASKS", "srun"}};
  for (const auto& [variable, launcher] : launchers) {
    for (const auto& arguments : {finetune(), pretrain()}) {
      const CommandResult result = launched(arguments, {{variable, "2"}});
      EXPECT_EQ(result.status, 2) << variable;
      EXPECT_EQ(result.out, "");
      const auto said = std::string("lathe: ").append(launcher).append(" announces 2 processes (").append(variable).append("=2)");
      EXPECT_TRUE(result.error.starts_with(said)) << result.error;
      EXPECT_EQ(result.error.find('\n'), result.error.size() - 1) << result.error;
      EXPECT_LT(result.error.size(), 300U);
      EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
    }
  }
}

TEST_F(LaunchTest, OneProcessTrains) {
  // A batch script's own variables speak of its steps to come, not of this process; a step of one task is one process.
  const CommandResult result = launched(finetune({"--max-steps", "1", "--device", "cpu"}), {{"SLURM_NTASKS", "8"},
                                                                                            {"SLURM_NPROCS", "8"},
                                                                                            {"SLURM_STEP_NUM_TASKS", "1"},
                                                                                            {"OMPI_COMM_WORLD_SIZE", "1"},
                                                                                            {"PMI_SIZE", ""}});
  EXPECT_EQ(result.status, 0) << result.error;
}

TEST_F(LaunchTest, WhatOnlyReadsRunsAnywhere) {
  const CommandResult result = launched({"inspect", path("model")}, {{"OMPI_COMM_WORLD_SIZE", "2"}});
  EXPECT_EQ(result.status, 0) << result.error;
}

}  // namespace
}  // namespace lathe
