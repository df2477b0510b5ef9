// What the CUDA kernels ask of memory, counted by the emulation at BERT's shapes. Their speed on a GPU follows from it: they are bound by bytes.
#include "benchmarks/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/cases.h"
#include "lathe/kernels/row_parts.h"

namespace lathe::bench {
namespace {

using emulation::GlobalTraffic;
using emulation::KernelProfile;

/// Every family whose kernels are written here.
const std::vector<std::string_view>& memory_bound() {
  static const std::vector<std::string_view> list = {"layernorm", "gelu",    "activation", "cross_entropy", "embedding",
                                                     "gather",    "dropout", "optimizer",  "reduce",        "cast"};
  return list;
}

double share(std::int64_t part, std::int64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

/// How often a matrix may be read, beside what stands to reason: the words' gradients are sums over d_z in the order of the ids, the positions'
/// and types' in the order of the positions. docs/kernels/embedding.md says why not both at once.
double passes(const Case& profiled, const Operand& operand) {
  return profiled.kernel == "embedding_backward" && operand.name == "d_z" ? 2.0 : 1.0;
}

/// Asked for at most 1.05 times, and at least once: a kernel that didn't touch what it is given would hide behind a zero.
void expect_asked_once(const std::string& what, std::int64_t bytes, std::int64_t expected, double times) {
  if (expected == 0) {
    EXPECT_EQ(bytes, 0) << what;
    return;
  }
  EXPECT_LE(share(bytes, expected), 1.05 * times) << what;
  EXPECT_GE(share(bytes, expected), times) << what;
}

void expect_frugal(const Case& profiled, const std::vector<KernelProfile>& kernels) {
  ASSERT_FALSE(kernels.empty());
  for (const Operand& operand : profiled.operands) {
    if (operand.extent != Extent::matrix) continue;
    SCOPED_TRACE(operand.name);
    const GlobalTraffic traffic = traffic_of(kernels, operand.name);
    expect_asked_once("read", traffic.read_bytes, operand.read_bytes(), passes(profiled, operand));
    expect_asked_once("written", traffic.written_bytes, operand.written_bytes(), 1.0);
    EXPECT_GE(sector_use(traffic), 0.95);
    EXPECT_EQ(traffic.atomics, 0) << "sums have a fixed order";
  }
  for (const Operand& operand : profiled.operands) {
    if (operand.extent != Extent::table || operand.read_bytes() == 0) continue;
    // A row of the table a row of the result.
    expect_asked_once(operand.name + " read", traffic_of(kernels, operand.name).read_bytes, profiled.operands.front().bytes, 1.0);
  }
  for (const KernelProfile& kernel : kernels) {
    SCOPED_TRACE(kernel.kernel);
    EXPECT_FALSE(kernel.tensors.contains("(unnamed)"));
    for (const auto& [line, counted] : kernel.lines)
      EXPECT_EQ(counted.shared.wavefronts, counted.shared.ideal_wavefronts) << "bank conflicts at " << line;
  }
}

class Profile : public testing::TestWithParam<std::string_view> {
 protected:
  static void expect_all_frugal(const Sizes& sizes) {
    const std::vector<Case> cases = make_cases(GetParam(), DeviceKind::cuda, sizes);
    ASSERT_FALSE(cases.empty());
    for (const Case& profiled : cases) {
      SCOPED_TRACE(profiled.kernel + " " + profiled.dtype + " " + profiled.shape_text());
      expect_frugal(profiled, profile(profiled));
    }
  }
};

TEST_P(Profile, EachTensorIsAskedForOnceInWholeSectorsAtBertBasesSizes) {
  expect_all_frugal({.tokens = 257, .channels = kBaseChannels});
}

TEST_P(Profile, EachTensorIsAskedForOnceInWholeSectorsAtBertLargesSizes) {
  expect_all_frugal({.tokens = 257, .channels = kLargeChannels});
}

INSTANTIATE_TEST_SUITE_P(Families, Profile, testing::ValuesIn(memory_bound()),
                         [](const auto& instance) { return std::string(instance.param); });

/// What kernels ask for beside the matrices and the numbers that each row has one of.
std::int64_t bytes_apart(const Case& profiled, const std::vector<KernelProfile>& kernels) {
  std::int64_t sum = 0;
  for (const Operand& operand : profiled.operands) {
    if (operand.extent != Extent::vector) continue;
    const GlobalTraffic traffic = traffic_of(kernels, operand.name);
    sum += traffic.read_bytes + traffic.written_bytes;
  }
  return sum;
}

/// Of all matrices' bytes by the mathematics.
double share_apart(const Case& profiled) {
  std::int64_t matrices = 0;
  for (const Operand& operand : profiled.operands) {
    if (operand.extent == Extent::matrix) matrices += operand.read_bytes() + operand.written_bytes();
  }
  return share(bytes_apart(profiled, profile(profiled)), matrices);
}

Case bf16_case(std::string_view family, std::string_view kernel, const Sizes& sizes) {
  for (Case& made : make_cases(family, DeviceKind::cuda, sizes)) {
    if (made.kernel == kernel && made.dtype == "bf16") return made;
  }
  throw std::out_of_range(std::string(kernel));
}

// Each block reads vectors of size C anew and leaves partial sums, so that these grow with the launched grid: nowhere else is a large batch
// needed to see what they come to. In fp32 the rows are twice as large, and partial sums are not.
TEST(ProfileOfALargeBatch, VectorsAndPartialSumsAreWithin6PercentOfTheRows) {
  constexpr Sizes kLarge{.tokens = 16384, .channels = kLargeChannels};
  for (const char* kernel :
       {"layernorm_forward", "layernorm_backward", "layernorm_forward (plain)", "layernorm_backward (plain)"})
    EXPECT_LE(share_apart(bf16_case("layernorm", kernel, kLarge)), 0.06) << kernel;
  for (const char* kernel : {"embedding_forward", "embedding_norm_backward", "embedding_backward"})
    EXPECT_LE(share_apart(bf16_case("embedding", kernel, kLarge)), 0.06) << kernel;
  // F = 1,024: the share doesn't depend on it, but the time does.
  constexpr Sizes kQuarter{.tokens = 16384, .channels = kLargeChannels / 4};
  for (const char* kernel : {"gelu_erf_forward", "gelu_erf_backward", "gelu_tanh_forward", "gelu_tanh_backward"})
    EXPECT_LE(share_apart(bf16_case("gelu", kernel, kQuarter)), 0.06) << kernel;
}

// column_sum has one matrix to read and none to write, so that the same partial sums are more of it: 240 parts of fp32, written and read, are
// 5.9 % of 16,384 rows of bf16. What it asks for is what the contract's parts make necessary, and no byte more.
TEST(ProfileOfALargeBatch, ColumnSumAsksForItsPartsTwiceAndForNothingElse) {
  constexpr Sizes kLarge{.tokens = 16384, .channels = kLargeChannels};
  const Case profiled = bf16_case("reduce", "column_sum", kLarge);
  constexpr std::int64_t kRow = 4 * kLargeChannels;
  const std::int64_t bytes = bytes_apart(profiled, profile(profiled));
  EXPECT_EQ(bytes, 2 * row_parts(kLarge.tokens) * kRow + kRow);
  EXPECT_LE(share(bytes, kLarge.tokens * kLargeChannels * 2), 0.06);
}

/// Such cases have no formula here: what they ask for is the sum over their sequences of what the others show.
bool has_unequal_lengths(const Case& profiled) { return profiled.kernel.find("wiki") != std::string::npos; }

/// Bytes of q, k and v that attention must ask for where keys and values are read once for `rows` queries: a tile that has fewer reads them too.
std::int64_t bytes_of_tiles(const Case& profiled, std::int64_t rows) {
  const std::int64_t tokens = profiled.shape[0].second;
  const std::int64_t length = profiled.shape[2].second;
  const std::int64_t row = profiled.operands.front().bytes / tokens;
  std::int64_t sum = tokens * row;
  for (std::int64_t first = 0; first < tokens; first += length) {
    const std::int64_t keys = std::min(length, tokens - first);
    sum += (keys + rows - 1) / rows * keys * 2 * row;
  }
  return sum;
}

/// Products of 16 x 8 x 16 that the tensor cores need where a warp has 32 queries and a tile 64 keys.
std::int64_t products_of_tiles(const Case& profiled) {
  const std::int64_t tokens = profiled.shape[0].second;
  const std::int64_t length = profiled.shape[2].second;
  std::int64_t sum = 0;
  for (std::int64_t first = 0; first < tokens; first += length) {
    const std::int64_t keys = std::min(length, tokens - first);
    sum += (keys + 31) / 32 * ((keys + 63) / 64) * 2 * (32 * 64 * 64) / (16 * 8 * 16);
  }
  return sum * (profiled.shape[1].second / 64);
}

TEST(ProfileOfAttention, KeysAndValuesAreReadOnceATileAndBanksDontConflict) {
  // Two heads are like any others.
  for (const Case& profiled : make_cases("attention", DeviceKind::cuda, {.tokens = 257, .channels = 128})) {
    SCOPED_TRACE(profiled.kernel + " " + profiled.dtype + " " + profiled.shape_text());
    if (!profiled.kernel.starts_with("attention_forward") || has_unequal_lengths(profiled)) continue;
    const std::vector<KernelProfile> kernels = profile(profiled);
    ASSERT_EQ(kernels.size(), 1U);
    // The tensor cores' tiles have 128 queries, the plain kernel's 32.
    const GlobalTraffic& qkv = kernels.front().tensors.at("qkv");
    EXPECT_EQ(qkv.read_bytes, bytes_of_tiles(profiled, profiled.dtype == "bf16" ? 128 : 32));
    EXPECT_EQ(qkv.written_bytes, 0);
    EXPECT_GE(sector_use(qkv), 0.95);
    const GlobalTraffic& out = kernels.front().tensors.at("out");
    EXPECT_EQ(out.read_bytes, 0);
    expect_asked_once("written", out.written_bytes, profiled.operands.front().bytes, 1.0);
    EXPECT_GE(sector_use(out), 0.95);
    if (profiled.dtype == "bf16") {
      EXPECT_EQ(qkv.widest, 16);
      EXPECT_EQ(out.widest, 16);
    }
    std::int64_t mma = 0;
    for (const auto& [line, counted] : kernels.front().lines) {
      mma += counted.mma;
      EXPECT_EQ(counted.shared.wavefronts, counted.shared.ideal_wavefronts) << "bank conflicts at " << line;
    }
    EXPECT_EQ(mma, profiled.dtype == "bf16" ? products_of_tiles(profiled) : 0);
  }
}

/// Bytes of q, k and v where a part of 128 keys is read once, and of the queries that pass it each row once.
std::int64_t bytes_of_parts(const Case& profiled) {
  const std::int64_t tokens = profiled.shape[0].second;
  const std::int64_t length = profiled.shape[2].second;
  const std::int64_t row = 2 * profiled.shape[1].second;
  std::int64_t sum = 2 * tokens * row;
  for (std::int64_t first = 0; first < tokens; first += length) {
    const std::int64_t keys = std::min(length, tokens - first);
    sum += (keys + 127) / 128 * keys * row;
  }
  return sum;
}

TEST(ProfileOfAttention, BackwardReadsQueriesOnceAPartAndBanksDontConflict) {
  constexpr std::int64_t kTokens = 257;
  constexpr std::int64_t kChannels = 128;
  constexpr std::int64_t kRow = 2 * kChannels;
  for (const Case& profiled : make_cases("attention", DeviceKind::cuda, {.tokens = kTokens, .channels = kChannels})) {
    if (!profiled.kernel.starts_with("attention_backward") || profiled.dtype != "bf16" || has_unequal_lengths(profiled)) continue;
    SCOPED_TRACE(profiled.kernel + " " + profiled.shape_text());
    const std::vector<KernelProfile> kernels = profile(profiled);
    // Statistics and the products; where a sequence has several tiles of keys, their sums.
    const bool cut = profiled.shape[2].second > 256;
    ASSERT_EQ(kernels.size(), cut ? 3U : 2U);
    const GlobalTraffic qkv = traffic_of(kernels, "qkv");
    EXPECT_EQ(qkv.read_bytes, bytes_of_parts(profiled));
    const GlobalTraffic d_out = traffic_of(kernels, "d_out");
    EXPECT_EQ(d_out.read_bytes, bytes_of_parts(profiled) - kTokens * kRow) << "with the queries, and for the statistics";
    EXPECT_EQ(traffic_of(kernels, "out").read_bytes, kTokens * kRow);
    const GlobalTraffic d_qkv = traffic_of(kernels, "d_qkv");
    EXPECT_EQ(d_qkv.read_bytes, 0);
    EXPECT_EQ(d_qkv.written_bytes, 3 * kTokens * kRow);
    for (const GlobalTraffic& traffic : {qkv, d_out, d_qkv, traffic_of(kernels, "out")}) {
      EXPECT_GE(sector_use(traffic), 0.95);
      EXPECT_EQ(traffic.atomics, 0);
    }
    for (const KernelProfile& kernel : kernels) {
      if (kernel.tensors.contains("qkv")) {
        EXPECT_EQ(kernel.tensors.at("qkv").widest, 16);
      }
      for (const auto& [line, counted] : kernel.lines)
        EXPECT_EQ(counted.shared.wavefronts, counted.shared.ideal_wavefronts) << "bank conflicts at " << line;
    }
  }
}

TEST(ProfiledFamilies, AreAllThatRunOnCuda) {
  for (const std::string_view family : families()) {
    const bool listed = std::ranges::find(memory_bound(), family) != memory_bound().end();
    if (family == "matmul" || family == "attention") continue;  // a library's; bound by operations, see above
    EXPECT_EQ(listed, !make_cases(family, DeviceKind::cuda, {.tokens = 33, .channels = kBaseChannels}).empty()) << family;
  }
}

}  // namespace
}  // namespace lathe::bench
