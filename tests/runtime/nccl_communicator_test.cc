// What is NCCL's own, on the twin: streams, order, failures, the end.
#include "lathe/runtime/nccl_communicator.h"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "lathe/kernels/emulation/fault.h"
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#include "lathe/kernels/reduce.h"
#include "lathe/runtime/graph.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/tensor.h"
#include "tests/runtime/communicator_case.h"

namespace lathe::test {
namespace {

constexpr std::int64_t kCount = 300;

/// The order of streams while it lives.
class StreamOrder {
 public:
  explicit StreamOrder(emulation::Order order) {
    emulation::Settings settings = before_;
    settings.streams = order;
    emulation::configure(settings);
  }
  ~StreamOrder() { emulation::configure(before_); }
  StreamOrder(const StreamOrder&) = delete;
  StreamOrder& operator=(const StreamOrder&) = delete;
  StreamOrder(StreamOrder&&) = delete;
  StreamOrder& operator=(StreamOrder&&) = delete;

 private:
  emulation::Settings before_ = emulation::settings();
};

/// The parameter is the number of ranks.
class NcclTest : public ::testing::TestWithParam<int> {
 protected:
  std::unique_ptr<Communicator> make(const NcclOptions& options = {}) const {
    return make_nccl_communicator(device_, *bootstrap_, options);
  }
  Tensor constant(float value) const { return Tensor::from<float>(device_, std::vector<float>(kCount, value), Shape{kCount}); }
  static std::vector<float> values_of(const Tensor& tensor) {
    std::vector<float> values(static_cast<std::size_t>(tensor.size()));
    tensor.copy_to<float>(values);
    return values;
  }
  static void add_to(const Tensor& y, const Tensor& a) {
    on(y, [&]<class T>(auto stream) {
      add(stream, Add<T>{.y = y.data<T>(), .a = y.data<T>(), .b = a.data<T>(), .count = y.size()});
    });
  }
  /// Calls f, and expects a CommunicationError that names the operation and says `text`.
  template <class F>
  void expect_failure(const std::string& operation, const std::string& text, const F& f) const {
    try {
      f();
      ADD_FAILURE() << "nothing failed: " << text;
    } catch (const CommunicationError& failure) {
      EXPECT_EQ(failure.operation(), operation);
      EXPECT_EQ(failure.rank(), bootstrap_->rank());
      EXPECT_NE(std::string(failure.what()).find(text), std::string::npos) << failure.what();
    }
  }

  std::unique_ptr<Communicator> bootstrap_ = mpi_ranks() > 0 ? make_mpi_communicator({}) : make_single_communicator();
  DeviceRef device_ = Device::cuda({});
};
class SeveralNcclRanksTest : public NcclTest {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SeveralNcclRanksTest);

TEST_P(NcclTest, IsBesideTheDevicesStreamUntilItIsToldToFollow) {
  const auto ranks = make();
  const Tensor data = constant(1.0F);
  add_to(data, data);
  ranks->all_reduce_sum(data);
  try {
    ranks->wait();
    FAIL() << "data were sent while a kernel may still have written them";
  } catch (const emulation::Fault& fault) {
    EXPECT_EQ(fault.kind(), emulation::FaultKind::stream_order) << fault.what();
  }
}

TEST_P(NcclTest, TheDevicesStreamGoesOnUntilItIsToldToWait) {
  const auto ranks = make();
  const Tensor data = constant(1.0F);
  ranks->follow_device();
  ranks->all_reduce_sum(data);
  try {
    add_to(data, data);
    ranks->wait();
    device_->synchronize();
    FAIL() << "a kernel may have written data that were still being sent";
  } catch (const emulation::Fault& fault) {
    EXPECT_EQ(fault.kind(), emulation::FaultKind::stream_order) << fault.what();
  }
}

TEST_P(NcclTest, ABucketTravelsWhileTheGraphGoesOn) {
  const auto size = static_cast<float>(bootstrap_->size());
  for (const emulation::Order order : {emulation::Order::forward, emulation::Order::reverse, emulation::Order::random}) {
    const StreamOrder streams(order);
    const auto ranks = make();
    const Tensor one = constant(1.0F);
    const Tensor first = constant(0.0F);
    const Tensor second = constant(0.0F);
    DeviceEvent first_is_complete(device_);
    const Graph backward = Graph::capture(device_, [&] {
      add_to(first, one);
      first_is_complete.record();
      add_to(second, one);
    });
    for (int step = 1; step <= 2; ++step) {
      first.fill_zero();
      second.fill_zero();
      backward.replay();
      ranks->follow(first_is_complete);
      ranks->all_reduce_sum(first);
      // Of the second bucket nothing has been awaited so far.
      ranks->follow_device();
      ranks->all_reduce_sum(second);
      ranks->lead_device();
      EXPECT_EQ(values_of(first), std::vector<float>(kCount, size));
      EXPECT_EQ(values_of(second), std::vector<float>(kCount, size));
    }
    ranks->wait();
  }
}

TEST_P(NcclTest, AnEventThatComesTooEarlyIsFound) {
  const auto ranks = make();
  const Tensor one = constant(1.0F);
  const Tensor bucket = constant(0.0F);
  DeviceEvent too_early(device_);
  const Graph backward = Graph::capture(device_, [&] {
    too_early.record();
    add_to(bucket, one);
  });
  backward.replay();
  ranks->follow(too_early);
  ranks->all_reduce_sum(bucket);
  EXPECT_THROW(ranks->wait(), emulation::Fault);
}

TEST_P(NcclTest, WhoLeavesByAnExceptionWaitsForNobody) {
  const StreamOrder streams(emulation::Order::reverse);
  const Tensor data = constant(1.0F);
  try {
    const auto ranks = make();
    // The first rank never comes; the others' data are under way when they leave.
    if (ranks->rank() != 0) {
      ranks->follow_device();
      ranks->all_reduce_sum(data);
      device_->synchronize();
    }
    throw std::runtime_error("something else");
  } catch (const std::runtime_error& failure) {
    EXPECT_STREQ(failure.what(), "something else");
  }
  EXPECT_EQ(values_of(data), std::vector<float>(kCount, 1.0F));
}

TEST_P(NcclTest, LeavesNothingBehind) {
  {
    const auto ranks = make();
    const Tensor data = constant(1.0F);
    ranks->follow_device();
    ranks->all_reduce_sum(data);
    ranks->wait();
    const DeviceEvent event(device_);
  }
  device_.reset();
  EXPECT_NO_THROW(emulation::expect_nothing_alive());
}

TEST_P(NcclTest, WantsACudaDevice) {
  EXPECT_THROW(make_nccl_communicator(Device::cpu({}), *bootstrap_, {}), LogicError);
  EXPECT_EQ(nccl_library(), "NCCL emulated");
}

TEST_P(SeveralNcclRanksTest, AFailureIsSeenWhileWaitingAndIsTheEnd) {
  const auto ranks = make();
  const Tensor data = constant(1.0F);
  ranks->follow_device();
  ranks->all_reduce_sum(data);
  failures() = 1;
  expect_failure("waiting for collectives", "NCCL emulated: remote process exited or there was a network error (MPI_ERR_OTHER",
                 [&] { ranks->wait(); });
  failures() = 0;
  expect_failure("all-reduce", "not begun, as an earlier operation failed: waiting for collectives",
                 [&] { ranks->all_reduce_sum(data); });
  expect_failure("barrier", "not begun", [&] { ranks->barrier(); });
}

TEST_P(SeveralNcclRanksTest, TheTwinTellsRanksThatEnqueueDifferentThings) {
  const auto ranks = make();
  const Tensor data = constant(1.0F);
  ranks->follow_device();
  ranks->all_reduce_sum(data.view(0, Shape{ranks->rank() == 0 ? kCount : kCount - 1}));
  expect_failure("waiting for collectives", "the ranks have enqueued different collectives", [&] { ranks->wait(); });
}

TEST_P(SeveralNcclRanksTest, RanksThatDoNotMeetInTimeSaySo) {
  expect_failure("the beginning", "not all ranks have come within the time that was set",
                 [&] { make({.start_timeout = std::chrono::seconds(0)}); });
  // All come in the end, and can begin anew.
  bootstrap_->barrier();
  make()->wait();
}

INSTANTIATE_TEST_SUITE_P(Ranks, NcclTest, ::testing::Values(mpi_ranks()));
INSTANTIATE_TEST_SUITE_P(Ranks, SeveralNcclRanksTest,
                         ::testing::ValuesIn(mpi_ranks() > 1 ? std::vector<int>{mpi_ranks()} : std::vector<int>{}));

}  // namespace
}  // namespace lathe::test
