#include "lathe/training/upload.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

namespace lathe {
namespace {

/// A piece of memory that tensors share, one behind the other, so that one copy takes them all to the device.
class SharedPiece {
 public:
  /// Bytes that so many bytes take in it.
  static std::int64_t room(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  SharedPiece(const DeviceRef& device, std::int64_t bytes)
      : device_(*device), memory_(device->allocate(bytes)), staged_(device->stage(memory_.data(), bytes)) {}
  Tensor place(DType dtype, const Shape& shape, std::span<const std::byte> values) {
    Tensor tensor = Tensor::within(memory_, next_, dtype, shape);
    const auto to = staged_.subspan(static_cast<std::size_t>(next_), static_cast<std::size_t>(room(std::ssize(values))));
    std::ranges::fill(std::ranges::copy(values, to.begin()).out, to.end(), std::byte{0});
    next_ += std::ssize(to);
    return tensor;
  }
  void send() { device_.send(memory_.data(), staged_); }

 private:
  static constexpr std::int64_t kAlignment = 64;  // as Device::allocate has it
  Device& device_;
  Storage memory_;
  std::span<std::byte> staged_;
  std::int64_t next_ = 0;
};

}  // namespace

Batch upload(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars) {
  struct List {
    Tensor Batch::*tensor;
    const std::vector<std::int32_t>& values;
  };
  const std::array lists = {List{&Batch::token, packed.token},
                            List{&Batch::position, packed.position},
                            List{&Batch::type, packed.type},
                            List{&Batch::sample, packed.sample},
                            List{&Batch::sequence_sample, packed.sequence_sample},
                            List{&Batch::cu_seqlens, packed.cu_seqlens},
                            List{&Batch::row_token, packed.row_token},
                            List{&Batch::row_sample, packed.row_sample},
                            List{&Batch::row_position, packed.row_position},
                            List{&Batch::token_row, packed.token_row},
                            List{&Batch::label, packed.label},
                            List{&Batch::order, packed.order},
                            List{&Batch::split_start, packed.split_start},
                            List{&Batch::segment_split, packed.segment_split},
                            List{&Batch::segment_row, packed.segment_row},
                            List{&Batch::tile_sequence, packed.tile_sequence},
                            List{&Batch::tile_first, packed.tile_first},
                            List{&Batch::key_tile_sequence, packed.key_tile_sequence},
                            List{&Batch::key_tile_first, packed.key_tile_first}};
  const auto bytes_of = [](const auto& values) { return std::as_bytes(std::span(values)); };
  std::int64_t bytes = (scalars.random_key == nullptr ? 1 : 2) * SharedPiece::room(sizeof(double));
  for (const List& list : lists) bytes += SharedPiece::room(std::ssize(bytes_of(list.values)));

  SharedPiece piece(device, bytes);
  Batch batch;
  for (const List& list : lists) {
    batch.*list.tensor = piece.place(DType::i32, Shape{static_cast<std::int64_t>(list.values.size())}, bytes_of(list.values));
  }
  batch.tile_rows = kAttentionTileRows;
  batch.key_tile_rows = packed.key_tile_rows;
  batch.max_length = packed.max_length;
  if (scalars.random_key != nullptr)
    batch.random_key = piece.place(DType::i32, Shape{2}, std::as_bytes(std::span(scalars.random_key, 1)));
  const std::array scale = {1.0 / scalars.loss_denominator};
  const std::array single = {static_cast<float>(scale[0])};
  batch.loss_scale = dtype == DType::f64 ? piece.place(DType::f64, Shape{}, bytes_of(scale))
                                         : piece.place(DType::f32, Shape{}, bytes_of(single));
  piece.send();
  return batch;
}

}  // namespace lathe
