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

void add_sequence(std::span<const std::int32_t> ids, std::span<const std::int32_t> types, PackedBatch& batch) {
  const auto sequence = static_cast<std::int32_t>(batch.sequence_sample.size());
  const auto length = static_cast<std::int32_t>(ids.size());
  batch.token.insert(batch.token.end(), ids.begin(), ids.end());
  batch.type.insert(batch.type.end(), types.begin(), types.end());
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

void clear(PackedBatch& batch) {
  for (std::vector<std::int32_t>* list :
       {&batch.token, &batch.position, &batch.type, &batch.sample, &batch.sequence_sample, &batch.cu_seqlens, &batch.row_token,
        &batch.row_sample, &batch.row_position, &batch.token_row, &batch.label, &batch.order, &batch.split_start,
        &batch.segment_split, &batch.segment_row, &batch.tile_sequence, &batch.tile_first, &batch.key_tile_sequence,
        &batch.key_tile_first}) {
    list->clear();
  }
  batch.max_length = 0;
  batch.cu_seqlens.push_back(0);
}

}  // namespace

std::int64_t token_bucket(std::int64_t tokens) {
  const std::int64_t octave =
      static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(tokens, 1))));
  const std::int64_t unit = std::max<std::int64_t>(8, octave / 32);
  return (tokens + unit - 1) / unit * unit;
}

void round_up_tokens(PackedBatch& batch) {
  const auto tokens = static_cast<std::int64_t>(batch.token.size());
  const std::int64_t longest = std::max<std::int64_t>(1, batch.max_length);
  const std::array<std::int32_t, 64> zeros{};
  const std::int64_t most = std::min<std::int64_t>(longest, static_cast<std::int64_t>(zeros.size()));
  for (std::int64_t missing = token_bucket(tokens) - tokens; missing > 0;) {
    const auto length = static_cast<std::size_t>(std::min(missing, most));
    add_sequence(std::span(zeros).first(length), std::span(zeros).first(length), batch);
    missing -= static_cast<std::int64_t>(length);
  }
  batch.token_row.resize(batch.token.size(), -1);
  sort_tokens(batch);
  cut_tiles(batch);
}

void round_up_rows(PackedBatch& batch) {
  const auto rows = static_cast<std::size_t>(token_bucket(static_cast<std::int64_t>(batch.row_token.size())));
  batch.row_token.resize(rows, static_cast<std::int32_t>(batch.token.size()) - 1);
  batch.row_sample.resize(rows, batch.sample.back());
  batch.row_position.resize(rows, batch.position.back());
  batch.label.resize(rows, -1);
}

void reserve(PackedBatch& batch, std::size_t tokens, std::size_t sequences, std::size_t rows) {
  // The rounding adds tokens, and at worst each of them is a sequence.
  const auto rounded = static_cast<std::size_t>(token_bucket(static_cast<std::int64_t>(tokens)));
  const std::size_t most = sequences + rounded - tokens + 1;
  for (std::vector<std::int32_t>* list :
       {&batch.token, &batch.position, &batch.type, &batch.sample, &batch.token_row, &batch.order}) {
    list->reserve(rounded);
  }
  for (std::vector<std::int32_t>* list : {&batch.sequence_sample, &batch.cu_seqlens}) list->reserve(most);
  const auto rounded_rows = static_cast<std::size_t>(token_bucket(static_cast<std::int64_t>(rows)));
  for (std::vector<std::int32_t>* list : {&batch.row_token, &batch.row_sample, &batch.row_position, &batch.label})
    list->reserve(rounded_rows);
  const std::size_t tiles = rounded / static_cast<std::size_t>(kAttentionTileRows) + most;
  for (std::vector<std::int32_t>* list :
       {&batch.tile_sequence, &batch.tile_first, &batch.key_tile_sequence, &batch.key_tile_first}) {
    list->reserve(tiles);
  }
  for (std::vector<std::int32_t>* list : {&batch.split_start, &batch.segment_split, &batch.segment_row}) {
    list->reserve(rounded + 1);
  }
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
  add_sequence(std::span(samples.ids).subspan(begin, length), std::span(samples.types).subspan(begin, length), batch);
}

void invert_rows(PackedBatch& batch) {
  batch.token_row.assign(batch.token.size(), -1);
  for (std::size_t row = 0; row < batch.row_token.size(); ++row)
    batch.token_row[static_cast<std::size_t>(batch.row_token[row])] = static_cast<std::int32_t>(row);
}

}  // namespace

void pack_masked(const TokenizedSamples& samples, std::span<const std::int32_t> members, const Masking& masking, RandomKey key,
                 std::uint32_t first_sample, PackedBatch& batch) {
  clear(batch);
  for (const std::int32_t member : members) add_sample(samples, member, batch);
  std::size_t least = 0;
  std::optional<Masking::Draw> least_draw;
  for (std::size_t t = 0; t < batch.token.size(); ++t) {
    const auto draw = masking.draw(key, first_sample + static_cast<std::uint32_t>(batch.sample[t]),
                                   static_cast<std::uint32_t>(batch.position[t]), batch.token[t]);
    if (!draw) continue;
    if (draw->chosen) add_row(batch, t, draw->stand_in);
    if (!least_draw || draw->value < least_draw->value) {
      least = t;
      least_draw = draw;
    }
  }
  if (!least_draw) throw LogicError("pack_masked: the batch has special tokens alone");
  if (batch.row_token.empty()) add_row(batch, least, least_draw->stand_in);
  invert_rows(batch);
  sort_tokens(batch);
  cut_tiles(batch);
}

void pack_sequences(const TokenizedSamples& samples, std::span<const std::int32_t> members, std::span<const std::int32_t> labels,
                    PackedBatch& batch) {
  clear(batch);
  for (const std::int32_t member : members) {
    const auto row = static_cast<std::int32_t>(batch.row_token.size());
    batch.row_token.push_back(batch.cu_seqlens.back());
    batch.row_sample.push_back(row);
    batch.row_position.push_back(0);
    batch.label.push_back(labels.empty() ? -1 : labels[static_cast<std::size_t>(member)]);
    add_sample(samples, member, batch);
  }
  invert_rows(batch);
  sort_tokens(batch);
  cut_tiles(batch);
}

}  // namespace lathe
