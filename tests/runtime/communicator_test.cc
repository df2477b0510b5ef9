// The contract of communicators, for every kind of them and any number of ranks.
#include "lathe/runtime/communicator.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "lathe/runtime/tensor.h"
#include "tests/runtime/communicator_case.h"

namespace lathe::test {
namespace {

DeviceRef cpu() { return Device::cpu({}); }

std::vector<CommunicatorCase> cases() {
  std::vector<CommunicatorCase> all;
  if (mpi_ranks() > 0) {
    all.push_back({.name = "mpi",
                   .make = [](const DeviceRef&,
                              std::int64_t piece) { return make_mpi_communicator({.borrowed = {}, .piece_bytes = piece}); },
                   .make_device = cpu});
  } else {
    all.push_back({.name = "single",
                   .make = [](const DeviceRef&, std::int64_t) { return make_single_communicator(); },
                   .make_device = cpu});
  }
  return all;
}

/// Sends NCCL's id. It outlives the tests' communicators.
Communicator& bootstrap() {
  static const std::unique_ptr<Communicator> ranks = mpi_ranks() > 0 ? make_mpi_communicator({}) : make_single_communicator();
  return *ranks;
}

/// Where there is a GPU, or the emulation of one.
std::vector<CommunicatorCase> cuda_cases() {
  if (!has_nccl() || Device::why_no_cuda({}).has_value()) return {};
  return {{.name = "nccl",
           .make = [](const DeviceRef& device, std::int64_t) { return make_nccl_communicator(device, bootstrap(), {}); },
           .make_device = [] { return Device::cuda({}); }}};
}

/// An element of a rank. Neighbours differ in sign and by up to 2^16 in size, so that the order of a sum is seen in its bits.
float element(int rank, std::int64_t i) {
  std::uint64_t state = (static_cast<std::uint64_t>(i) * 1'000'003 + static_cast<std::uint64_t>(rank) + 1) * 0x9E3779B97F4A7C15U;
  state ^= state >> 29U;
  state *= 0xBF58476D1CE4E5B9U;
  state ^= state >> 32U;
  const auto mantissa = static_cast<float>(static_cast<std::int64_t>(state & 0xFFFFFU) - 0x80000);
  return std::ldexp(mantissa, static_cast<int>((state >> 40U) % 16) - 20);
}

template <class T>
std::vector<T> elements(int rank, std::int64_t count) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(element(rank, i)));
  return values;
}

/// What the contract says, the plain way.
template <class T>
std::vector<T> sum_of_ranks(int size, std::int64_t count) {
  std::vector<T> sums;
  for (std::int64_t i = 0; i < count; ++i) {
    auto sum = static_cast<float>(static_cast<T>(element(0, i)));
    for (int rank = 1; rank < size; ++rank) sum += static_cast<float>(static_cast<T>(element(rank, i)));
    sums.push_back(static_cast<T>(sum));
  }
  return sums;
}

template <class T>
std::string bits(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}
template <class T>
std::string bits(const std::vector<T>& values) {
  return bits(std::span<const T>(values));
}

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.size()));
  tensor.copy_to<T>(values);
  return values;
}

TEST(Elements, TellOneOrderFromAnother) {
  // Or the tests of sums would prove little: a sum from the last rank on differs, and so does one that is rounded to bf16 at each step.
  constexpr int kRanks = 3;
  bool order_seen = false;
  bool rounding_seen = false;
  const std::vector<float> sums = sum_of_ranks<float>(kRanks, 1000);
  const std::vector<Bf16> rounded_once = sum_of_ranks<Bf16>(kRanks, 1000);
  for (std::int64_t i = 0; i < 1000; ++i) {
    float backwards = element(kRanks - 1, i);
    for (int rank = kRanks - 2; rank >= 0; --rank) backwards += element(rank, i);
    order_seen = order_seen || backwards != sums[static_cast<std::size_t>(i)];
    auto stepwise = static_cast<Bf16>(element(0, i));
    for (int rank = 1; rank < kRanks; ++rank)
      stepwise = static_cast<Bf16>(static_cast<float>(stepwise) + static_cast<float>(static_cast<Bf16>(element(rank, i))));
    rounding_seen = rounding_seen || stepwise.bits != rounded_once[static_cast<std::size_t>(i)].bits;
  }
  EXPECT_TRUE(order_seen);
  EXPECT_TRUE(rounding_seen);
}

class CommunicatorTest : public ::testing::TestWithParam<CommunicatorCase> {
 protected:
  template <class T>
  Tensor tensor(const std::vector<T>& values) const {
    return Tensor::from<T>(device_, values, Shape{std::ssize(values)});
  }

  /// What `collective` makes of a tensor with these values.
  template <class T>
  std::vector<T> after(const std::vector<T>& values, const std::function<void(const Tensor&)>& collective) {
    const Tensor data = tensor(values);
    ranks_->follow_device();
    collective(data);
    ranks_->lead_device();
    std::vector<T> result = values_of<T>(data);
    ranks_->wait();
    return result;
  }

  template <class T>
  std::vector<T> mine(std::int64_t count) const {
    return elements<T>(ranks_->rank(), count);
  }

  template <class T>
  void expect_sums_in_rank_order();
  template <class T>
  void expect_shares_to_make_the_whole();
  template <class T>
  void expect_shares_to_be_gathered();

  DeviceRef device_ = GetParam().make_device();
  std::unique_ptr<Communicator> ranks_ = GetParam().make(device_, kUsualPiece);
};

/// Empty, smaller than the number of ranks, not divisible by it, and larger than a piece of a sum.
constexpr std::int64_t kSizes[] = {0, 1, 2, 3, 4, 5, 7, 64, 1000, 5003};

TEST_P(CommunicatorTest, KnowsItsPlace) {
  const Place& place = ranks_->place();
  EXPECT_GE(place.rank, 0);
  EXPECT_LT(place.rank, place.size);
  EXPECT_FALSE(place.host.empty());
  EXPECT_EQ(ranks_->transport().empty(), GetParam().name == "single");
  // All ranks are on this host, so that they are numbered likewise.
  EXPECT_EQ(place.local_size, place.size);
  EXPECT_EQ(place.local_rank, place.rank);
  const std::vector<std::string> all = ranks_->gather(fmt::format("{} of {} on {}", place.rank, place.size, place.host));
  ASSERT_EQ(std::ssize(all), place.size);
  for (int rank = 0; rank < place.size; ++rank)
    EXPECT_EQ(all[static_cast<std::size_t>(rank)], fmt::format("{} of {} on {}", rank, place.size, place.host));
}

TEST_P(CommunicatorTest, GathersBytesOfAnyLength) {
  // Rank 0 has none, and the bytes are any.
  const auto of = [](int rank) { return std::string(static_cast<std::size_t>(rank) * 1000, static_cast<char>(rank - 1)); };
  const std::vector<std::string> all = ranks_->gather(of(ranks_->rank()));
  ASSERT_EQ(std::ssize(all), ranks_->size());
  for (int rank = 0; rank < ranks_->size(); ++rank) EXPECT_EQ(all[static_cast<std::size_t>(rank)], of(rank));
}

TEST_P(CommunicatorTest, BroadcastsFromAnyRank) {
  for (int root = 0; root < ranks_->size(); ++root) {
    for (const std::int64_t count : kSizes) {
      std::vector<float> data = mine<float>(count);
      ranks_->broadcast(std::as_writable_bytes(std::span(data)), root);
      EXPECT_EQ(bits(data), bits(elements<float>(root, count))) << count << " from rank " << root;
    }
  }
}

TEST_P(CommunicatorTest, ABarrierHoldsAllUntilTheLastHasCome) {
  // Each rank tells how often it has passed before the last one comes: none has.
  const bool last = ranks_->rank() == ranks_->size() - 1;
  const auto come = std::chrono::steady_clock::now();
  if (last) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ranks_->barrier();
  // Of one host the clock is the same for all its processes.
  const auto passed = std::chrono::steady_clock::now().time_since_epoch().count();
  const auto began = (last ? come + std::chrono::milliseconds(20) : come).time_since_epoch().count();
  const std::vector<std::string> all = ranks_->gather(std::to_string(began));
  for (const std::string& other : all) EXPECT_GE(passed, std::stoll(other));
}

template <class T>
void CommunicatorTest::expect_sums_in_rank_order() {
  for (const std::int64_t count : kSizes) {
    const std::vector<T> sums = after<T>(mine<T>(count), [&](const Tensor& data) { ranks_->all_reduce_sum(data); });
    EXPECT_EQ(bits(sums), bits(sum_of_ranks<T>(ranks_->size(), count))) << count;
  }
}

TEST_P(CommunicatorTest, SumsInRankOrder) {
  expect_sums_in_rank_order<float>();
  expect_sums_in_rank_order<Bf16>();
}

template <class T>
void CommunicatorTest::expect_shares_to_make_the_whole() {
  for (const std::int64_t count : kSizes) {
    for (const std::int64_t block : {1, 3, 1024}) {
      const std::vector<T> expected = sum_of_ranks<T>(ranks_->size(), count);
      const Share own = share_of(count, block, ranks_->rank(), ranks_->size());
      const auto of_share = [&](const std::vector<T>& values) {
        return bits(std::span(values).subspan(static_cast<std::size_t>(own.begin), static_cast<std::size_t>(own.count)));
      };
      const std::vector<T> scattered =
          after<T>(mine<T>(count), [&](const Tensor& data) { ranks_->reduce_scatter_sum(data, block); });
      EXPECT_EQ(of_share(scattered), of_share(expected)) << count << " in blocks of " << block;
      const std::vector<T> gathered = after<T>(mine<T>(count), [&](const Tensor& data) {
        ranks_->reduce_scatter_sum(data, block);
        ranks_->all_gather(data, block);
      });
      EXPECT_EQ(bits(gathered), bits(expected)) << count << " in blocks of " << block;
    }
  }
}

TEST_P(CommunicatorTest, ReduceScatterAndAllGatherAreAllReduceBitForBit) {
  expect_shares_to_make_the_whole<float>();
  expect_shares_to_make_the_whole<Bf16>();
}

template <class T>
void CommunicatorTest::expect_shares_to_be_gathered() {
  for (const std::int64_t count : kSizes) {
    for (const std::int64_t block : {1, 5, 1024}) {
      std::vector<T> expected;
      std::vector<T> own(static_cast<std::size_t>(count), static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
      for (int rank = 0; rank < ranks_->size(); ++rank) {
        const Share share = share_of(count, block, rank, ranks_->size());
        const std::vector<T> all = elements<T>(rank, count);
        for (std::int64_t i = share.begin; i < share.begin + share.count; ++i) {
          expected.push_back(all[static_cast<std::size_t>(i)]);
          if (rank == ranks_->rank()) own[static_cast<std::size_t>(i)] = all[static_cast<std::size_t>(i)];
        }
      }
      const std::vector<T> gathered = after<T>(own, [&](const Tensor& data) { ranks_->all_gather(data, block); });
      EXPECT_EQ(bits(gathered), bits(expected)) << count << " in blocks of " << block;
    }
  }
}

TEST_P(CommunicatorTest, AllGatherBringsEverybodysShare) {
  expect_shares_to_be_gathered<float>();
  expect_shares_to_be_gathered<Bf16>();
}

TEST_P(CommunicatorTest, PiecesOfAnySizeGiveTheSameBits) {
  for (const std::int64_t piece : {4, 28, 4096}) {
    const auto ranks = GetParam().make(device_, piece);
    for (const std::int64_t count : {1, 7, 50, 333}) {
      const Tensor data = tensor(mine<float>(count));
      const Tensor half = tensor(mine<Bf16>(count));
      ranks->follow_device();
      ranks->all_reduce_sum(data);
      ranks->all_reduce_sum(half);
      ranks->lead_device();
      EXPECT_EQ(bits(values_of<float>(data)), bits(sum_of_ranks<float>(ranks->size(), count))) << piece << " " << count;
      EXPECT_EQ(bits(values_of<Bf16>(half)), bits(sum_of_ranks<Bf16>(ranks->size(), count))) << piece << " " << count;
    }
    std::vector<float> data = mine<float>(100);
    ranks->broadcast(std::as_writable_bytes(std::span(data)), ranks->size() - 1);
    EXPECT_EQ(bits(data), bits(elements<float>(ranks->size() - 1, 100)));
    ranks->wait();
  }
}

TEST_P(CommunicatorTest, APartOfATensorIsSummedAndNothingBesideIt) {
  constexpr std::int64_t kBegin = 3;
  constexpr std::int64_t kCount = 101;
  const std::vector<float> before = mine<float>(kBegin + kCount + 5);
  const std::vector<float> result =
      after<float>(before, [&](const Tensor& data) { ranks_->all_reduce_sum(data.view(kBegin, Shape{kCount})); });
  const std::vector<float> sums = sum_of_ranks<float>(ranks_->size(), std::ssize(before));
  for (std::int64_t i = 0; i < std::ssize(before); ++i) {
    const auto at = static_cast<std::size_t>(i);
    EXPECT_EQ(result[at], i >= kBegin && i < kBegin + kCount ? sums[at] : before[at]) << i;
  }
}

TEST_P(CommunicatorTest, ZeroKeepsItsSignAndWhatIsNoNumberComesThrough) {
  const bool last = ranks_->rank() == ranks_->size() - 1;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const auto expect = [](std::span<const float> sums) {
    EXPECT_TRUE(sums[0] == 0.0F && std::signbit(sums[0])) << sums[0];
    EXPECT_TRUE(std::isnan(sums[1])) << sums[1];
    EXPECT_EQ(sums[2], std::numeric_limits<float>::infinity());
  };
  const std::vector<float> values = {-0.0F, last ? nan : 1.0F, last ? infinity : 1.0F};
  expect(after<float>(values, [&](const Tensor& data) { ranks_->all_reduce_sum(data); }));
  const std::vector<Bf16> halves = {Bf16(values[0]), Bf16(values[1]), Bf16(values[2])};
  std::vector<float> sums;
  for (const Bf16 sum : after<Bf16>(halves, [&](const Tensor& data) { ranks_->all_reduce_sum(data); }))
    sums.push_back(static_cast<float>(sum));
  expect(sums);
}

TEST_P(CommunicatorTest, WhoComesLateChangesNoBit) {
  for (int round = 0; round < ranks_->size(); ++round) {
    // Another rank is the last one each time.
    if (round == ranks_->rank()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::vector<float> sums = after<float>(mine<float>(4099), [&](const Tensor& data) { ranks_->all_reduce_sum(data); });
    EXPECT_EQ(bits(sums), bits(sum_of_ranks<float>(ranks_->size(), 4099)));
  }
}

/// Calls f, and expects a LogicError that says `text`.
template <class F>
void expect_refused(const std::string& text, const F& f) {
  try {
    f();
    ADD_FAILURE() << "not refused: " << text;
  } catch (const LogicError& failure) {
    EXPECT_NE(std::string(failure.what()).find(text), std::string::npos) << failure.what();
  }
}

TEST_P(CommunicatorTest, RefusesWhatItCannotDo) {
  const Tensor good = tensor(mine<float>(8));
  expect_refused("all-reduce of i32", [&] { ranks_->all_reduce_sum(Tensor::empty(device_, DType::i32, Shape{3})); });
  expect_refused("all-gather of f64", [&] { ranks_->all_gather(Tensor::empty(device_, DType::f64, Shape{3})); });
  if (device_->kind() == DeviceKind::cuda) {
    const Tensor elsewhere = Tensor::zeros(cpu(), DType::f32, Shape{3});
    expect_refused("all-reduce of a tensor in the host's memory, by a communicator for a GPU's",
                   [&] { ranks_->all_reduce_sum(elsewhere); });
    expect_refused("another kind of device", [&] { ranks_->follow(DeviceEvent(cpu())); });
  }
  expect_refused("reduce-scatter of an empty handle", [&] { ranks_->reduce_scatter_sum(Tensor()); });
  expect_refused("reduce-scatter in blocks of 0 elements", [&] { ranks_->reduce_scatter_sum(good, 0); });
  expect_refused("all-gather in blocks of -1 elements", [&] { ranks_->all_gather(good, -1); });
  std::byte byte{};
  expect_refused("broadcast from rank -1", [&] { ranks_->broadcast({&byte, 1}, -1); });
  expect_refused(fmt::format("broadcast from rank {0} of {0}", ranks_->size()), [&] {
    ranks_->broadcast({&byte, 1}, ranks_->size());
  });
  // It is of use as before.
  ranks_->barrier();
}

/// Writes down what it is told.
class WatchList final : public CommunicatorWatch {
 public:
  void entered(std::string_view operation) override { told_.emplace_back(operation); }
  void left() override { told_.back() += ", left"; }
  void working(std::string_view on, std::optional<std::int64_t> step) override {
    told_.push_back(fmt::format("{} {}", on, step.value_or(-1)));
  }
  const std::vector<std::string>& told() const { return told_; }

 private:
  std::vector<std::string> told_;
};

TEST_P(CommunicatorTest, ItsWatchIsToldOfEachFunction) {
  WatchList watch;
  ranks_->set_watch(&watch);
  const Tensor data = tensor(mine<float>(8));
  std::byte byte{};
  ranks_->barrier();
  ranks_->broadcast({&byte, 1}, 0);
  ranks_->gather("x");
  ranks_->working("computing", 3);
  ranks_->follow_device();
  ranks_->all_reduce_sum(data);
  ranks_->reduce_scatter_sum(data);
  ranks_->all_gather(data);
  ranks_->lead_device();
  ranks_->wait();
  ranks_->at_device([] {});
  ranks_->working("saving");
  EXPECT_THROW(ranks_->all_gather(data, 0), LogicError) << "refused before it begins";
  ranks_->set_watch(nullptr);
  ranks_->barrier();
  ranks_->working("computing");
  const std::vector<std::string> expected = {"barrier, left",
                                             "broadcast of 1 bytes from rank 0, left",
                                             "gather, left",
                                             "computing 3",
                                             "all-reduce of 8 f32, left",
                                             "reduce-scatter of 8 f32, left",
                                             "all-gather of 8 f32, left",
                                             "waiting for collectives, left",
                                             "waiting for the device, left",
                                             "saving -1"};
  EXPECT_EQ(watch.told(), expected);
}

/// Of kinds that can tell, where there are several ranks.
class MismatchTest : public CommunicatorTest {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(MismatchTest);

TEST_P(MismatchTest, AllRanksAreTold) {
  const bool first = ranks_->rank() == 0;
  const Tensor shorter = tensor(mine<float>(5));
  const Tensor longer = tensor(mine<float>(6));
  const Tensor half = tensor(mine<Bf16>(5));
  expect_refused("rank 0 called all-reduce of 5 f32, rank 1 all-reduce of 6 f32",
                 [&] { ranks_->all_reduce_sum(first ? shorter : longer); });
  expect_refused("rank 0 called all-reduce of 5 f32, rank 1 all-reduce of 5 bf16",
                 [&] { ranks_->all_reduce_sum(first ? shorter : half); });
  expect_refused("rank 0 called all-gather of 5 f32 in blocks of 1, rank 1 all-gather of 5 f32 in blocks of 2",
                 [&] { ranks_->all_gather(shorter, first ? 1 : 2); });
  expect_refused("rank 0 called barrier, rank 1 reduce-scatter of 5 f32 in blocks of 1", [&] {
    if (first) {
      ranks_->barrier();
    } else {
      ranks_->reduce_scatter_sum(shorter);
    }
  });
  std::vector<std::byte> bytes(4);
  expect_refused("rank 0 called broadcast of 4 bytes from rank 0, rank 1 broadcast of 4 bytes from rank 1",
                 [&] { ranks_->broadcast(bytes, first ? 0 : 1); });
  expect_refused("rank 0 called gather, rank 1 barrier", [&] {
    if (first) {
      ranks_->gather("");
    } else {
      ranks_->barrier();
    }
  });
  EXPECT_EQ(bits(after<float>(mine<float>(9), [&](const Tensor& data) { ranks_->all_reduce_sum(data); })),
            bits(sum_of_ranks<float>(ranks_->size(), 9)));
}

std::string name_of(const ::testing::TestParamInfo<CommunicatorCase>& each) { return each.param.name; }

INSTANTIATE_TEST_SUITE_P(Host, CommunicatorTest, ::testing::ValuesIn(cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Cuda, CommunicatorTest, ::testing::ValuesIn(cuda_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Host, MismatchTest, ::testing::ValuesIn(mpi_ranks() > 1 ? cases() : std::vector<CommunicatorCase>()),
                         name_of);

TEST(Shares, AreWholeBlocksThatCoverAllElementsOnce) {
  for (const std::int64_t count : kSizes) {
    for (const std::int64_t block : {1, 2, 3, 64, 1024}) {
      for (const int size : {1, 2, 3, 4, 7}) {
        std::int64_t next = 0;
        for (int rank = 0; rank < size; ++rank) {
          const Share share = share_of(count, block, rank, size);
          EXPECT_EQ(share.begin, next);
          EXPECT_GE(share.count, 0);
          EXPECT_TRUE(share.begin % block == 0 || share.begin == count);
          next = share.begin + share.count;
        }
        EXPECT_EQ(next, count);
        // Nobody has more than one block more than another.
        const auto blocks = [&](int rank) { return (share_of(count, block, rank, size).count + block - 1) / block; };
        EXPECT_LE(blocks(0) - blocks(size - 1), 1);
      }
    }
  }
}

TEST(Shares, OfMoreElementsThanThirtyTwoBitsCount) {
  constexpr std::int64_t kCount = (std::int64_t{1} << 33) + 5;
  EXPECT_EQ(share_of(kCount, 1024, 0, 4), (Share{.begin = 0, .count = (std::int64_t{1} << 31) + 1024}));
  EXPECT_EQ(share_of(kCount, 1024, 3, 4),
            (Share{.begin = 3 * (std::int64_t{1} << 31) + 1024, .count = (std::int64_t{1} << 31) - 1019}));
}

TEST(Shares, OfNobodyAreRefused) {
  EXPECT_THROW(share_of(5, 1, 2, 2), LogicError);
  EXPECT_THROW(share_of(5, 1, -1, 2), LogicError);
  EXPECT_THROW(share_of(5, 0, 0, 2), LogicError);
  EXPECT_THROW(share_of(-1, 1, 0, 2), LogicError);
}

}  // namespace
}  // namespace lathe::test
