// A build without MPI says so wherever MPI is asked for. Linked with no_mpi.cc, whatever this build has.
#include <gtest/gtest.h>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/mpi_session.h"

namespace lathe {
namespace {

void expect_refusal(void (*call)()) {
  try {
    call();
    FAIL() << "it was done, without MPI";
  } catch (const UsageError& failure) {
    EXPECT_STREQ(failure.what(),
                 "this build of Lathe has no MPI, and is one process: build it with LATHE_MPI=ON (Debian: libopenmpi-dev)");
  }
}

TEST(WithoutMpi, SaysSo) {
  EXPECT_FALSE(has_mpi());
  EXPECT_EQ(mpi_library(), "");
  expect_refusal([] { const MpiSession session; });
  expect_refusal([] { make_mpi_communicator({}); });
}

}  // namespace
}  // namespace lathe
