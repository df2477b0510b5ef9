#include "lathe/text/packing.h"

#include <gtest/gtest.h>

#include <numeric>

#include "lathe/kernels/embedding.h"

namespace lathe {
namespace {

TokenizedSamples samples_of(const std::vector<std::vector<std::int32_t>>& lists) {
  SampleLists samples;
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
  pack_sequences(samples, List{2, 0}, List{4, 5, 6}, 0, batch);
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
  pack_sequences(samples, List{0}, {}, 0, batch);
  EXPECT_EQ(batch.split_start, (List{0, kEmbeddingSplit, 2 * kEmbeddingSplit, length}));
  EXPECT_EQ(batch.segment_split, (List{0, 3}));
  EXPECT_EQ(batch.tile_first.size(), static_cast<std::size_t>((length + kAttentionTileRows - 1) / kAttentionTileRows));
  EXPECT_EQ(batch.label, (List{-1})) << "no labels";
}

// Keys come in larger tiles where the longest sequence has many, and all sequences are cut into those.
TEST(Packing, CutsKeysByTheLongestSequence) {
  const auto samples = samples_of({List(2500, 3), List(600, 4), List(1, 5)});
  PackedBatch batch;
  pack_sequences(samples, List{1, 2, 0}, {}, 0, batch);
  EXPECT_EQ(batch.key_tile_rows, 512);
  EXPECT_EQ(batch.key_tile_sequence, (List{0, 0, 1, 2, 2, 2, 2, 2}));
  EXPECT_EQ(batch.key_tile_first, (List{0, 512, 0, 0, 512, 1024, 1536, 2048}));
  pack_sequences(samples, List{1, 2}, {}, 0, batch);
  EXPECT_EQ(batch.key_tile_rows, 256);
  EXPECT_EQ(batch.key_tile_first, (List{0, 256, 512, 0}));
}

TEST(Packing, ForgetsTheBatchBefore) {
  const auto samples = samples_of({{1, 2}, {3}});
  PackedBatch fresh;
  PackedBatch used;
  pack_sequences(samples, List{0, 1}, {}, 0, used);
  pack_sequences(samples, List{1}, {}, 0, used);
  pack_sequences(samples, List{1}, {}, 0, fresh);
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
    const std::int64_t bucket = bucket_size(tokens);
    ASSERT_GE(bucket, tokens);
    ASSERT_LT(bucket - tokens, std::max<std::int64_t>(8, tokens / 32 + 1)) << tokens;
    ASSERT_EQ(bucket_size(bucket), bucket);
    buckets += bucket != before ? 1 : 0;
    before = bucket;
  }
  EXPECT_LE(buckets, 33 + 8 * 32);
}

TEST(Packing, RoundsUpWithSequencesThatNobodyReads) {
  const auto samples = samples_of({{9, 8, 9}, {7}, {9, 5}});
  PackedBatch batch;
  pack_sequences(samples, List{2, 0}, List{4, 5, 6}, 0, batch);
  const Bucket bucket = round_up(batch);
  EXPECT_EQ(bucket, (Bucket{.tokens = 8, .sequences = 8, .rows = 8, .longest = 64}));
  EXPECT_EQ(batch.token, (List{9, 5, 9, 8, 9, 0, 0, 0}));
  EXPECT_EQ(batch.cu_seqlens, (List{0, 2, 5, 8, 8, 8, 8, 8, 8}));
  EXPECT_EQ(batch.position, (List{0, 1, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(batch.sequence_sample, (List{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(batch.row_token, (List{0, 2, 7, 7, 7, 7, 7, 7}));
  EXPECT_EQ(batch.label, (List{6, 4, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.token_row, (List{0, -1, 1, -1, -1, -1, -1, -1})) << "no labelled row is added";
  EXPECT_EQ(batch.max_length, 64);
  EXPECT_EQ(batch.order, (List{5, 6, 7, 1, 3, 0, 2, 4}));
  EXPECT_EQ(batch.segment_row, (List{0, 5, 8, 9, -1, -1, -1, -1}));
  EXPECT_EQ(batch.segment_split, (List{0, 1, 2, 3, 4, 4, 4, 4, 4}));
  EXPECT_EQ(batch.split_start, (List{0, 3, 4, 5, 8, 8, 8, 8, 8}));
  EXPECT_EQ(batch.tile_sequence, (List{0, 1, 2, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.key_tile_sequence, batch.tile_sequence);
}

TEST(Packing, BatchesOfABucketHaveListsOfEqualLengths) {
  // Other numbers of sequences, rows and words, one of them often, in as many tokens.
  const auto one = samples_of({List(70, 3), List(130, 4), List(61, 5)});
  List counting(200);
  std::iota(counting.begin(), counting.end(), 7);
  const auto other = samples_of({counting, List(62, 5)});
  PackedBatch first;
  PackedBatch second;
  pack_sequences(one, List{0, 1, 2}, {}, 0, first);
  pack_sequences(other, List{0, 1}, {}, 0, second);
  first.max_length = second.max_length;
  EXPECT_EQ(round_up(first), round_up(second));
  for (const auto list :
       {&PackedBatch::token, &PackedBatch::position, &PackedBatch::type, &PackedBatch::sample, &PackedBatch::sequence_sample,
        &PackedBatch::cu_seqlens, &PackedBatch::row_token, &PackedBatch::row_sample, &PackedBatch::row_position,
        &PackedBatch::token_row, &PackedBatch::label, &PackedBatch::order, &PackedBatch::split_start, &PackedBatch::segment_split,
        &PackedBatch::segment_row, &PackedBatch::tile_sequence, &PackedBatch::tile_first, &PackedBatch::key_tile_sequence,
        &PackedBatch::key_tile_first}) {
    EXPECT_EQ((first.*list).size(), (second.*list).size());
  }
}

TEST(Packing, SamplesAreNumberedFromTheirPlaceInTheGlobalBatch) {
  const auto samples = samples_of({{9, 8, 9}, {7}, {9, 5}});
  PackedBatch batch;
  pack_sequences(samples, List{1, 2}, {}, 5, batch);
  EXPECT_EQ(batch.sample, (List{5, 6, 6}));
  EXPECT_EQ(batch.sequence_sample, (List{5, 6}));
  EXPECT_EQ(batch.row_sample, (List{5, 6}));
}

TEST(Packing, ReservedBatchesDoNotGrow) {
  const auto samples = samples_of({List(200, 3), {4, 5}, {6}});
  PackedBatch batch;
  reserve(batch, 203, 3, 3);
  const auto* token = batch.token.data();
  const auto* splits = batch.split_start.data();
  const auto* tiles = batch.tile_sequence.data();
  const auto* key_tiles = batch.key_tile_sequence.data();
  pack_sequences(samples, List{0, 1, 2}, {}, 0, batch);
  round_up(batch);
  EXPECT_EQ(batch.token.data(), token);
  EXPECT_EQ(batch.split_start.data(), splits);
  EXPECT_EQ(batch.tile_sequence.data(), tiles);
  EXPECT_EQ(batch.key_tile_sequence.data(), key_tiles);
}

}  // namespace
}  // namespace lathe
