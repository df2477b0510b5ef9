#include "lathe/text/masking.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lathe/runtime/error.h"
#include "lathe/text/documents.h"

namespace lathe {
namespace {

constexpr double kValues = 65536.0;
constexpr std::uint32_t kMasked = 52429;            // round(65,536 * 0.8)
constexpr std::uint32_t kMaskedOrRandom = 58982;    // round(65,536 * 0.9)
constexpr std::uint32_t kCounterEnd = 0xFFFFFFFFU;  // dropout counts columns and keys there, of which there are fewer

}  // namespace

Masking::Masking(const WordPieceTokenizer& tokenizer, double probability)
    : special_(tokenizer.special_tokens()),
      vocabulary_(static_cast<std::uint32_t>(tokenizer.vocabulary_size())),
      probability_(probability),
      threshold_(static_cast<std::uint32_t>(std::llround(kValues * std::clamp(probability, 0.0, 1.0)))) {
  if (!special_.mask)
    throw MismatchError(fmt::format("{}: the vocabulary has no [MASK] token, which stands for the words to be guessed",
                                    tokenizer.files().front().string()));
  if (!(probability > 0.0 && probability <= 1.0) || threshold_ == 0)
    throw UsageError(fmt::format("a masking probability of {} is not above 0 and at most 1", probability));
}

std::optional<Masking::Draw> Masking::draw(RandomKey key, std::uint32_t sample, std::uint32_t position,
                                           std::int32_t token) const {
  if (is_special(special_, token)) return std::nullopt;
  const auto words = philox4x32({sample, position, 0, kCounterEnd}, key);
  Draw draw{.value = philox_value(words, 0), .chosen = philox_value(words, 0) < threshold_, .stand_in = token};
  const std::uint32_t kind = philox_value(words, 1);
  if (kind < kMasked) {
    draw.stand_in = *special_.mask;
  } else if (kind < kMaskedOrRandom) {
    draw.stand_in = static_cast<std::int32_t>((std::uint64_t{words[1]} * vocabulary_) >> 32U);
  }
  return draw;
}

}  // namespace lathe
