#pragma once
// What threads of a block or of a warp do together. Each names the place in the source at which the threads must meet.
#include <cstddef>
#include <cstdint>
#include <source_location>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

void sync_block(std::source_location where);
void sync_warp(unsigned mask, std::source_location where);
unsigned ballot(unsigned mask, bool predicate, std::source_location where);

enum class Shuffle : std::uint8_t { index, exclusive_or, up, down };
struct ShuffleRequest {
  Shuffle kind;
  int operand;  ///< lane, lane mask or distance
  int width;    ///< 1, 2, 4, 8, 16 or 32: the warp's lanes exchange within groups of it
  std::source_location where;
};
/// Replaces value[0..bytes) by another lane's. Fault where that lane is outside of the mask.
void shuffle_bytes(unsigned mask, void* value, std::size_t bytes, const ShuffleRequest& request);

// Inlined, so that what it calls returns to the kernel.
template <class T>
[[gnu::always_inline]] inline T shuffle(unsigned mask, T value, const ShuffleRequest& request) {
  static_assert(sizeof(T) <= 8);
  shuffle_bytes(mask, &value, sizeof(T), request);
  return value;
}

/// The lane of the calling thread in its warp.
unsigned lane();

/// 16 bytes on their way from global to shared memory: cp.async.cg. Until the calling thread has waited for the group, the destination
/// is poisoned and nobody may touch it. Zeroes where `source_bytes` is 0, as the instruction's src-size does.
void copy_async(void* shared, const void* global, std::size_t bytes, std::size_t source_bytes);
void copy_async_commit();
/// Until at most `pending` of the thread's groups are on their way.
void copy_async_wait(unsigned pending);

/// ldmatrix.sync.aligned.m8n8.xN.shared.b16 (transposed where asked): lane l passes the address of row l % 8 of matrix l / 8; words[0..count).
enum class Transposed : std::uint8_t { no, yes };
void load_matrix(std::uint32_t* words, int count, Transposed transposed, const void* row, std::source_location where);

/// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: d[0..4) += a[0..4) b[0..2), fragments as the PTX manual lays them out.
void mma_m16n8k16(float* d, const std::uint32_t* a, const std::uint32_t* b, std::source_location where);

}  // namespace emulation
}  // namespace lathe
