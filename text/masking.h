#pragma once
// Which tokens a masked language model is asked for, and what it sees in their place (Devlin et al., 2019), drawn anew at each step as RoBERTa
// does it.
#include <cstdint>
#include <optional>

#include "lathe/kernels/philox.h"
#include "lathe/text/wordpiece.h"

namespace [[gnu::visibility("default")]] lathe {

/// Of the tokens that aren't special `probability` are chosen. Of the chosen ones 80 % are replaced by [MASK], 10 % by a token drawn from the
/// whole vocabulary, 10 % are left as they are.
///
/// All of it is a function of (seed, step, sample, position): a token draws one Philox call with the key (seed, step) and the counter (sample,
/// position, 0, 2^32 - 1), which no dropout has. Value 0 (philox_value) below round(65,536 probability): chosen. Value 1 below round(65,536 *
/// 0.8): [MASK], below round(65,536 * 0.9): word 1 * vocabulary / 2^32 instead.
class Masking {
 public:
  /// Throws MismatchError for a tokenizer without [MASK], and UsageError for a probability that isn't above 0 and at most 1 in 16-bit steps.
  Masking(const WordPieceTokenizer& tokenizer, double probability);

  /// What becomes of a token.
  struct Draw {
    std::uint32_t value;    ///< the lower, the sooner chosen
    bool chosen;            ///< it is to be predicted
    std::int32_t stand_in;  ///< what the model sees if it is
  };
  /// Nothing for a special token.
  std::optional<Draw> draw(RandomKey key, std::uint32_t sample, std::uint32_t position, std::int32_t token) const;
  double probability() const noexcept { return probability_; }

 private:
  SpecialTokens special_;
  std::uint32_t vocabulary_;
  double probability_;
  std::uint32_t threshold_;
};

/// The step of a key whose masks don't belong to a training step: those of an evaluation.
inline constexpr std::uint32_t kEvaluationMasks = 0xFFFFFFFEU;

}  // namespace lathe
