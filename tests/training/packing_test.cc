#include "lathe/text/packing.h"

#include <gtest/gtest.h>

#include "lathe/kernels/embedding.h"

namespace lathe {
namespace {

TokenizedSamples samples_of(const std::vector<std::vector<std::int32_t>>& lists) {
  TokenizedSamples samples;
  for (const auto& list : lists) {
    samples.ids.insert(samples.ids.end(), list.begin(), list.end());
    samples.types.insert(samples.types.end(), list.size(), 0);
    samples.offsets.push_back(static_cast<std::int64_t>(samples.ids.size()));
  }
  return samples;
}

using List = std::vector<std::int32_t>;

TEST(Packing, LaysSequencesEndToEnd) {
  const auto samples = samples_of({{9, 8, 9}, {7}, {9, 5}});
  PackedBatch batch;
  pack_sequences(samples, List{2, 0}, List{4, 5, 6}, batch);
  EXPECT_EQ(batch.token, (List{9, 5, 9, 8, 9}));
  EXPECT_EQ(batch.position, (List{0, 1, 0, 1, 2}));
  EXPECT_EQ(batch.sample, (List{0, 0, 1, 1, 1}));
  EXPECT_EQ(batch.sequence_sample, (List{0, 1}));
  EXPECT_EQ(batch.cu_seqlens, (List{0, 2, 5}));
  EXPECT_EQ(batch.row_token, (List{0, 2}));
  EXPECT_EQ(batch.token_row, (List{0, -1, 1, -1, -1}));
  EXPECT_EQ(batch.label, (List{6, 4}));
  EXPECT_EQ(batch.max_length, 3);
  EXPECT_EQ(batch.order, (List{1, 3, 0, 2, 4})) << "by id, then by number";
  EXPECT_EQ(batch.segment_row, (List{5, 8, 9}));
  EXPECT_EQ(batch.segment_split, (List{0, 1, 2, 3}));
  EXPECT_EQ(batch.split_start, (List{0, 1, 2, 5}));
  EXPECT_EQ(batch.tile_sequence, (List{0, 1}));
  EXPECT_EQ(batch.tile_first, (List{0, 0}));
  EXPECT_EQ(batch.key_tile_sequence, (List{0, 1}));
  EXPECT_EQ(batch.key_tile_first, (List{0, 0}));
  EXPECT_EQ(batch.key_tile_rows, 128);
}

TEST(Packing, CutsLongSegmentsAndSequences) {
  const std::int32_t length = 2 * kEmbeddingSplit + 1;
  const auto samples = samples_of({List(static_cast<std::size_t>(length), 3)});
  PackedBatch batch;
  pack_sequences(samples, List{0}, {}, batch);
  EXPECT_EQ(batch.split_start, (List{0, kEmbeddingSplit, 2 * kEmbeddingSplit, length}));
  EXPECT_EQ(batch.segment_split, (List{0, 3}));
  EXPECT_EQ(batch.tile_first.size(), static_cast<std::size_t>((length + kAttentionTileRows - 1) / kAttentionTileRows));
  EXPECT_EQ(batch.label, (List{-1})) << "no labels";
}

// Keys come in larger tiles where the longest sequence has many, and all sequences are cut into those.
TEST(Packing, CutsKeysByTheLongestSequence) {
  const auto samples = samples_of({List(2500, 3), List(600, 4), List(1, 5)});
  PackedBatch batch;
  pack_sequences(samples, List{1, 2, 0}, {}, batch);
  EXPECT_EQ(batch.key_tile_rows, 512);
  EXPECT_EQ(batch.key_tile_sequence, (List{0, 0, 1, 2, 2, 2, 2, 2}));
  EXPECT_EQ(batch.key_tile_first, (List{0, 512, 0, 0, 512, 1024, 1536, 2048}));
  pack_sequences(samples, List{1, 2}, {}, batch);
  EXPECT_EQ(batch.key_tile_rows, 256);
  EXPECT_EQ(batch.key_tile_first, (List{0, 256, 512, 0}));
}

TEST(Packing, ForgetsTheBatchBefore) {
  const auto samples = samples_of({{1, 2}, {3}});
  PackedBatch fresh;
  PackedBatch used;
  pack_sequences(samples, List{0, 1}, {}, used);
  pack_sequences(samples, List{1}, {}, used);
  pack_sequences(samples, List{1}, {}, fresh);
  EXPECT_EQ(used.token, fresh.token);
  EXPECT_EQ(used.order, fresh.order);
  EXPECT_EQ(used.split_start, fresh.split_start);
  EXPECT_EQ(used.tile_sequence, fresh.tile_sequence);
  EXPECT_EQ(used.max_length, fresh.max_length);
}

TEST(Packing, BucketsAreFewAndClose) {
  std::int64_t before = 0;
  int buckets = 0;
  for (std::int64_t tokens = 1; tokens <= 65536; ++tokens) {
    const std::int64_t bucket = token_bucket(tokens);
    ASSERT_GE(bucket, tokens);
    ASSERT_LT(bucket - tokens, std::max<std::int64_t>(8, tokens / 32 + 1)) << tokens;
    ASSERT_EQ(token_bucket(bucket), bucket);
    buckets += bucket != before ? 1 : 0;
    before = bucket;
  }
  EXPECT_LE(buckets, 33 + 8 * 32);
}

TEST(Packing, RoundsUpWithSequencesThatNobodyReads) {
  const auto samples = samples_of({{9, 8, 9}, {7}, {9, 5}});
  PackedBatch batch;
  pack_sequences(samples, List{2, 0}, List{4, 5, 6}, batch);
  round_up_tokens(batch);
  EXPECT_EQ(batch.token, (List{9, 5, 9, 8, 9, 0, 0, 0}));
  EXPECT_EQ(batch.cu_seqlens, (List{0, 2, 5, 8}));
  EXPECT_EQ(batch.position, (List{0, 1, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(batch.row_token, (List{0, 2})) << "no labelled row is added";
  EXPECT_EQ(batch.token_row, (List{0, -1, 1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.max_length, 3);
  EXPECT_EQ(batch.order, (List{5, 6, 7, 1, 3, 0, 2, 4}));
  EXPECT_EQ(batch.segment_row, (List{0, 5, 8, 9}));
  EXPECT_EQ(batch.split_start.back(), 8);
}

TEST(Packing, ReservedBatchesDoNotGrow) {
  const auto samples = samples_of({List(200, 3), {4, 5}, {6}});
  PackedBatch batch;
  reserve(batch, 203, 3, 3);
  const auto* token = batch.token.data();
  const auto* splits = batch.split_start.data();
  const auto* tiles = batch.tile_sequence.data();
  const auto* key_tiles = batch.key_tile_sequence.data();
  pack_sequences(samples, List{0, 1, 2}, {}, batch);
  round_up_tokens(batch);
  EXPECT_EQ(batch.token.data(), token);
  EXPECT_EQ(batch.split_start.data(), splits);
  EXPECT_EQ(batch.tile_sequence.data(), tiles);
  EXPECT_EQ(batch.key_tile_sequence.data(), key_tiles);
}

}  // namespace
}  // namespace lathe
