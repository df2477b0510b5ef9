// The ranks of a job run the same tests. Rank 0 alone prints, and a test has failed where it failed on any rank: the others' messages are
// rank 0's.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/mpi_session.h"
#include "tests/runtime/communicator_case.h"

namespace lathe::test {
namespace {

/// Tells rank 0 what failed elsewhere.
class GatherFailures : public ::testing::EmptyTestEventListener {
 public:
  explicit GatherFailures(Communicator& ranks) : ranks_(&ranks) {}

  void OnTestPartResult(const ::testing::TestPartResult& part) override {
    if (!part.failed() || telling_) return;
    messages_ +=
        fmt::format("{}:{}: {}\n", part.file_name() == nullptr ? "?" : part.file_name(), part.line_number(), part.message());
  }

  void OnTestEnd(const ::testing::TestInfo& /*test*/) override {
    const std::vector<std::string> all = ranks_->gather(messages_);
    telling_ = true;
    for (int rank = 0; rank < ranks_->size(); ++rank) {
      const std::string& messages = all[static_cast<std::size_t>(rank)];
      if (rank != ranks_->rank() && !messages.empty()) ADD_FAILURE() << "on rank " << rank << ": " << messages;
    }
    telling_ = false;
    messages_.clear();
  }

 private:
  Communicator* ranks_;
  std::string messages_;
  bool telling_ = false;
};

}  // namespace

int& mpi_ranks() {
  static int value = 0;
  return value;
}

}  // namespace lathe::test

int main(int argc, char** argv) {
  std::optional<lathe::MpiSession> session;
  std::unique_ptr<lathe::Communicator> ranks;
  if (std::ranges::count(std::span(argv, static_cast<std::size_t>(argc)), std::string_view("--mpi")) > 0) {
    session.emplace();
    ranks = lathe::make_mpi_communicator({});
    lathe::test::mpi_ranks() = ranks->size();
  }
  ::testing::InitGoogleTest(&argc, argv);
  if (ranks) {
    ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (ranks->rank() != 0) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new lathe::test::GatherFailures(*ranks));
  }
  return RUN_ALL_TESTS();
}
