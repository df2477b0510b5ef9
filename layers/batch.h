#pragma once
// A packed batch on a device, as functions and layers read it.
#include <cstdint>

#include "lathe/runtime/tensor.h"

namespace [[gnu::visibility("default")]] lathe {

/// T packed tokens of B sequences, R labelled rows. Integer tensors unless noted.
struct Batch {
  Tensor token, position, type, sample;        ///< [T]
  Tensor sequence_sample;                      ///< [B]
  Tensor cu_seqlens;                           ///< [B + 1]
  Tensor row_token, row_sample, row_position;  ///< [R]
  Tensor token_row;                            ///< [T]
  Tensor label;                                ///< [R]
  Tensor order;                                ///< [T]
  Tensor split_start;                          ///< [splits + 1]
  Tensor segment_split;                        ///< [segments + 1]
  Tensor segment_row;                          ///< [segments]
  Tensor tile_sequence, tile_first;            ///< [tiles]
  Tensor key_tile_sequence, key_tile_first;    ///< [key tiles]
  std::int64_t tile_rows = 0;
  std::int64_t key_tile_rows = 0;
  std::int64_t max_length = 0;
  /// RandomKey of the step, two elements; empty where nothing is dropped out (evaluation).
  Tensor random_key;
  /// Scalar of the accumulator's type: a row's factor in the total loss, weight / global denominator.
  Tensor loss_scale;

  std::int64_t tokens() const { return token.size(); }
  std::int64_t sequences() const { return sequence_sample.size(); }
  std::int64_t rows() const { return row_token.size(); }
};

/// Which dropout of a model, and how much: `site` differs for each place, so that their masks are independent.
struct DropoutSite {
  std::uint32_t site = 0;
  double probability = 0.0;
};

}  // namespace lathe
