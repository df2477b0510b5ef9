// A batch on its way to a device: every list arrives, each where wide accesses may begin.
#include "lathe/training/upload.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

#include "tests/layers/small_batch.h"

namespace lathe {
namespace {

std::vector<std::int32_t> integers(const Tensor& tensor) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(tensor.size()));
  tensor.copy_to<std::int32_t>(values);
  return values;
}

template <class T>
T scalar(const Tensor& tensor) {
  T value{};
  tensor.copy_to<T>(std::span(&value, 1));
  return value;
}

void expect_arrives(const DeviceRef& device) {
  PackedBatch packed = small_packed_batch();
  round_up(packed);
  const RandomKey key{.seed = 0xFFFFFFFFU, .step = 17};
  const Batch batch = upload(device, DType::f32, packed, {.random_key = &key, .loss_denominator = 3.0});
  struct Pair {
    const Tensor& tensor;
    const std::vector<std::int32_t>& values;
  };
  for (const auto& [tensor, values] :
       {Pair{batch.token, packed.token}, Pair{batch.position, packed.position}, Pair{batch.type, packed.type},
        Pair{batch.sample, packed.sample}, Pair{batch.sequence_sample, packed.sequence_sample},
        Pair{batch.cu_seqlens, packed.cu_seqlens}, Pair{batch.row_token, packed.row_token},
        Pair{batch.row_sample, packed.row_sample}, Pair{batch.row_position, packed.row_position},
        Pair{batch.token_row, packed.token_row}, Pair{batch.label, packed.label}, Pair{batch.order, packed.order},
        Pair{batch.split_start, packed.split_start}, Pair{batch.segment_split, packed.segment_split},
        Pair{batch.segment_row, packed.segment_row}, Pair{batch.tile_sequence, packed.tile_sequence},
        Pair{batch.tile_first, packed.tile_first}, Pair{batch.key_tile_sequence, packed.key_tile_sequence},
        Pair{batch.key_tile_first, packed.key_tile_first}}) {
    EXPECT_EQ(integers(tensor), values);
    EXPECT_FALSE(values.empty());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data<std::int32_t>()) % 64, 0U);
  }
  EXPECT_EQ(integers(batch.random_key), (std::vector<std::int32_t>{-1, 17}));
  EXPECT_EQ(scalar<float>(batch.loss_scale), static_cast<float>(1.0 / 3.0));
  EXPECT_EQ(batch.max_length, 64);

  const Batch evaluated = upload(device, DType::bf16, packed, {});
  EXPECT_FALSE(evaluated.random_key);
  EXPECT_EQ(scalar<float>(evaluated.loss_scale), 1.0F);
}

TEST(Upload, TakesEveryListToTheCpu) {
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 20});
  expect_arrives(device);
  EXPECT_EQ(device->memory().now, 0) << "the memory goes with the batch";
  EXPECT_EQ(scalar<double>(
                upload(device, DType::f64, small_packed_batch(), {.random_key = nullptr, .loss_denominator = 3.0}).loss_scale),
            1.0 / 3.0);
}

#ifdef LATHE_HAS_CUDA
TEST(CudaUpload, TakesEveryListToAGpu) { expect_arrives(Device::cuda({})); }
#endif

}  // namespace
}  // namespace lathe
