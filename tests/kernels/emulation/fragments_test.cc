// The fragments of kernels/device against the tables of the PTX manual (ISA 8, "Matrix Fragments for mma.m16n8k16 with .bf16", "ldmatrix").
#include "lathe/kernels/device/mma.cuh"

#include <random>

#include "lathe/kernels/device/tile.cuh"
#include "tests/kernels/emulation/device.h"
#include "tests/kernels/emulation/profiled.h"

namespace lathe::test {
namespace {

using device::Fragment16816;

// As the manual writes them: groupID = %laneid >> 2, threadID_in_group = %laneid % 4.
TEST(Fragments, AreThoseOfTheManual) {
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2;
    const int in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(Fragment16816::a_row(lane, i), (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8);
      EXPECT_EQ(Fragment16816::a_column(lane, i), i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8);
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(Fragment16816::b_row(lane, i), i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8);
      EXPECT_EQ(Fragment16816::b_column(lane, i), group);
      EXPECT_EQ(Fragment16816::d_row(lane, i), i < 2 ? group : group + 8);
      EXPECT_EQ(Fragment16816::d_column(lane, i), in_group * 2 + (i & 0x1));
    }
  }
}

TEST(Fragments, ASwizzledTileKeepsEveryElementAndSpreadsEightRows) {
  using Tile = device::SharedTile<Bf16, 16, 128, device::Swizzle::bytes_128>;
  using Narrow = device::SharedTile<Bf16, 16, 32, device::Swizzle::bytes_64>;
  std::vector<int> seen(Tile::kBytes, 0);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 128; ++column) {
      const int offset = Tile::offset(row, column);
      ++seen[static_cast<std::size_t>(offset)];
      // Piece p of row r lies in place p ^ (r % 8) of the row; panels of 64 columns follow one another.
      EXPECT_EQ(offset, column / 64 * 16 * 128 + row * 128 + ((column % 64 / 8) ^ (row % 8)) * 16 + column % 8 * 2);
    }
  }
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], i % 2 == 0 ? 1 : 0);
  // Two rows of 64 bytes make a line of all banks: piece p of row r lies in place p ^ (r / 2 % 4).
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 32; ++column)
      EXPECT_EQ(Narrow::offset(row, column), row * 64 + ((column / 8) ^ (row / 2 % 4)) * 16 + column % 8 * 2);
  }
}

/// For every element of the first 8 rows and 16 columns, and every step that sets bits alone.
template <class Tile>
void expect_moved_offsets() {
  for (int row = 0; row < 8; ++row) {
    for (int column = 0; column < 16; ++column) {
      for (int rows = 0; rows < Tile::kTileRows; ++rows) {
        for (int columns = 0; columns < Tile::kTileColumns; ++columns) {
          if ((row & rows) != 0 || (column & columns) != 0 || column + columns >= Tile::kTileColumns) continue;
          ASSERT_EQ(Tile::moved(Tile::offset(row, column), rows, columns), Tile::offset(row + rows, column + columns))
              << row << " + " << rows << ", " << column << " + " << columns;
        }
      }
    }
  }
}

TEST(Fragments, AStepFromAnElementIsTheOffsetOfTheElementThere) {
  expect_moved_offsets<device::SharedTile<Bf16, 16, 128, device::Swizzle::bytes_128>>();
  expect_moved_offsets<device::SharedTile<Bf16, 16, 96, device::Swizzle::bytes_64>>();
  expect_moved_offsets<device::SharedTile<Bf16, 16, 40, device::Swizzle::none>>();
}

class OnDevice : public EmulatedDevice {
 protected:
  template <class T>
  T* upload(const std::vector<T>& host, const char* name) {
    T* memory = allocate<T>(host.size(), name);
    EXPECT_EQ(emulation::cuda::cudaMemcpy(memory, host.data(), host.size() * sizeof(T), emulation::cuda::cudaMemcpyHostToDevice),
              emulation::cuda::cudaSuccess);
    return memory;
  }
};

TEST_F(OnDevice, LdmatrixGivesEachLaneItsElements) {
  std::vector<Bf16> matrix(32 * 8);
  for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i].bits = static_cast<std::uint16_t>(i + 1);
  const Bf16* m = upload(matrix, "m");
  auto* plain = allocate<std::uint32_t>(224, "plain");
  auto* transposed = allocate<std::uint32_t>(224, "transposed");
  for (const emulation::Settings& orders : all_orders()) {
    emulation::configure(orders);
    ASSERT_EQ(fault([&] { run_ldmatrix({}, plain, transposed, m); }), "");
    const auto words = read(plain, 224);
    const auto turned = read(transposed, 224);
    const auto element = [&](unsigned number, unsigned row, unsigned column) {
      return std::uint32_t{matrix[(8 * number + row) * 8 + column].bits};
    };
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned number = 0; number < 4; ++number) {
        const std::uint32_t expected = element(number, lane / 4, 2 * (lane % 4)) | element(number, lane / 4, 2 * (lane % 4) + 1)
                                                                                       << 16U;
        const std::uint32_t across = element(number, 2 * (lane % 4), lane / 4) | element(number, 2 * (lane % 4) + 1, lane / 4)
                                                                                     << 16U;
        EXPECT_EQ(words[4 * lane + number], expected);
        EXPECT_EQ(turned[4 * lane + number], across);
        if (number < 2) {
          EXPECT_EQ(words[128 + 2 * lane + number], expected);
          EXPECT_EQ(turned[128 + 2 * lane + number], across);
        }
        if (number < 1) {
          EXPECT_EQ(words[192 + lane], expected);
          EXPECT_EQ(turned[192 + lane], across);
        }
      }
    }
  }
}

/// Small whole numbers: every product and sum is exact.
std::vector<Bf16> whole_numbers(std::size_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<Bf16> values(count);
  for (Bf16& value : values) value = Bf16(static_cast<float>(generator() % 9) - 4);
  return values;
}

TEST_F(OnDevice, MmaMultiplies) {
  const auto a = whole_numbers(256, 1);
  const auto b = whole_numbers(128, 2);
  std::vector<float> expected(128);
  for (std::size_t i = 0; i < 128; ++i) {
    expected[i] = static_cast<float>(i);
    for (std::size_t k = 0; k < 16; ++k)
      expected[i] += static_cast<float>(a[i / 8 * 16 + k]) * static_cast<float>(b[8 * k + i % 8]);
  }
  std::vector<float> before(128);
  for (std::size_t i = 0; i < 128; ++i) before[i] = static_cast<float>(i);
  const Bf16* left = upload(a, "a");
  const Bf16* right = upload(b, "b");
  float* d = upload(before, "d");
  ASSERT_EQ(fault([&] { run_mma({}, d, left, right); }), "");
  EXPECT_EQ(read(d, 128), expected);
}

TEST_F(OnDevice, AProductByTilesIsTheProductInEveryOrder) {
  constexpr std::size_t kSize = 128;
  const auto a = whole_numbers(kSize * kSize, 3);
  const auto bt = whole_numbers(kSize * kSize, 4);
  std::vector<float> expected(kSize * kSize);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    for (std::size_t k = 0; k < kSize; ++k)
      expected[i] += static_cast<float>(a[i / kSize * kSize + k]) * static_cast<float>(bt[i % kSize * kSize + k]);
  }
  const Bf16* left = upload(a, "a");
  const Bf16* right = upload(bt, "bt");
  auto* product = allocate<float>(kSize * kSize, "product");
  for (const emulation::Settings& orders : all_orders()) {
    emulation::configure(orders);
    ASSERT_EQ(fault([&] { run_gemm({}, product, left, right, kSize); }), "");
    EXPECT_EQ(read(product, kSize * kSize), expected);
  }
}

}  // namespace
}  // namespace lathe::test
