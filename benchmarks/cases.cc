#include "benchmarks/cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "benchmarks/operands.h"

namespace lathe::bench {
namespace {

struct Family {
  std::string_view name;
  std::vector<Case> (*cases)(DeviceKind, const Sizes&);
};
constexpr std::array kFamilies = {
    Family{"layernorm", layernorm_cases},   Family{"gelu", gelu_cases},
    Family{"activation", activation_cases}, Family{"cross_entropy", cross_entropy_cases},
    Family{"embedding", embedding_cases},   Family{"gather", gather_cases},
    Family{"dropout", dropout_cases},       Family{"optimizer", optimizer_cases},
    Family{"reduce", reduce_cases},         Family{"cast", cast_cases},
    Family{"matmul", matmul_cases},         Family{"attention", attention_cases},
};
constexpr auto kNames = [] {
  std::array<std::string_view, kFamilies.size()> names;
  std::ranges::transform(kFamilies, names.begin(), &Family::name);
  return names;
}();

}  // namespace

std::span<const std::string_view> families() { return kNames; }

std::vector<Case> make_cases(std::string_view family, DeviceKind kind, const Sizes& sizes) {
  const auto* const found = std::ranges::find(kFamilies, family, &Family::name);
  if (found == kFamilies.end()) throw std::out_of_range("no family '" + std::string(family) + "'");
  return found->cases(kind, sizes);
}

std::vector<Sizes> usual_sizes(DeviceKind kind) {
#ifdef LATHE_EMULATED
  constexpr std::array<std::int64_t, 1> kDeviceTokens = {257};
#else
  constexpr std::array<std::int64_t, 2> kDeviceTokens = {16384, 65536};
#endif
  constexpr std::array<std::int64_t, 1> kHostTokens = {1024};
  std::vector<Sizes> list;
  for (const std::int64_t channels : {kBaseChannels, kLargeChannels}) {
    const auto tokens =
        kind == DeviceKind::cpu ? std::span<const std::int64_t>(kHostTokens) : std::span<const std::int64_t>(kDeviceTokens);
    for (const std::int64_t count : tokens) list.push_back({.tokens = count, .channels = channels});
  }
  return list;
}

PackedBatch make_batch(const Sizes& sizes, std::int64_t sequence) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t left = sizes.tokens; left > 0; left -= sequence) lengths.push_back(std::min(left, sequence));
  return make_batch(lengths);
}

PackedBatch make_batch(std::span<const std::int64_t> lengths) {
  SampleLists samples;
  std::uint32_t state = 1;
  for (const std::int64_t length : lengths) {
    for (std::int64_t position = 0; position < length; ++position) {
      state = state * 1664525U + 1013904223U;
      // The logarithm of a Zipfian rank is about uniform.
      const double share = static_cast<double>(state >> 8U) / static_cast<double>(1U << 24U);
      samples.ids.push_back(static_cast<std::int32_t>(std::pow(static_cast<double>(Sizes::kVocabulary), share)) - 1);
      samples.types.push_back(position < length / 2 ? 0 : 1);
    }
    samples.offsets.push_back(std::ssize(samples.ids));
  }
  std::vector<std::int32_t> members(lengths.size());
  std::iota(members.begin(), members.end(), 0);
  PackedBatch batch;
  pack_sequences(samples, members, {}, 0, batch);
  return batch;
}

}  // namespace lathe::bench
