#include "lathe/kernels/emulation/collective.h"

#include <algorithm>
#include <cstring>

#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/profiler.h"
#include "lathe/kernels/emulation/running.h"
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

void sync_block(std::source_location where) { running->sync_block(where); }

void sync_warp(unsigned mask, std::source_location where) {
  const unsigned self = running->lane();
  Warp& warp = running->warp();
  // Before the meeting each lane's knowledge is its own; what it becomes, the last to come works out for all.
  const auto meeting = std::ranges::find(warp.meetings, mask, [](const auto& each) { return each->mask; });
  const unsigned arrived = meeting == warp.meetings.end() ? 0 : (*meeting)->arrived;
  if (arrived == (mask & ~(1U << self))) {
    std::array<std::uint16_t, kWarpLanes> joined{};
    for (unsigned a = 0; a < kWarpLanes; ++a) {
      if ((mask >> a & 1U) == 0) continue;
      warp.known[a][a] = warp.clock[a];
      for (unsigned b = 0; b < kWarpLanes; ++b) joined[b] = std::max(joined[b], warp.known[a][b]);
    }
    ++warp.tick;
    for (unsigned a = 0; a < kWarpLanes; ++a) {
      if ((mask >> a & 1U) == 0) continue;
      warp.known[a] = joined;
      warp.clock[a] = warp.tick;
    }
  }
  const std::byte nothing{};
  running->meet(mask, &nothing, 1, "__syncwarp", where);
}

unsigned ballot(unsigned mask, bool predicate, std::source_location where) {
  const auto& votes = running->meet(mask, &predicate, sizeof(predicate), "a vote", where);
  unsigned result = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) != 0 && votes[l][0] != std::byte{0}) result |= 1U << l;
  }
  return result;
}

void shuffle_bytes(unsigned mask, void* value, std::size_t bytes, const ShuffleRequest& request) {
  const auto& brought = running->meet(mask, value, bytes, "a shuffle", request.where);
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
    running->fail(FaultKind::warp, "a shuffle at " + to_string(request.where) + " takes the value of lane " +
                                       std::to_string(from) + ", which is not in its mask");
  }
  std::memcpy(value, brought[static_cast<std::size_t>(from)].data(), bytes);
}

void copy_async(void* shared, const void* global, std::size_t bytes, std::size_t source_bytes) {
  const auto code = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)));
  AsyncCopy copy{.to = static_cast<std::byte*>(shared), .code = code, .bytes = static_cast<std::uint8_t>(bytes), .data = {}};
  if (source_bytes > 0) {
    watch({.address = global, .bytes = source_bytes, .kind = AccessKind::read, .space = Space::global, .aligned = true},
          __builtin_return_address(0));
    std::memcpy(copy.data.data(), global, source_bytes);
  }
  watch({.address = shared,
         .bytes = bytes,
         .kind = AccessKind::write,
         .space = Space::shared,
         .aligned = true,
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
    watch({.address = row, .bytes = 16, .kind = AccessKind::read, .space = Space::shared, .aligned = true},
          __builtin_return_address(0));
  }
  const auto& rows = running->meet(kAllLanes, &row, sizeof(row), "ldmatrix", where);
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

void mma_m16n8k16(float* d, const std::uint32_t* a, const std::uint32_t* b, std::source_location where) {
  struct Fragments {
    std::array<std::uint32_t, 4> a;
    std::array<std::uint32_t, 2> b;
  } own{};
  std::copy_n(a, 4, own.a.begin());
  std::copy_n(b, 2, own.b.begin());
  const auto& all = running->meet(kAllLanes, &own, sizeof(own), "mma", where);
  if (running->profiler != nullptr && running->lane() == 0) running->profiler->count_mma(__builtin_return_address(0));
  const unsigned group = running->lane() / 4;
  const unsigned in_group = running->lane() % 4;
  // Element (row, k) of A and (k, column) of B by the layouts of the PTX manual.
  const auto half = [&](unsigned lane, std::size_t word, unsigned which) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, all[lane].data() + 4 * word, 4);
    return static_cast<float>(std::bit_cast<Bf16>(static_cast<std::uint16_t>(bits >> (16U * which))));
  };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = group + 8 * (i / 2);
    const unsigned column = 2 * in_group + i % 2;
    float sum = 0.0F;
    for (unsigned k = 0; k < 16; ++k) {
      const float left = half(row % 8 * 4 + k % 8 / 2, row / 8 + 2 * (k / 8), k % 2);
      const float right = half(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
      sum += left * right;
    }
    d[i] += sum;
  }
}

}  // namespace lathe::emulation
