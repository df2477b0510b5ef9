// What attention's kernels ask of memory at every head size that tensor cores take, masked and not, counted by the emulation: what the tiling
// implies, in whole sectors, without bank conflicts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/emulation/profile.h"
#include "lathe/kernels/emulation/settings.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_runs.h"

namespace lathe::test {
namespace {

using emulation::GlobalTraffic;
using emulation::KernelProfile;

/// The kernels that `run` launches, once.
template <class Run>
std::vector<KernelProfile> profile(const Run& run) {
  place_buffers(Placement::aligned);
  const DeviceRuns runs;
  const emulation::Settings before = emulation::settings();
  emulation::Settings counting = before;
  counting.profile = true;
  emulation::take_profile();
  emulation::configure(counting);
  run(runs.stream());
  emulation::configure(before);
  return emulation::take_profile();
}

GlobalTraffic traffic_of(const std::vector<KernelProfile>& kernels, const std::string& tensor) {
  GlobalTraffic sum;
  for (const KernelProfile& kernel : kernels) {
    const auto found = kernel.tensors.find(tensor);
    if (found == kernel.tensors.end()) continue;
    sum.read_bytes += found->second.read_bytes;
    sum.written_bytes += found->second.written_bytes;
    sum.used_bytes += found->second.used_bytes;
    sum.sectors += found->second.sectors;
    sum.widest = std::max(sum.widest, found->second.widest);
  }
  return sum;
}

void expect_whole_sectors(const std::vector<KernelProfile>& kernels, const std::vector<std::string>& tensors) {
  for (const std::string& tensor : tensors) {
    const GlobalTraffic traffic = traffic_of(kernels, tensor);
    ASSERT_GT(traffic.sectors, 0) << tensor;
    EXPECT_GE(traffic.used_bytes, 32 * traffic.sectors * 95 / 100) << tensor;
  }
}

void expect_no_bank_conflicts(const std::vector<KernelProfile>& kernels) {
  for (const KernelProfile& kernel : kernels) {
    std::int64_t wavefronts = 0;
    for (const auto& [line, counted] : kernel.lines) {
      EXPECT_EQ(counted.shared.wavefronts, counted.shared.ideal_wavefronts) << kernel.kernel << ": bank conflicts at " << line;
      wavefronts += counted.shared.wavefronts;
    }
    EXPECT_TRUE(wavefronts > 0 || kernel.kernel.find("sum_tiles") != std::string::npos) << kernel.kernel;
  }
}

/// Every head size, mask, and dropout or not, of sequences with a tile or several, the last ones not full. Rows begin at whole sectors.
template <class Check>
void for_each_shape(const Check& check) {
  for (const std::int64_t head_size : {32, 64, 96, 128}) {
    for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
      for (const double dropout : {0.0, 0.1}) {
        const Shape shape{.sequences = {{128, 128}, {257, 257}, {70, 150}},
                          .heads = 2,
                          .head_size = head_size,
                          .mask = mask,
                          .dropout = dropout,
                          .key_tile_rows = attention_key_tile_rows(257),
                          .gap = 16};
        SCOPED_TRACE(shape.text());
        check(shape);
      }
    }
  }
}

/// Keys that a query sees.
std::int64_t visible(const Shape& shape, const Lengths& s, std::int64_t query) {
  return shape.mask == AttentionMask::full ? s.keys : std::clamp<std::int64_t>(query + 1 + s.keys - s.queries, 0, s.keys);
}

TEST(AttentionProfile, ForwardReadsKeysAndValuesOnceForATileOfQueries) {
  for_each_shape([](const Shape& shape) {
    const Inputs<Bf16> in(shape);
    const auto kernels = profile([&](CudaStream stream) { run_forward(stream, in); });
    ASSERT_EQ(kernels.size(), 1U);
    const std::int64_t row = 2 * in.width;
    std::int64_t rows_of_keys = 0;
    for (const Lengths& s : shape.sequences) {
      for (std::int64_t first = 0; first < s.queries; first += shape.query_tile_rows)
        rows_of_keys += visible(shape, s, std::min<std::int64_t>(first + shape.query_tile_rows, s.queries) - 1);
    }
    EXPECT_EQ(traffic_of(kernels, "q").read_bytes, in.cu_q.back() * row);
    EXPECT_EQ(traffic_of(kernels, "kv").read_bytes, rows_of_keys * 2 * row);
    EXPECT_EQ(traffic_of(kernels, "out").written_bytes, in.cu_q.back() * row);
    for (const char* tensor : {"q", "kv", "out"}) EXPECT_EQ(traffic_of(kernels, tensor).widest, 16) << tensor;
    expect_whole_sectors(kernels, {"q", "kv", "out"});
    expect_no_bank_conflicts(kernels);
  });
}

TEST(AttentionProfile, BackwardReadsKeysAndValuesOnceAndQueriesOnceAPart) {
  for_each_shape([](const Shape& shape) {
    Inputs<Bf16> in(shape);
    add_outputs(in);
    const auto kernels = profile([&](CudaStream stream) { run_backward(stream, in); });
    ASSERT_EQ(kernels.size(), 3U);
    const std::int64_t row = 2 * in.width;
    // Of a part of keys the tiles of queries that see its first, or all of them where d_q is the block's to write.
    const std::int64_t tile = shape.head_size <= 64 ? 128 : 64;
    std::int64_t rows_of_queries = 0;
    for (const Lengths& s : shape.sequences) {
      for (std::int64_t first = 0; first < s.keys; first += kAttentionPartKeys) {
        const bool all = shape.mask == AttentionMask::full || (first == 0 && s.keys <= shape.key_tile_rows);
        rows_of_queries += s.queries - (all ? 0 : std::max<std::int64_t>(first - (s.keys - s.queries), 0) / tile * tile);
      }
    }
    EXPECT_EQ(traffic_of(kernels, "kv").read_bytes, in.cu_k.back() * (2 * row));
    EXPECT_EQ(traffic_of(kernels, "q").read_bytes, rows_of_queries * row);
    EXPECT_EQ(traffic_of(kernels, "d_out").read_bytes, (rows_of_queries + in.cu_q.back()) * row) << "and for the statistics";
    EXPECT_EQ(traffic_of(kernels, "out").read_bytes, in.cu_q.back() * row);
    EXPECT_EQ(traffic_of(kernels, "d_q").written_bytes, in.cu_q.back() * row);
    EXPECT_EQ(traffic_of(kernels, "d_kv").written_bytes, in.cu_k.back() * (2 * row));
    expect_whole_sectors(kernels, {"q", "kv", "d_out", "out", "d_q", "d_kv"});
    expect_no_bank_conflicts(kernels);
  });
}

}  // namespace
}  // namespace lathe::test
