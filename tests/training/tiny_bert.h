#pragma once
// A BERT that is small enough for the emulation, and sequences for it to classify.
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/runtime/random.h"
#include "lathe/text/packing.h"

namespace lathe {

inline constexpr std::int64_t kVocabulary = 300;

inline BertSettings tiny() {
  return {.vocabulary = kVocabulary,
          .hidden_size = 64,
          .layers = 2,
          .heads = 2,
          .feed_forward = 128,
          .positions = 64,
          .token_types = 2,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = 1e-12,
          .hidden_dropout = 0.1,
          .attention_dropout = 0.1};
}

/// Where the class of a sequence lies: whether that token is an even number. What the second token says reaches the first, which is classified,
/// through attention alone.
enum class ClassToken : std::uint8_t { first, second };

/// Sequences of 1 to 64 tokens, the first of eight.
struct Data {
  TokenizedSamples samples;
  std::vector<std::int32_t> labels;
};
inline Data make_data(ClassToken token) {
  const RandomNumbers random(11, RandomUse::split, 0);
  std::uint64_t draw = 0;
  Data data;
  SampleLists samples;
  for (const std::int64_t length : {3, 64, 9, 17, 2, 33, 5, 12, 40, 7, 21, 4, 15, 1, 8, 27}) {
    const std::size_t begin = samples.ids.size();
    const auto first = static_cast<std::int32_t>(1 + random.bits(draw++) % 8);
    for (std::int64_t i = 0; i < length; ++i) {
      samples.ids.push_back(i == 0 ? first : static_cast<std::int32_t>(random.bits(draw++) % kVocabulary));
      samples.types.push_back(i > length / 2 ? 1 : 0);
    }
    data.labels.push_back(samples.ids[begin + (token == ClassToken::second && length > 1 ? 1 : 0)] % 2);
    samples.offsets.push_back(static_cast<std::int64_t>(samples.ids.size()));
  }
  data.samples = std::move(samples);
  return data;
}

/// Which samples a step sees.
using Members = std::function<std::array<std::int32_t, 6>(std::int64_t)>;
/// Some 120 tokens a step, other ones each time.
inline std::array<std::int32_t, 6> varying(std::int64_t step) {
  std::array<std::int32_t, 6> members{};
  for (std::size_t i = 0; i < members.size(); ++i)
    members[i] = static_cast<std::int32_t>((6 * step + 5 * static_cast<std::int64_t>(i)) % 16);
  return members;
}

}  // namespace lathe
