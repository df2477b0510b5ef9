#pragma once
// The one table of what is measured and profiled: every kernel family at BERT's shapes.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/case.h"

namespace lathe::bench {

/// The sizes that the cases of a batch in a BERT are made of.
struct Sizes {
  std::int64_t tokens = 0;
  std::int64_t channels = 0;
  std::int64_t heads() const { return channels / 64; }
  std::int64_t feed_forward() const { return 4 * channels; }
  /// Rows with labels: the masked tokens of MLM, rounded.
  std::int64_t rows() const { return tokens / 8 > 0 ? tokens / 8 : 1; }
  static constexpr std::int64_t kVocabulary = 30522;
  static constexpr std::int64_t kPaddedVocabulary = 30528;
  static constexpr std::int64_t kPositions = 512;
  static constexpr std::int64_t kSequence = 128;  ///< tokens of a sequence; the last one has the rest
  static constexpr std::int64_t kLongSequence = 512;
};

inline constexpr std::int64_t kBaseChannels = 768;
inline constexpr std::int64_t kLargeChannels = 1024;

/// Names of the families, in the table's order.
std::span<const std::string_view> families();

/// The cases of a family on a kind of device, for each element type; none where the family isn't there yet. Throws std::out_of_range for
/// an unknown name.
std::vector<Case> make_cases(std::string_view family, DeviceKind kind, const Sizes& sizes);

/// BERT-base's and BERT-large's channels, at each number of tokens that is usual for the device: 16,384 and 65,536 on a GPU, 1,024 on a CPU
/// (so that all of them end in half a minute), 257 emulated.
std::vector<Sizes> usual_sizes(DeviceKind kind);

// By family; make_cases() calls them.
std::vector<Case> layernorm_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> gelu_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> activation_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> cross_entropy_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> embedding_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> gather_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> dropout_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> optimizer_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> reduce_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> cast_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> matmul_cases(DeviceKind kind, const Sizes& sizes);
std::vector<Case> attention_cases(DeviceKind kind, const Sizes& sizes);

}  // namespace lathe::bench
