#include "lathe/text/packing.h"

#include <algorithm>
#include <numeric>

#include "lathe/kernels/embedding.h"

namespace lathe {
namespace {

void add_sequence(const TokenizedSamples& samples, std::int32_t member, PackedBatch& batch) {
  const auto sequence = static_cast<std::int32_t>(batch.sequence_sample.size());
  const auto begin = samples.offsets[static_cast<std::size_t>(member)];
  const auto length = static_cast<std::int32_t>(samples.length(member));
  for (std::int32_t i = 0; i < length; ++i) {
    const auto from = static_cast<std::size_t>(begin + i);
    batch.token.push_back(samples.ids[from]);
    batch.type.push_back(samples.types[from]);
    batch.position.push_back(i);
    batch.sample.push_back(sequence);
  }
  batch.sequence_sample.push_back(sequence);
  batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.token.size()));
  for (std::int32_t first = 0; first < length; first += static_cast<std::int32_t>(kAttentionTileRows)) {
    batch.tile_sequence.push_back(sequence);
    batch.tile_first.push_back(first);
  }
  batch.max_length = std::max<std::int64_t>(batch.max_length, length);
}

/// Tokens sorted by id, cut into segments of one id and those into splits of a bounded length (kernels/embedding.h).
void sort_tokens(PackedBatch& batch) {
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

void clear(PackedBatch& batch) {
  for (std::vector<std::int32_t>* list :
       {&batch.token, &batch.position, &batch.type, &batch.sample, &batch.sequence_sample, &batch.cu_seqlens, &batch.row_token,
        &batch.row_sample, &batch.row_position, &batch.token_row, &batch.label, &batch.order, &batch.split_start,
        &batch.segment_split, &batch.segment_row, &batch.tile_sequence, &batch.tile_first}) {
    list->clear();
  }
  batch.max_length = 0;
  batch.cu_seqlens.push_back(0);
}

}  // namespace

void reserve(PackedBatch& batch, std::size_t tokens, std::size_t sequences) {
  for (std::vector<std::int32_t>* list :
       {&batch.token, &batch.position, &batch.type, &batch.sample, &batch.token_row, &batch.order})
    list->reserve(tokens);
  for (std::vector<std::int32_t>* list :
       {&batch.sequence_sample, &batch.cu_seqlens, &batch.row_token, &batch.row_sample, &batch.row_position, &batch.label}) {
    list->reserve(sequences + 1);
  }
  const std::size_t tiles = tokens / static_cast<std::size_t>(kAttentionTileRows) + sequences;
  for (std::vector<std::int32_t>* list : {&batch.tile_sequence, &batch.tile_first}) list->reserve(tiles);
  for (std::vector<std::int32_t>* list : {&batch.split_start, &batch.segment_split, &batch.segment_row})
    list->reserve(tokens + 1);
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
    add_sequence(samples, member, batch);
  }
  batch.token_row.assign(batch.token.size(), -1);
  for (std::size_t row = 0; row < batch.row_token.size(); ++row)
    batch.token_row[static_cast<std::size_t>(batch.row_token[row])] = static_cast<std::int32_t>(row);
  sort_tokens(batch);
}

}  // namespace lathe
