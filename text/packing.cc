#include "lathe/text/packing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <optional>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/embedding.h"
#include "lathe/runtime/error.h"
#include "lathe/text/masking.h"

namespace lathe {
namespace {

/// `types` are those of the ids, or none where all are 0.
void add_sequence(std::span<const std::int32_t> ids, std::span<const std::int32_t> types, PackedBatch& batch) {
  const auto sequence = batch.first_sample + static_cast<std::int32_t>(batch.sequence_sample.size());
  const auto length = static_cast<std::int32_t>(ids.size());
  batch.token.insert(batch.token.end(), ids.begin(), ids.end());
  batch.type.insert(batch.type.end(), types.begin(), types.end());
  batch.type.resize(batch.token.size(), 0);
  batch.sample.insert(batch.sample.end(), ids.size(), sequence);
  for (std::int32_t i = 0; i < length; ++i) batch.position.push_back(i);
  batch.sequence_sample.push_back(sequence);
  batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.token.size()));
  batch.max_length = std::max<std::int64_t>(batch.max_length, length);
}

/// Tokens sorted by id, cut into segments of one id and those into splits of a bounded length (kernels/embedding.h).
void sort_tokens(PackedBatch& batch) {
  for (std::vector<std::int32_t>* list : {&batch.split_start, &batch.segment_split, &batch.segment_row}) list->clear();
  const auto tokens = static_cast<std::int32_t>(batch.token.size());
  batch.order.resize(batch.token.size());
  std::iota(batch.order.begin(), batch.order.end(), 0);
  const auto id = [&](std::int32_t t) { return batch.token[static_cast<std::size_t>(t)]; };
  // The number breaks ties: a stable order without the buffer that std::stable_sort allocates.
  std::sort(batch.order.begin(), batch.order.end(),
            [&](std::int32_t a, std::int32_t b) { return id(a) != id(b) ? id(a) < id(b) : a < b; });
  batch.segment_split.push_back(0);
  for (std::int32_t i = 0; i < tokens;) {
    const std::int32_t row = id(batch.order[static_cast<std::size_t>(i)]);
    std::int32_t end = i;
    while (end < tokens && id(batch.order[static_cast<std::size_t>(end)]) == row) ++end;
    for (; i < end; i = std::min(end, i + static_cast<std::int32_t>(kEmbeddingSplit))) batch.split_start.push_back(i);
    batch.segment_split.push_back(static_cast<std::int32_t>(batch.split_start.size()));
    batch.segment_row.push_back(row);
  }
  batch.split_start.push_back(tokens);
}

/// Sequences cut into tiles of so many rows (kernels/attention.h).
void cut_sequences(const PackedBatch& batch, std::int64_t rows, std::vector<std::int32_t>& sequence,
                   std::vector<std::int32_t>& first) {
  sequence.clear();
  first.clear();
  for (std::size_t b = 0; b + 1 < batch.cu_seqlens.size(); ++b) {
    const std::int32_t length = batch.cu_seqlens[b + 1] - batch.cu_seqlens[b];
    for (std::int32_t row = 0; row < length; row += static_cast<std::int32_t>(rows)) {
      sequence.push_back(static_cast<std::int32_t>(b));
      first.push_back(row);
    }
  }
}

void cut_tiles(PackedBatch& batch) {
  batch.key_tile_rows = attention_key_tile_rows(batch.max_length);
  cut_sequences(batch, kAttentionTileRows, batch.tile_sequence, batch.tile_first);
  cut_sequences(batch, batch.key_tile_rows, batch.key_tile_sequence, batch.key_tile_first);
}

/// What sizes of one octave are multiples of.
std::int64_t unit_of(std::int64_t size) {
  const auto octave = std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1)));
  return std::max<std::int64_t>(8, static_cast<std::int64_t>(octave) / 32);
}

inline constexpr std::int64_t kLongestTail = 64;
/// Tokens of a sequence that is added to reach a size: no position that the batch's own sequences don't have.
std::int64_t tail_length(std::int64_t longest) { return std::clamp<std::int64_t>(longest, 1, kLongestTail); }

Bucket bucket_of(const PackedBatch& batch) {
  constexpr std::int64_t kLengths = 64;
  const auto tokens = std::ssize(batch.token);
  // Tails are counted as though they were as many as ever in this octave, so that B depends on little.
  const std::int64_t tail = tail_length(batch.max_length);
  const std::int64_t tails = (unit_of(tokens) - 1 + tail - 1) / tail;
  return {.tokens = bucket_size(tokens),
          .sequences = bucket_size(std::ssize(batch.sequence_sample) + tails),
          .rows = bucket_size(std::ssize(batch.row_token)),
          .longest = (std::max<std::int64_t>(batch.max_length, 1) + kLengths - 1) / kLengths * kLengths};
}

/// Lists whose lengths depend on the content, padded to what they can have in a bucket with empty tiles, segments and splits.
void pad_lists(PackedBatch& batch, const Bucket& bucket) {
  const auto pad = [](std::vector<std::int32_t>& list, std::int64_t size, std::int32_t value) {
    list.resize(static_cast<std::size_t>(size), value);
  };
  const std::int64_t tiles = bucket.tokens / kAttentionTileRows + bucket.sequences;
  pad(batch.tile_sequence, tiles, -1);
  pad(batch.tile_first, tiles, 0);
  const std::int64_t key_tiles = bucket.tokens / batch.key_tile_rows + bucket.sequences;
  pad(batch.key_tile_sequence, key_tiles, -1);
  pad(batch.key_tile_first, key_tiles, 0);
  // Each token may be a segment of its own, and a segment has at most one split that isn't full.
  pad(batch.split_start, bucket.tokens + bucket.tokens / kEmbeddingSplit + 1, static_cast<std::int32_t>(bucket.tokens));
  pad(batch.segment_split, bucket.tokens + 1, batch.segment_split.back());
  pad(batch.segment_row, bucket.tokens, -1);
}

/// An empty batch whose first sample is `first_sample`.
void begin(PackedBatch& batch, std::int32_t first_sample) {
  for (std::vector<std::int32_t>* list :
       {&batch.token, &batch.position, &batch.type, &batch.sample, &batch.sequence_sample, &batch.cu_seqlens, &batch.row_token,
        &batch.row_sample, &batch.row_position, &batch.token_row, &batch.label, &batch.order, &batch.split_start,
        &batch.segment_split, &batch.segment_row, &batch.tile_sequence, &batch.tile_first, &batch.key_tile_sequence,
        &batch.key_tile_first}) {
    list->clear();
  }
  batch.max_length = 0;
  batch.first_sample = first_sample;
  batch.cu_seqlens.push_back(0);
}

}  // namespace

std::int64_t bucket_size(std::int64_t size) {
  const std::int64_t unit = unit_of(size);
  return (std::max<std::int64_t>(size, 1) + unit - 1) / unit * unit;
}

Bucket round_up(PackedBatch& batch) {
  const Bucket bucket = bucket_of(batch);
  const std::int64_t most = tail_length(batch.max_length);
  constexpr std::array<std::int32_t, kLongestTail> kZeros{};
  for (std::int64_t missing = bucket.tokens - std::ssize(batch.token); missing > 0;) {
    const auto tail = std::span(kZeros).first(static_cast<std::size_t>(std::min(missing, most)));
    add_sequence(tail, tail, batch);
    missing -= std::ssize(tail);
  }
  while (std::ssize(batch.sequence_sample) < bucket.sequences) add_sequence({}, {}, batch);
  const auto rows = static_cast<std::size_t>(bucket.rows);
  batch.row_token.resize(rows, static_cast<std::int32_t>(bucket.tokens) - 1);
  batch.row_sample.resize(rows, batch.sample.back());
  batch.row_position.resize(rows, batch.position.back());
  batch.label.resize(rows, -1);
  batch.token_row.resize(batch.token.size(), -1);
  batch.max_length = bucket.longest;
  sort_tokens(batch);
  cut_tiles(batch);
  pad_lists(batch, bucket);
  return bucket;
}

void reserve(PackedBatch& batch, std::size_t tokens, std::size_t sequences, std::size_t rows) {
  const auto rounded = [](std::size_t size) { return static_cast<std::size_t>(bucket_size(static_cast<std::int64_t>(size))); };
  const std::size_t most_tokens = rounded(tokens);
  // At worst each token that the rounding adds is a sequence.
  const std::size_t most_sequences = rounded(sequences + most_tokens - tokens + 8);
  for (std::vector<std::int32_t>* list :
       {&batch.token, &batch.position, &batch.type, &batch.sample, &batch.token_row, &batch.order}) {
    list->reserve(most_tokens);
  }
  for (std::vector<std::int32_t>* list : {&batch.sequence_sample, &batch.cu_seqlens}) list->reserve(most_sequences + 1);
  for (std::vector<std::int32_t>* list : {&batch.row_token, &batch.row_sample, &batch.row_position, &batch.label})
    list->reserve(rounded(rows));
  for (std::vector<std::int32_t>* list :
       {&batch.tile_sequence, &batch.tile_first, &batch.key_tile_sequence, &batch.key_tile_first}) {
    list->reserve(most_tokens / static_cast<std::size_t>(kAttentionTileRows) + most_sequences);
  }
  for (std::vector<std::int32_t>* list : {&batch.split_start, &batch.segment_split, &batch.segment_row})
    list->reserve(most_tokens + most_tokens / static_cast<std::size_t>(kEmbeddingSplit) + 1);
}

namespace {

/// Makes the token at `token` a labelled row, seen as `stand_in`.
void add_row(PackedBatch& batch, std::size_t token, std::int32_t stand_in) {
  batch.row_token.push_back(static_cast<std::int32_t>(token));
  batch.row_sample.push_back(batch.sample[token]);
  batch.row_position.push_back(batch.position[token]);
  batch.label.push_back(batch.token[token]);
  batch.token[token] = stand_in;
}

void add_sample(const TokenizedSamples& samples, std::int32_t member, PackedBatch& batch) {
  const auto begin = static_cast<std::size_t>(samples.offsets[static_cast<std::size_t>(member)]);
  const auto length = static_cast<std::size_t>(samples.length(member));
  const auto types = samples.types.empty() ? samples.types : samples.types.subspan(begin, length);
  add_sequence(samples.ids.subspan(begin, length), types, batch);
}

void invert_rows(PackedBatch& batch) {
  batch.token_row.assign(batch.token.size(), -1);
  for (std::size_t row = 0; row < batch.row_token.size(); ++row)
    batch.token_row[static_cast<std::size_t>(batch.row_token[row])] = static_cast<std::int32_t>(row);
}

}  // namespace

TokenizedSamples::TokenizedSamples(SampleLists lists) {
  const auto held = std::make_shared<const SampleLists>(std::move(lists));
  ids = held->ids;
  types = held->types;
  offsets = held->offsets;
  holder_ = held;
}

std::int64_t tokens_of(const TokenizedSamples& samples, std::span<const std::int32_t> members) {
  std::int64_t tokens = 0;
  for (const std::int32_t member : members) tokens += samples.length(member);
  return tokens;
}

SampleLists select(const TokenizedSamples& samples, std::span<const std::int64_t> members) {
  SampleLists part;
  for (const std::int64_t member : members) {
    const auto begin = samples.offsets[static_cast<std::size_t>(member)];
    const auto end = begin + samples.length(member);
    part.ids.insert(part.ids.end(), samples.ids.begin() + begin, samples.ids.begin() + end);
    if (!samples.types.empty()) part.types.insert(part.types.end(), samples.types.begin() + begin, samples.types.begin() + end);
    part.offsets.push_back(std::ssize(part.ids));
  }
  return part;
}

void pack_masked(const TokenizedSamples& samples, std::span<const std::int32_t> members, const Masking& masking, RandomKey key,
                 std::int32_t first_sample, WithoutChoice without, PackedBatch& batch) {
  begin(batch, first_sample);
  for (const std::int32_t member : members) add_sample(samples, member, batch);
  std::size_t least = 0;
  std::optional<Masking::Draw> least_draw;
  for (std::size_t t = 0; t < batch.token.size(); ++t) {
    const auto draw = masking.draw(key, static_cast<std::uint32_t>(batch.sample[t]),
                                   static_cast<std::uint32_t>(batch.position[t]), batch.token[t]);
    if (!draw) continue;
    if (draw->chosen) add_row(batch, t, draw->stand_in);
    if (!least_draw || draw->value < least_draw->value) {
      least = t;
      least_draw = draw;
    }
  }
  if (!least_draw) throw LogicError("pack_masked: the batch has special tokens alone");
  if (batch.row_token.empty() && without == WithoutChoice::least_draw) add_row(batch, least, least_draw->stand_in);
  invert_rows(batch);
  sort_tokens(batch);
  cut_tiles(batch);
}

void pack_sequences(const TokenizedSamples& samples, std::span<const std::int32_t> members, std::span<const std::int32_t> labels,
                    std::int32_t first_sample, PackedBatch& batch) {
  begin(batch, first_sample);
  for (const std::int32_t member : members) {
    batch.row_token.push_back(batch.cu_seqlens.back());
    batch.row_sample.push_back(first_sample + static_cast<std::int32_t>(batch.row_sample.size()));
    batch.row_position.push_back(0);
    batch.label.push_back(labels.empty() ? -1 : labels[static_cast<std::size_t>(member)]);
    add_sample(samples, member, batch);
  }
  invert_rows(batch);
  sort_tokens(batch);
  cut_tiles(batch);
}

}  // namespace lathe
