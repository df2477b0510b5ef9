// Philox4x32-10 against the known answers that its authors publish with it (Random123, kat_vectors).
#include "lathe/kernels/philox.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>

namespace lathe {
namespace {

using Words = std::array<std::uint32_t, 4>;

TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {.seed = 0, .step = 0}), (Words{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  EXPECT_EQ(philox4x32({~0U, ~0U, ~0U, ~0U}, {.seed = ~0U, .step = ~0U}),
            (Words{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
  EXPECT_EQ(philox4x32({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {.seed = 0xa4093822U, .step = 0x299f31d0U}),
            (Words{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}));
}

TEST(Philox, IsKnownToTheCompiler) { static_assert(philox4x32({0, 0, 0, 0}, {})[0] == 0x6627e8d5U); }

TEST(Philox, ValuesAreTheHalvesOfTheWordsLowBeforeHigh) {
  const Words words{0x00010000U, 0x00030002U, 0x00050004U, 0x00070006U};
  for (unsigned n = 0; n < 8; ++n) EXPECT_EQ(philox_value(words, n), n);
}

}  // namespace
}  // namespace lathe
