// A build without MPI under a real mpirun. Linked with no_mpi.cc, as its command is.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/tools/mpirun.h"
#include "tests/tools/refusal.h"

namespace lathe {
namespace {

using LaunchWithoutMpiTest = RefusalTest;

TEST_F(LaunchWithoutMpiTest, IsRefusedByOneLineBeforeAnythingIsWritten) {
  const CommandResult result = run_ranks(folder_.path(), {finetune(), finetune()});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.error,
            "lathe: mpirun announces 2 processes (OMPI_COMM_WORLD_SIZE=2), and none of them knows of each other: each would "
            "train alone "
            "and write to the same --output; use a Lathe that was built with MPI (libopenmpi-dev), or start it without mpirun\n");
  EXPECT_LT(result.error.size(), 300U);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

TEST_F(LaunchWithoutMpiTest, SaysWhatItIs) {
  EXPECT_NE(run_lathe(folder_.path(), {"--version"}).out.find("processes: one, as this build has no MPI"), std::string::npos);
}

}  // namespace
}  // namespace lathe
