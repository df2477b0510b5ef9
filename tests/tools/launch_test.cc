// Several processes that a launcher announces: refused before they train on one folder, unless they find each other.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "lathe/runtime/mpi_session.h"
#include "tests/tools/refusal.h"

namespace lathe {
namespace {

using Variables = std::map<std::string, std::string>;

class LaunchTest : public RefusalTest {
 protected:
  /// Runs the command as a launcher would, with the variables that it sets.
  CommandResult launched(const std::vector<std::string>& arguments, const Variables& variables) const {
    return run_lathe(folder_.path(), arguments, "", {}, [&] {
      ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // what MPI leaves, where it was initialised
      for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    });
  }
  /// One line and no more, nothing written; a build with MPI says `with_mpi`.
  void expect_refused_launch(const std::vector<std::string>& arguments, const Variables& variables, const std::string& said,
                             const std::string& with_mpi) const {
    const CommandResult result = launched(arguments, variables);
    EXPECT_EQ(result.status, 2) << said;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.error.starts_with("lathe: " + said)) << result.error;
    EXPECT_NE(
        result.error.find(has_mpi() ? with_mpi : "use a Lathe that was built with MPI (libopenmpi-dev), or start it without "),
        std::string::npos)
        << result.error;
    EXPECT_EQ(result.error.find('\n'), result.error.size() - 1) << result.error;
    EXPECT_LT(result.error.size(), 300U) << result.error;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
  }
  std::vector<std::string> pretrain() const {
    return {"pretrain", "--task", "mlm", "--model", path("model"), "--train", path("train.tsv"), "--output", path("run")};
  }
};

TEST_F(LaunchTest, ProcessesThatDontFindEachOtherAreRefused) {
  for (const auto& arguments : {finetune(), pretrain()}) {
    expect_refused_launch(arguments, {{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "0"}},
                          "mpirun announces 2 processes (OMPI_COMM_WORLD_SIZE=2), and none of them knows of each other",
                          "start it by the mpirun of ");
    expect_refused_launch(arguments, {{"PMI_SIZE", "3"}, {"PMI_RANK", "0"}}, "mpiexec announces 3 processes (PMI_SIZE=3)",
                          "start it by the mpirun of ");
    expect_refused_launch(arguments, {{"SLURM_STEP_NUM_TASKS", "2"}}, "srun announces 2 processes (SLURM_STEP_NUM_TASKS=2)",
                          "use srun --mpi=pmix");
  }
}

/// Where srun doesn't say how its tasks find each other, Open MPI would end each of them by twenty lines.
TEST_F(LaunchTest, AStepWithoutPmixIsToldSoInOneLine) {
  expect_refused_launch(finetune(),
                        {{"SLURM_JOB_ID", "5"},
                         {"SLURM_JOBID", "5"},
                         {"SLURM_STEP_ID", "0"},
                         {"SLURM_STEPID", "0"},
                         {"SLURM_NODELIST", "localhost"},
                         {"SLURM_NTASKS", "2"},
                         {"SLURM_PROCID", "0"},
                         {"SLURM_LOCALID", "0"},
                         {"SLURM_STEP_NUM_TASKS", "2"}},
                        "srun announces 2 processes (SLURM_STEP_NUM_TASKS=2)", "use srun --mpi=pmix");
}

TEST_F(LaunchTest, TheFirstProcessSpeaksForAll) {
  for (const auto& variables : {Variables{{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}},
                                Variables{{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "3"}}}) {
    const CommandResult result = launched(finetune(), variables);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out + result.error, "");
    EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
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

TEST_F(LaunchTest, TheWorkOfOneProcessIsntDoneBySeveral) {
  for (const std::string command : {"evaluate", "predict", "bench"}) {
    const std::vector<std::string> arguments =
        command == "bench" ? std::vector<std::string>{command}
                           : std::vector<std::string>{command, "--model", path("model"), "--data", path("train.tsv")};
    const CommandResult result = launched(arguments, {{"OMPI_COMM_WORLD_SIZE", "2"}});
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    std::string expected = "lathe: ";
    expected.append(command)
        .append(" is the work of one process, and mpirun announces 2 (OMPI_COMM_WORLD_SIZE=2): start it without mpirun; what ")
        .append("several do by themselves is started by `env -u OMPI_COMM_WORLD_SIZE lathe ")
        .append(command)
        .append("`\n");
    EXPECT_EQ(result.error, expected);
  }
}

TEST_F(LaunchTest, WhatOnlyLooksRunsAnywhere) {
  const Variables launcher = {{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}};
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"inspect", path("model")},
                                                    {"--version"},
                                                    {"tokenize", "--model", path("model"), "--data", path("train.tsv")}}) {
    const CommandResult result = launched(arguments, launcher);
    EXPECT_EQ(result.status, 0) << result.error;
    EXPECT_NE(result.out, "") << arguments.front();
  }
}

}  // namespace
}  // namespace lathe
