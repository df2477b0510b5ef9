#include "lathe/text/masking.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <numeric>

#include "lathe/runtime/error.h"
#include "lathe/text/packing.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

using List = std::vector<std::int32_t>;
constexpr std::int32_t kMask = 4;
constexpr std::int32_t kFirstWord = 5;

class MaskingTest : public testing::Test {
 protected:
  WordPieceTokenizer tokenizer(const std::string& left_out = "") const {
    std::ofstream file(folder_ / "vocab.txt");
    for (const std::string& token : tiny_vocabulary()) {
      if (token != left_out) file << token << '\n';
    }
    file.close();
    return WordPieceTokenizer::load(folder_.path());
  }
  /// `count` sequences [CLS] words [SEP] of so many words.
  static TokenizedSamples words(std::int32_t count, std::int32_t length) {
    SampleLists samples;
    for (std::int32_t i = 0; i < count; ++i) {
      samples.ids.push_back(2);
      for (std::int32_t word = 0; word < length; ++word) samples.ids.push_back(kFirstWord + (i + word) % 15);
      samples.ids.push_back(3);
      samples.offsets.push_back(static_cast<std::int64_t>(samples.ids.size()));
    }
    samples.types.resize(samples.ids.size(), 0);
    return samples;
  }
  static List all_of(const TokenizedSamples& samples) {
    List members(static_cast<std::size_t>(samples.count()));
    std::iota(members.begin(), members.end(), 0);
    return members;
  }
  TemporaryFolder folder_;
};

/// A count of what happens with probability p in n trials, within five deviations.
void expect_share(std::int64_t count, double p, std::int64_t n) {
  const double mean = p * static_cast<double>(n);
  EXPECT_NEAR(static_cast<double>(count), mean, 5.0 * std::sqrt(mean * (1.0 - p)));
}

TEST_F(MaskingTest, SharesAreAsAskedAndSpecialTokensAreNeverChosen) {
  const TokenizedSamples samples = words(400, 254);
  const Masking masking(tokenizer(), 0.15);
  PackedBatch batch;
  pack_masked(samples, all_of(samples), masking, {.seed = 1, .step = 9}, 0, WithoutChoice::least_draw, batch);
  std::int64_t masked = 0;
  std::int64_t kept = 0;
  std::array<std::int64_t, 20> drawn{};
  for (std::size_t row = 0; row < batch.row_token.size(); ++row) {
    const auto token = static_cast<std::size_t>(batch.row_token[row]);
    ASSERT_EQ(batch.label[row], samples.ids[token]) << "the label is what stood there";
    ASSERT_GE(batch.label[row], kFirstWord);
    ASSERT_EQ(batch.row_sample[row], batch.sample[token]);
    ASSERT_EQ(batch.row_position[row], batch.position[token]);
    if (batch.token[token] == kMask) ++masked;
    if (batch.token[token] == batch.label[row]) ++kept;
    ++drawn.at(static_cast<std::size_t>(batch.token[token]));
  }
  const auto rows = static_cast<std::int64_t>(batch.row_token.size());
  constexpr std::int64_t kWords = std::int64_t{400} * 254;
  expect_share(rows, 0.15, kWords);
  expect_share(masked, 0.8 + 0.1 / 20, rows);
  expect_share(kept, 0.1 + 0.1 / 20, rows);
  for (std::size_t id = 0; id < drawn.size(); ++id) {
    // Each word of the 15 is the kept one as often as another; ids below 5 stand in at random alone.
    if (id != kMask) expect_share(drawn[id], 0.1 / 20 + (id < kFirstWord ? 0.0 : 0.1 / 15), rows);
  }
  // What isn't chosen is as it was, and token_row is the inverse of row_token.
  for (std::size_t t = 0; t < batch.token.size(); ++t) {
    const std::int32_t row = batch.token_row[t];
    if (row < 0) {
      ASSERT_EQ(batch.token[t], samples.ids[t]);
    } else {
      ASSERT_EQ(batch.row_token[static_cast<std::size_t>(row)], static_cast<std::int32_t>(t));
    }
  }
}

TEST_F(MaskingTest, MasksAreAFunctionOfSeedStepSampleAndPosition) {
  const TokenizedSamples samples = words(8, 60);
  const Masking masking(tokenizer(), 0.15);
  const auto tokens = [&](const List& members, RandomKey key, std::int32_t first) {
    PackedBatch batch;
    pack_masked(samples, members, masking, key, first, WithoutChoice::least_draw, batch);
    return batch.token;
  };
  const List whole = tokens(all_of(samples), {.seed = 1, .step = 2}, 0);
  EXPECT_EQ(whole, tokens(all_of(samples), {.seed = 1, .step = 2}, 0));
  EXPECT_NE(whole, tokens(all_of(samples), {.seed = 2, .step = 2}, 0));
  EXPECT_NE(whole, tokens(all_of(samples), {.seed = 1, .step = 3}, 0));
  // The same samples in two batches, under the same numbers.
  List parts = tokens({0, 1, 2}, {.seed = 1, .step = 2}, 0);
  const List rest = tokens({3, 4, 5, 6, 7}, {.seed = 1, .step = 2}, 3);
  parts.insert(parts.end(), rest.begin(), rest.end());
  EXPECT_EQ(whole, parts);
}

TEST_F(MaskingTest, ABatchHasALabelledRow) {
  const TokenizedSamples samples = words(1, 2);
  const Masking masking(tokenizer(), 0.01);
  PackedBatch batch;
  for (std::uint32_t step = 0; step < 50; ++step) {
    pack_masked(samples, List{0}, masking, {.seed = 3, .step = step}, 0, WithoutChoice::least_draw, batch);
    ASSERT_GE(batch.row_token.size(), 1U) << step;
    ASSERT_GE(batch.label[0], kFirstWord);
  }
}

TEST_F(MaskingTest, RowsAreRoundedUpWithRowsThatNobodyReads) {
  const TokenizedSamples samples = words(2, 30);
  const Masking masking(tokenizer(), 0.3);
  PackedBatch batch;
  pack_masked(samples, all_of(samples), masking, {.seed = 1, .step = 0}, 0, WithoutChoice::least_draw, batch);
  const auto rows = batch.row_token.size();
  ASSERT_NE(static_cast<std::int64_t>(rows), bucket_size(static_cast<std::int64_t>(rows))) << "the test needs rows to add";
  const List token_row = batch.token_row;
  round_up(batch);
  EXPECT_EQ(static_cast<std::int64_t>(batch.label.size()), bucket_size(static_cast<std::int64_t>(rows)));
  for (std::size_t row = rows; row < batch.label.size(); ++row) {
    EXPECT_EQ(batch.label[row], -1);
    EXPECT_EQ(batch.row_token[row], static_cast<std::int32_t>(batch.token.size()) - 1);
    EXPECT_EQ(batch.row_sample[row], batch.sample.back());
    EXPECT_EQ(batch.row_position[row], batch.position.back());
  }
  EXPECT_TRUE(std::equal(token_row.begin(), token_row.end(), batch.token_row.begin())) << "they have no token";
  EXPECT_EQ(batch.row_sample.size(), batch.label.size());
  EXPECT_EQ(batch.row_position.size(), batch.label.size());
}

TEST_F(MaskingTest, RefusesWhatItCannotDo) {
  EXPECT_THROW(Masking(tokenizer("[MASK]"), 0.15), MismatchError);
  const WordPieceTokenizer whole = tokenizer();
  for (const double p : {0.0, -0.1, 1.1, 1e-9, std::nan("")}) EXPECT_THROW(Masking(whole, p), UsageError) << p;
  EXPECT_NO_THROW(Masking(whole, 1.0));
}

}  // namespace
}  // namespace lathe
