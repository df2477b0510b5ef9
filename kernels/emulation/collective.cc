#include "lathe/kernels/emulation/collective.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/profiler.h"
#include "lathe/kernels/emulation/running.h"
#include "lathe/kernels/emulation/symbols.h"
#include "lathe/kernels/types.h"

namespace lathe::emulation {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

}  // namespace

cuda::uint3 thread_index() { return running->current->index; }
cuda::uint3 block_index() { return running->block; }
cuda::dim3 block_dimensions() { return running->kernel.shape.block; }
cuda::dim3 grid_dimensions() { return running->kernel.shape.grid; }
void* dynamic_shared() { return dynamic_shared_memory(); }
unsigned lane() { return running->lane(); }

void sync_block(std::source_location where) {
  running->sync_block({.what = "__syncthreads", .where = where, .code = __builtin_return_address(0)});
}

void sync_warp(unsigned mask, std::source_location where) {
  const std::byte nothing{};
  running->meet(mask, &nothing, 1, {.what = "__syncwarp", .where = where, .code = __builtin_return_address(0)},
                [](Running& run, unsigned lanes, Rendezvous::Slots&) { run.warp().join(lanes); });
}

unsigned ballot(unsigned mask, bool predicate, std::source_location where) {
  const auto& votes =
      running->meet(mask, &predicate, sizeof(predicate), {.what = "a vote", .where = where, .code = __builtin_return_address(0)});
  unsigned result = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) != 0 && votes[l][0] != std::byte{0}) result |= 1U << l;
  }
  return result;
}

void shuffle_bytes(unsigned mask, void* value, std::size_t bytes, const ShuffleRequest& request) {
  const Place place{.what = "a shuffle", .where = request.where, .code = __builtin_return_address(0)};
  const auto& brought = running->meet(mask, value, bytes, place);
  const int self = static_cast<int>(running->lane());
  const int group = self / request.width * request.width;
  int from = self;
  switch (request.kind) {
    case Shuffle::index:
      from = group + (request.operand & (request.width - 1));
      break;
    case Shuffle::exclusive_or:
      from = self ^ request.operand;
      break;
    case Shuffle::up:
      from = self - request.operand;
      break;
    case Shuffle::down:
      from = self + request.operand;
      break;
  }
  // Beyond its group a lane keeps its own value (an exclusive or may reach into groups before its own).
  const bool before = from < group && request.kind != Shuffle::exclusive_or;
  if (before || from < 0 || from >= group + request.width) from = self;
  if ((mask >> static_cast<unsigned>(from) & 1U) == 0) {
    running->fail(FaultKind::warp,
                  fmt::format("takes in {} the value of lane {}, which is not in the mask {:#010x}", place.text(), from, mask));
  }
  std::memcpy(value, brought[static_cast<std::size_t>(from)].data(), bytes);
}

void copy_async(void* shared, const void* global, std::size_t bytes, std::size_t source_bytes) {
  AsyncCopy copy{.to = static_cast<std::byte*>(shared),
                 .code = low_half(__builtin_return_address(0)),
                 .bytes = static_cast<std::uint8_t>(bytes),
                 .data = {}};
  if (source_bytes > 0) {
    watch({.address = global, .bytes = source_bytes, .kind = AccessKind::read, .space = Space::global, .alignment = bytes},
          __builtin_return_address(0));
    std::memcpy(copy.data.data(), global, source_bytes);
  }
  watch({.address = shared,
         .bytes = bytes,
         .kind = AccessKind::write,
         .space = Space::shared,
         .alignment = bytes,
         .asynchronous = true},
        __builtin_return_address(0));
  std::fill_n(copy.to, bytes, std::byte{0xFF});
  running->current->open.push_back(copy);
}

void copy_async_commit() {
  Thread& self = *running->current;
  self.groups.push_back(std::move(self.open));
  self.open.clear();
}

void copy_async_wait(unsigned pending) {
  Thread& self = *running->current;
  while (self.groups.size() > pending) {
    for (const AsyncCopy& copy : self.groups.front()) {
      std::memcpy(copy.to, copy.data.data(), copy.bytes);
      landed(copy);
    }
    self.groups.erase(self.groups.begin());
  }
}

void load_matrix(std::uint32_t* words, int count, Transposed transposed, const void* row, std::source_location where) {
  if (static_cast<int>(running->lane()) < 8 * count) {
    watch({.address = row, .bytes = 16, .kind = AccessKind::read, .space = Space::shared, .alignment = 16},
          __builtin_return_address(0));
  }
  const auto& rows =
      running->meet(kAllLanes, &row, sizeof(row), {.what = "ldmatrix", .where = where, .code = __builtin_return_address(0)});
  const unsigned self = running->lane();
  const auto row_of = [&](unsigned matrix, unsigned number) {
    const std::byte* address = nullptr;
    std::memcpy(static_cast<void*>(&address), rows[8 * matrix + number].data(), sizeof(address));
    return address;
  };
  for (unsigned matrix = 0; matrix < static_cast<unsigned>(count); ++matrix) {
    if (transposed == Transposed::no) {
      std::memcpy(&words[matrix], row_of(matrix, self / 4) + 4 * (self % 4), 4);
    } else {
      std::array<std::uint16_t, 2> halves{};
      for (unsigned h = 0; h < 2; ++h) std::memcpy(&halves[h], row_of(matrix, 2 * (self % 4) + h) + 2 * (self / 4), 2);
      words[matrix] = static_cast<std::uint32_t>(halves[1]) << 16U | halves[0];
    }
  }
}

namespace {

struct Fragments {
  std::array<std::uint32_t, 4> a;
  std::array<std::uint32_t, 2> b;
};
using Products = std::array<float, 4>;
static_assert(sizeof(Fragments) <= Rendezvous::kSlot && sizeof(Products) <= Rendezvous::kSlot);

float bf16_half(std::uint32_t word, unsigned which) {
  return static_cast<float>(std::bit_cast<Bf16>(static_cast<std::uint16_t>(word >> (16U * which))));
}

/// Replaces the lanes' fragments by their parts of the product, by the layouts of the PTX manual.
void multiply(Rendezvous::Slots& slots) {
  alignas(32) std::array<std::array<float, 16>, 16> a;
  alignas(32) std::array<std::array<float, 8>, 16> b;
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    Fragments own;
    std::memcpy(&own, slots[lane].data(), sizeof(own));
    const unsigned group = lane / 4;
    const unsigned in_group = lane % 4;
    for (unsigned i = 0; i < 8; ++i)
      a[group + 8 * (i / 2 % 2)][2 * in_group + i % 2 + 8 * (i / 4)] = bf16_half(own.a[i / 2], i % 2);
    for (unsigned i = 0; i < 4; ++i) b[2 * in_group + i % 2 + 8 * (i / 2)][group] = bf16_half(own.b[i / 2], i % 2);
  }
  alignas(32) std::array<std::array<float, 8>, 16> product{};
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned column = 0; column < 8; ++column) product[row][column] += a[row][k] * b[k][column];
    }
  }
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    Products own;
    for (unsigned i = 0; i < 4; ++i) own[i] = product[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    std::memcpy(slots[lane].data(), &own, sizeof(own));
  }
}

}  // namespace

void mma_m16n8k16(float* d, const std::uint32_t* a, const std::uint32_t* b, std::source_location where) {
  Fragments own{};
  std::copy_n(a, 4, own.a.begin());
  std::copy_n(b, 2, own.b.begin());
  const Place place{.what = "mma", .where = where, .code = __builtin_return_address(0)};
  // The last lane to come multiplies for all.
  const auto& products =
      running->meet(kAllLanes, &own, sizeof(own), place, [](Running&, unsigned, Rendezvous::Slots& slots) { multiply(slots); });
  if (running->profiler != nullptr && running->lane() == 0) running->profiler->count_mma(place.code);
  Products sum;
  std::memcpy(&sum, products[running->lane()].data(), sizeof(sum));
  for (unsigned i = 0; i < 4; ++i) d[i] += sum[i];
}

}  // namespace lathe::emulation
