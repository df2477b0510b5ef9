#include "lathe/training/upload.h"

#include <array>

namespace lathe {

Batch upload(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars) {
  const auto copy = [&](const std::vector<std::int32_t>& values) {
    return Tensor::from<std::int32_t>(device, values, Shape{static_cast<std::int64_t>(values.size())});
  };
  Batch batch{.token = copy(packed.token),
              .position = copy(packed.position),
              .type = copy(packed.type),
              .sample = copy(packed.sample),
              .sequence_sample = copy(packed.sequence_sample),
              .cu_seqlens = copy(packed.cu_seqlens),
              .row_token = copy(packed.row_token),
              .row_sample = copy(packed.row_sample),
              .row_position = copy(packed.row_position),
              .token_row = copy(packed.token_row),
              .label = copy(packed.label),
              .order = copy(packed.order),
              .split_start = copy(packed.split_start),
              .segment_split = copy(packed.segment_split),
              .segment_row = copy(packed.segment_row),
              .tile_sequence = copy(packed.tile_sequence),
              .tile_first = copy(packed.tile_first),
              .key_tile_sequence = copy(packed.key_tile_sequence),
              .key_tile_first = copy(packed.key_tile_first),
              .tile_rows = kAttentionTileRows,
              .key_tile_rows = packed.key_tile_rows,
              .max_length = packed.max_length,
              .random_key = {},
              .loss_scale = {}};
  if (scalars.random_key != nullptr) {
    const std::array<std::int32_t, 2> key = {static_cast<std::int32_t>(scalars.random_key->seed),
                                             static_cast<std::int32_t>(scalars.random_key->step)};
    batch.random_key = Tensor::from<std::int32_t>(device, key, Shape{2});
  }
  const double scale = 1.0 / scalars.loss_denominator;
  if (dtype == DType::f64) {
    batch.loss_scale = Tensor::from<double>(device, std::span(&scale, 1), Shape{});
  } else {
    const auto single = static_cast<float>(scale);
    batch.loss_scale = Tensor::from<float>(device, std::span(&single, 1), Shape{});
  }
  return batch;
}

}  // namespace lathe
