#pragma once
// Tokenized samples packed into batches without padding: every array that the kernels need, made once on the host.
#include <cstdint>
#include <span>
#include <vector>

#include "lathe/kernels/philox.h"

namespace [[gnu::visibility("default")]] lathe {

class Masking;

/// Token ids of all samples of a data set, tokenized once; sample i is elements offsets[i] .. offsets[i + 1].
struct TokenizedSamples {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> types;
  std::vector<std::int64_t> offsets{0};

  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t length(std::int64_t i) const {
    return offsets[static_cast<std::size_t>(i) + 1] - offsets[static_cast<std::size_t>(i)];
  }
};

/// A batch of T packed tokens of B sequences with R labelled rows, as ../docs/architecture.md describes it. Vectors keep their
/// memory from batch to batch.
struct PackedBatch {
  std::vector<std::int32_t> token;              ///< [T] ids
  std::vector<std::int32_t> position;           ///< [T] position in the sequence
  std::vector<std::int32_t> type;               ///< [T]
  std::vector<std::int32_t> sample;             ///< [T] number of the token's sequence in the global batch
  std::vector<std::int32_t> sequence_sample;    ///< [B] the same by sequence
  std::vector<std::int32_t> cu_seqlens;         ///< [B + 1]
  std::vector<std::int32_t> row_token;          ///< [R] token of each labelled row
  std::vector<std::int32_t> row_sample;         ///< [R] and its sample
  std::vector<std::int32_t> row_position;       ///< [R] and its position
  std::vector<std::int32_t> token_row;          ///< [T] the inverse: labelled row of each token, -1 for none
  std::vector<std::int32_t> label;              ///< [R], -1 for none
  std::vector<std::int32_t> order;              ///< [T] token numbers sorted by id, then by number
  std::vector<std::int32_t> split_start;        ///< [splits + 1] into order
  std::vector<std::int32_t> segment_split;      ///< [segments + 1] into splits
  std::vector<std::int32_t> segment_row;        ///< [segments] id
  std::vector<std::int32_t> tile_sequence;      ///< [tiles] query tiles of attention
  std::vector<std::int32_t> tile_first;         ///< [tiles]
  std::vector<std::int32_t> key_tile_sequence;  ///< [key tiles] the same of keys, for attention's backward
  std::vector<std::int32_t> key_tile_first;     ///< [key tiles]
  std::int64_t key_tile_rows = 0;               ///< keys of a tile: attention_key_tile_rows(max_length)
  std::int64_t max_length = 0;                  ///< longest sequence
};

/// The size that a batch of `tokens` tokens is rounded up to: one of 32 an octave, so that what is prepared for a size (matrix products,
/// graphs) is soon there for all sizes, at 1.5 % more tokens on average at most.
std::int64_t token_bucket(std::int64_t tokens);

/// Rounds T up to token_bucket(T) by content: further sequences of at most the longest one's length, made of token 0, which every vocabulary
/// has, without labelled rows. Their gradients are exact zeros, and nothing that reads the batch needs to know of them. Call it last.
void round_up_tokens(PackedBatch& batch);

/// Rounds R up to token_bucket(R): further rows point at the batch's last token, without a label and without a place in token_row, so that
/// their gradients are exact zeros too. Call it after round_up_tokens().
void round_up_rows(PackedBatch& batch);

/// Takes memory for batches of up to so many tokens, sequences and labelled rows.
void reserve(PackedBatch& batch, std::size_t tokens, std::size_t sequences, std::size_t rows);

/// Query rows of an attention tile.
inline constexpr std::int64_t kAttentionTileRows = 128;

/// Packs the samples `members` (numbers in `samples`, whose order gives the batch's sample numbers) for classification: one
/// labelled row a sequence, its first token. `labels` holds a class for every sample of the data set, or is empty (all -1).
void pack_sequences(const TokenizedSamples& samples, std::span<const std::int32_t> members, std::span<const std::int32_t> labels,
                    PackedBatch& batch);

/// Packs the samples `members` for a masked language model: the labelled rows are the chosen tokens in their order, labels what stood there.
/// Sample i of the batch draws its masks as sample `first_sample` + i, under `key`. Where no token is chosen, which happens to small batches,
/// the one with the least draw is: a batch has a labelled row. Every sample must have a token that isn't special.
void pack_masked(const TokenizedSamples& samples, std::span<const std::int32_t> members, const Masking& masking, RandomKey key,
                 std::uint32_t first_sample, PackedBatch& batch);

}  // namespace lathe
