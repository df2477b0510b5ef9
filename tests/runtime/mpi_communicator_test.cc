// What is MPI's own: borrowed communicators, threads, and what happens where MPI fails.
#include "lathe/runtime/mpi_communicator.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_session.h"
#include "tests/runtime/communicator_case.h"

using lathe::test::failures;

// MPI's profiling interface: a program may put functions of its own in MPI's places.
extern "C" int MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]) {  // NOLINT(readability-identifier-naming)
  const int status = PMPI_Waitall(count, requests, statuses);
  if (failures() == 0) return status;
  failures() = 0;
  for (int i = 0; i < count; ++i) statuses[i].MPI_ERROR = i + 1 < count ? MPI_SUCCESS : MPI_ERR_OTHER;
  return MPI_ERR_IN_STATUS;
}

extern "C" int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {  // NOLINT(readability-identifier-naming)
  const int result = PMPI_Test(request, done, status);
  if (failures() == 0 || *done == 0) return result;
  failures() = 0;
  return MPI_ERR_OTHER;
}

namespace lathe::test {

int& failures() {
  static int value = 0;
  return value;
}

namespace {

/// The parameter is the number of ranks.
class MpiTest : public ::testing::TestWithParam<int> {};
class SeveralRanksTest : public MpiTest {};
class WithoutRanksTest : public MpiTest {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(MpiTest);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SeveralRanksTest);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(WithoutRanksTest);

TEST(Mpi, SaysWhichItIs) {
  EXPECT_TRUE(has_mpi());
  const std::string library = mpi_library();
  EXPECT_FALSE(library.empty());
  EXPECT_EQ(library.find_first_of("\t\n,"), std::string::npos) << library;
}

TEST_P(WithoutRanksTest, HaveToInitialiseMpiFirst) {
  try {
    make_mpi_communicator({});
    FAIL() << "MPI was used before it was initialised";
  } catch (const LogicError& failure) {
    EXPECT_NE(std::string(failure.what()).find("MPI is not initialised"), std::string::npos) << failure.what();
  }
}

TEST_P(MpiTest, ASecondSessionLeavesTheFirstAlone) {
  { const MpiSession second; }
  int finalised = 0;
  MPI_Finalized(&finalised);
  EXPECT_EQ(finalised, 0);
  make_mpi_communicator({})->barrier();
}

TEST_P(MpiTest, ABorrowedCommunicatorIsDuplicatedAndLeftAsItWas) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, size - rank, &reversed);
  int sum = 0;
  {
    const auto ranks = make_mpi_communicator({.borrowed = MPI_Comm_c2f(reversed)});
    EXPECT_EQ(ranks->rank(), size - 1 - rank);
    EXPECT_EQ(ranks->size(), size);
    // The program's own messages on the same MPI_Comm, of the same kind and between the communicator's, meet none of them.
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Iallreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, reversed, &request);
    EXPECT_EQ(ranks->gather(std::to_string(rank)).front(), std::to_string(size - 1));
    MPI_Wait(&request, MPI_STATUS_IGNORE);
  }
  EXPECT_EQ(sum, size * (size - 1) / 2);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(reversed, &handler);
  EXPECT_EQ(handler, MPI_ERRORS_ARE_FATAL);
  MPI_Errhandler_free(&handler);
  EXPECT_EQ(MPI_Comm_free(&reversed), MPI_SUCCESS);
}

TEST_P(MpiTest, SomeOfTheRanksMayWorkTogether) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
  {
    const auto ranks = make_mpi_communicator({.borrowed = MPI_Comm_c2f(half)});
    EXPECT_EQ(ranks->rank(), rank / 2);
    const std::vector<std::string> all = ranks->gather(std::to_string(rank));
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], std::to_string(2 * static_cast<int>(i) + rank % 2));
  }
  MPI_Comm_free(&half);
  EXPECT_THROW(make_mpi_communicator({.borrowed = MPI_Comm_c2f(MPI_COMM_NULL)}), LogicError);
}

TEST_P(MpiTest, AnotherThreadIsRefused) {
  const auto ranks = make_mpi_communicator({});
  std::string said;
  std::thread([&] {
    try {
      ranks->barrier();
    } catch (const LogicError& failure) {
      said = failure.what();
    }
  }).join();
  EXPECT_NE(said.find("another thread"), std::string::npos) << said;
  ranks->barrier();
}

TEST_P(MpiTest, PiecesThatMpiCannotCountAreRefused) {
  EXPECT_THROW(make_mpi_communicator({.borrowed = {}, .piece_bytes = 3}), LogicError);
  EXPECT_THROW(make_mpi_communicator({.borrowed = {}, .piece_bytes = std::int64_t{1} << 31}), LogicError);
}

TEST_P(SeveralRanksTest, AFailureNamesOperationRankAndHostAndIsTheEnd) {
  const auto ranks = make_mpi_communicator({});
  const Tensor data = Tensor::zeros(Device::cpu({}), DType::f32, Shape{12});
  failures() = 1;
  try {
    ranks->all_reduce_sum(data);
    FAIL() << "MPI failed, and nobody said so";
  } catch (const CommunicationError& failure) {
    EXPECT_EQ(failure.operation(), "all-reduce of 12 f32");
    EXPECT_EQ(failure.rank(), ranks->rank());
    EXPECT_EQ(failure.host(), ranks->place().host);
    EXPECT_EQ(failure.exit_status(), 1);
    const std::string message = failure.what();
    EXPECT_TRUE(message.starts_with("all-reduce of 12 f32 on rank " + std::to_string(ranks->rank()) + " (host ")) << message;
    EXPECT_NE(message.find("MPI_ERR_OTHER"), std::string::npos) << message;
  }
  failures() = 0;
  try {
    ranks->barrier();
    FAIL() << "a communicator was used after a failure";
  } catch (const CommunicationError& failure) {
    const std::string message = failure.what();
    EXPECT_NE(message.find("an earlier operation failed: all-reduce of 12 f32: MPI_ERR_OTHER"), std::string::npos) << message;
  }
}

std::vector<int> ranks_if(bool wanted) { return wanted ? std::vector<int>{mpi_ranks()} : std::vector<int>{}; }
INSTANTIATE_TEST_SUITE_P(Ranks, MpiTest, ::testing::ValuesIn(ranks_if(mpi_ranks() > 0)));
INSTANTIATE_TEST_SUITE_P(Ranks, SeveralRanksTest, ::testing::ValuesIn(ranks_if(mpi_ranks() > 1)));
INSTANTIATE_TEST_SUITE_P(Ranks, WithoutRanksTest, ::testing::ValuesIn(ranks_if(mpi_ranks() == 0)));

}  // namespace
}  // namespace lathe::test
