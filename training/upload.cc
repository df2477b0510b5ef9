#include "lathe/training/upload.h"

#include <algorithm>
#include <array>
#include <span>
#include <tuple>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// A list of a batch on the host, and its tensor on the device.
struct List {
  Tensor Batch::*tensor;
  std::vector<std::int32_t> PackedBatch::*values;
};
/// All of them. (A function, since pointers to members in a constant would count as data that is written when it is loaded.)
constexpr auto lists() {
  return std::array{List{&Batch::token, &PackedBatch::token},
                    List{&Batch::position, &PackedBatch::position},
                    List{&Batch::type, &PackedBatch::type},
                    List{&Batch::sample, &PackedBatch::sample},
                    List{&Batch::sequence_sample, &PackedBatch::sequence_sample},
                    List{&Batch::cu_seqlens, &PackedBatch::cu_seqlens},
                    List{&Batch::row_token, &PackedBatch::row_token},
                    List{&Batch::row_sample, &PackedBatch::row_sample},
                    List{&Batch::row_position, &PackedBatch::row_position},
                    List{&Batch::token_row, &PackedBatch::token_row},
                    List{&Batch::label, &PackedBatch::label},
                    List{&Batch::order, &PackedBatch::order},
                    List{&Batch::split_start, &PackedBatch::split_start},
                    List{&Batch::segment_split, &PackedBatch::segment_split},
                    List{&Batch::segment_row, &PackedBatch::segment_row},
                    List{&Batch::tile_sequence, &PackedBatch::tile_sequence},
                    List{&Batch::tile_first, &PackedBatch::tile_first},
                    List{&Batch::key_tile_sequence, &PackedBatch::key_tile_sequence},
                    List{&Batch::key_tile_first, &PackedBatch::key_tile_first}};
}

/// Bytes that a tensor takes: each begins where Device::allocate could have put it.
constexpr std::int64_t room(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

BatchMemory::BatchMemory(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars)
    : device_(device) {
  struct Place {
    Tensor Batch::*tensor = nullptr;
    DType dtype = DType::i32;
    Shape shape;
  };
  constexpr auto kCount = std::tuple_size_v<decltype(lists())>;
  std::array<Place, kCount + 2> places;
  const auto all = lists();
  for (std::size_t i = 0; i < kCount; ++i) places[i] = {all[i].tensor, DType::i32, Shape{std::ssize(packed.*all[i].values)}};
  places[kCount] = {&Batch::loss_scale, dtype == DType::f64 ? DType::f64 : DType::f32, Shape{}};
  places.back() = {&Batch::random_key, DType::i32, Shape{2}};
  const std::span<const Place> used = std::span(places).first(scalars.random_key == nullptr ? places.size() - 1 : places.size());
  std::int64_t bytes = 0;
  for (const Place& place : used) bytes += room(place.shape.size() * size_of(place.dtype));
  memory_ = device->allocate(bytes);
  std::int64_t at = 0;
  for (const Place& place : used) {
    batch_.*place.tensor = Tensor::within(memory_, at, place.dtype, place.shape);
    at += room(place.shape.size() * size_of(place.dtype));
  }
  batch_.tile_rows = kAttentionTileRows;
  batch_.key_tile_rows = packed.key_tile_rows;
  batch_.max_length = packed.max_length;
}

void BatchMemory::fill(const PackedBatch& packed, const BatchScalars& scalars) {
  if (packed.key_tile_rows != batch_.key_tile_rows || packed.max_length != batch_.max_length ||
      (scalars.random_key != nullptr) != static_cast<bool>(batch_.random_key)) {
    throw LogicError("a batch was copied to the place of one of other sizes");
  }
  const std::span<std::byte> staged = device_->stage(memory_.data(), memory_.bytes());
  auto to = staged.begin();
  const auto put = [&](const Tensor& tensor, std::span<const std::byte> values) {
    if (tensor.bytes() != std::ssize(values)) throw LogicError("a batch was copied to the place of one of other sizes");
    const auto end = to + room(std::ssize(values));
    std::ranges::fill(std::ranges::copy(values, to).out, end, std::byte{0});
    to = end;
  };
  for (const List& list : lists()) put(batch_.*list.tensor, std::as_bytes(std::span(packed.*list.values)));
  const double scale = 1.0 / scalars.loss_denominator;
  const auto single = static_cast<float>(scale);
  if (batch_.loss_scale.dtype() == DType::f64) {
    put(batch_.loss_scale, std::as_bytes(std::span(&scale, 1)));
  } else {
    put(batch_.loss_scale, std::as_bytes(std::span(&single, 1)));
  }
  if (scalars.random_key != nullptr) put(batch_.random_key, std::as_bytes(std::span(scalars.random_key, 1)));
  device_->send(memory_.data(), staged);
}

Batch upload(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars) {
  BatchMemory memory(device, dtype, packed, scalars);
  memory.fill(packed, scalars);
  return memory.batch();
}

}  // namespace lathe
