#pragma once
// Tokenized samples packed into batches without padding: every array that the kernels need, made once on the host.
#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "lathe/kernels/philox.h"

namespace [[gnu::visibility("default")]] lathe {

class Masking;

/// Samples while they are put together, one behind the other; sample i is elements offsets[i] .. offsets[i + 1].
struct SampleLists {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> types;  ///< of each id; or none at all where every type is 0
  std::vector<std::int64_t> offsets{0};
};

/// Token ids of all samples of a data set, tokenized once; sample i is elements offsets[i] .. offsets[i + 1]. They lie in lists of its own or in
/// a file that is mapped, which copies share and the last one lets go.
struct TokenizedSamples {
  TokenizedSamples() = default;
  TokenizedSamples(SampleLists lists);  // NOLINT(google-explicit-constructor): the same samples, done
  /// What somebody else holds: `holder` keeps it where it is.
  TokenizedSamples(std::span<const std::int32_t> all_ids, std::span<const std::int32_t> all_types,
                   std::span<const std::int64_t> all_offsets, std::shared_ptr<const void> holder)
      : ids(all_ids), types(all_types), offsets(all_offsets), holder_(std::move(holder)) {}

  std::span<const std::int32_t> ids;
  std::span<const std::int32_t> types;  ///< of each id; or none at all where every type is 0
  std::span<const std::int64_t> offsets{kNoSamples};

  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t length(std::int64_t i) const {
    return offsets[static_cast<std::size_t>(i) + 1] - offsets[static_cast<std::size_t>(i)];
  }

 private:
  static constexpr std::array<std::int64_t, 1> kNoSamples = {0};
  std::shared_ptr<const void> holder_;
};

/// The tokens of the samples `members`.
std::int64_t tokens_of(const TokenizedSamples& samples, std::span<const std::int32_t> members);
/// The samples `members`, in that order, in lists of their own.
SampleLists select(const TokenizedSamples& samples, std::span<const std::int64_t> members);

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
  std::int32_t first_sample = 0;                ///< sample[0]
};

/// The size that `size` tokens, sequences or rows are rounded up to: one of 32 an octave, at least 8, so that what is prepared for a size (matrix
/// products, graphs) is soon there for all sizes, at 1.5 % more on average at most.
std::int64_t bucket_size(std::int64_t size);

/// What the sizes of all that a step computes with depend on: the lengths of every list of a batch, grids and workspaces.
struct Bucket {
  std::int64_t tokens = 0, sequences = 0, rows = 0;  ///< T, B, R
  std::int64_t longest = 0;                          ///< S_max
  auto operator<=>(const Bucket&) const = default;   // NOLINT(modernize-use-nullptr): it finds a 0 in the operator's name
};

/// Rounds a batch up to a bucket, which it returns, by content, so that nothing that reads the batch needs to know of it, and gradients are
/// exact zeros of what is added. Further sequences, of at most the longest one's length, are made of token 0, which every vocabulary has;
/// others are empty. Further rows point at the last token, without a label and without a place in token_row. Lists of tiles, segments and splits
/// are padded to what a bucket's can have. Call it last.
Bucket round_up(PackedBatch& batch);

/// Takes memory for batches of up to so many tokens, sequences and labelled rows.
void reserve(PackedBatch& batch, std::size_t tokens, std::size_t sequences, std::size_t rows);

/// Query rows of an attention tile.
inline constexpr std::int64_t kAttentionTileRows = 128;

/// Packs the samples `members` (numbers in `samples`, whose order gives the batch's sample numbers) for classification: one
/// labelled row a sequence, its first token. `labels` holds a class for every sample of the data set, or is empty (all -1).
/// The batch's samples have the numbers first_sample, first_sample + 1, ... in the global batch.
void pack_sequences(const TokenizedSamples& samples, std::span<const std::int32_t> members, std::span<const std::int32_t> labels,
                    std::int32_t first_sample, PackedBatch& batch);

/// What becomes of a batch in which no token happens to be chosen, as small ones may be: the token with the least draw is chosen, so that there
/// is a labelled row, or none.
enum class WithoutChoice : std::uint8_t { least_draw, no_rows };

/// Packs the samples `members` for a masked language model: the labelled rows are the chosen tokens in their order, labels what stood there.
/// The batch's samples have the numbers first_sample, first_sample + 1, ... in the global batch, under which they draw their masks, with `key`.
/// Every sample must have a token that isn't special.
void pack_masked(const TokenizedSamples& samples, std::span<const std::int32_t> members, const Masking& masking, RandomKey key,
                 std::int32_t first_sample, WithoutChoice without, PackedBatch& batch);

}  // namespace lathe
