#include "lathe/kernels/emulation/profiler.h"

#include <algorithm>
#include <bitset>
#include <memory>

#include "lathe/kernels/emulation/symbols.h"

namespace lathe::emulation {
namespace {

constexpr std::uintptr_t kSector = 32;
constexpr std::uintptr_t kBanks = 32;

/// In order of first launch. One device, one count.
std::vector<std::unique_ptr<KernelProfile>>& profiles() {
  static std::vector<std::unique_ptr<KernelProfile>> value;
  return value;
}

KernelProfile& profile_of(const std::string& kernel) {
  for (const auto& profile : profiles()) {
    if (profile->kernel == kernel) return *profile;
  }
  profiles().push_back(std::make_unique<KernelProfile>());
  profiles().back()->kernel = kernel;
  return *profiles().back();
}

/// Distinct 32-byte sectors, and distinct bytes, of a warp's access.
struct Coverage {
  std::int64_t sectors = 0;
  std::int64_t bytes = 0;
};
template <class Accesses>
Coverage coverage(const Accesses& lanes) {
  std::vector<std::pair<std::uintptr_t, std::uint32_t>> sectors;  // sector and mask of its bytes
  for (const auto& lane : lanes) {
    for (std::uintptr_t at = lane.address; at < lane.address + lane.bytes;) {
      const std::uintptr_t sector = at / kSector;
      const std::uintptr_t end = std::min(lane.address + lane.bytes, (sector + 1) * kSector);
      const auto low = static_cast<unsigned>(at % kSector);
      const auto count = static_cast<unsigned>(end - at);
      const std::uint32_t mask = (count == 32 ? ~0U : ((1U << count) - 1U)) << low;
      sectors.emplace_back(sector, mask);
      at = end;
    }
  }
  std::ranges::sort(sectors);
  Coverage result;
  for (std::size_t i = 0; i < sectors.size();) {
    std::uint32_t mask = 0;
    const std::uintptr_t sector = sectors[i].first;
    for (; i < sectors.size() && sectors[i].first == sector; ++i) mask |= sectors[i].second;
    ++result.sectors;
    result.bytes += std::popcount(mask);
  }
  return result;
}

void add_global(GlobalTraffic& to, const GlobalTraffic& more) {
  to.warp_accesses += more.warp_accesses;
  to.read_bytes += more.read_bytes;
  to.written_bytes += more.written_bytes;
  to.used_bytes += more.used_bytes;
  to.sectors += more.sectors;
  to.atomics += more.atomics;
  to.widest = std::max(to.widest, more.widest);
  to.narrowest = to.narrowest == 0 ? more.narrowest : std::min(to.narrowest, more.narrowest);
}

}  // namespace

Profiler::Profiler(const Kernel& kernel)
    : profile_(profile_of(function_name(kernel.function))),
      threads_(kernel.shape.block.x * kernel.shape.block.y * kernel.shape.block.z) {
  ++profile_.launches;
}

void Profiler::count(Memory memory, std::uintptr_t address, std::size_t bytes, AccessKind kind, const void* code) {
  const std::uint32_t low = low_half(code);
  // One place in the code may read and write: `x += 1` is two warp accesses.
  const std::uint64_t key = std::uint64_t{low} << 2U | static_cast<std::uint64_t>(kind);
  Site& site = sites_[key];
  if (site.times.empty()) {
    site.code = low;
    site.times.resize(threads_);
    site.unfinished.resize((threads_ + kWarpLanes - 1) / kWarpLanes);
  }
  const unsigned thread = running->current->number;
  const unsigned warp = thread / kWarpLanes;
  const std::uint32_t time = site.times[thread]++;
  WarpAccess& access = site.unfinished[warp][time];
  access.memory = memory;
  access.kind = kind;
  access.lanes.push_back({address, static_cast<std::uint32_t>(bytes), thread % kWarpLanes});
  if (access.lanes.size() == static_cast<std::size_t>(std::popcount(running->warps[warp].lanes))) {
    finish(site, access);
    site.unfinished[warp].erase(time);
  }
}

void Profiler::count_mma(const void* code) { ++line(low_half(code)).mma; }
void Profiler::count_barrier(const void* code) { ++line(low_half(code)).barriers; }

void Profiler::end_block() {
  ++profile_.blocks;
  for (auto& [key, site] : sites_) {
    for (auto& warp : site.unfinished) {
      for (const auto& [time, access] : warp) finish(site, access);
      warp.clear();
    }
    std::ranges::fill(site.times, 0U);
  }
}

LineProfile& Profiler::line(std::uint32_t code) {
  LineProfile*& known = lines_[code];
  if (known == nullptr) known = &profile_.lines[source_line(code)];
  return *known;
}

void Profiler::finish(const Site& site, const WarpAccess& access) {
  std::int64_t asked = 0;
  for (const LaneAccess& lane : access.lanes) asked += lane.bytes;
  const int width = static_cast<int>(access.lanes.front().bytes);
  if (access.memory == Memory::global) {
    const Coverage covered = coverage(access.lanes);
    const bool reads = access.kind != AccessKind::write;
    const bool writes = access.kind != AccessKind::read;
    const GlobalTraffic traffic{.warp_accesses = 1,
                                .read_bytes = reads ? asked : 0,
                                .written_bytes = writes ? asked : 0,
                                .used_bytes = covered.bytes,
                                .sectors = covered.sectors,
                                .atomics = access.kind == AccessKind::atomic ? std::ssize(access.lanes) : 0,
                                .widest = width,
                                .narrowest = width};
    add_global(line(site.code).global, traffic);
    const Allocation* tensor = device_memory().find(access.lanes.front().address);
    add_global(profile_.tensors[tensor == nullptr || tensor->name.empty() ? "(unnamed)" : tensor->name], traffic);
    return;
  }
  // 8 bytes a lane go in two phases of sixteen lanes, 16 bytes in four of eight.
  std::vector<LaneAccess> lanes = access.lanes;
  std::ranges::sort(lanes, {}, &LaneAccess::lane);
  const std::uint32_t lanes_a_phase = kWarpLanes / std::max(1U, static_cast<unsigned>(width) / 4U);
  SharedTraffic& shared = line(site.code).shared;
  ++shared.warp_accesses;
  shared.bytes += asked;
  for (std::size_t i = 0; i < lanes.size();) {
    const std::uint32_t phase = lanes[i].lane / lanes_a_phase;
    std::array<std::vector<std::uintptr_t>, kBanks> words;
    for (; i < lanes.size() && lanes[i].lane / lanes_a_phase == phase; ++i) {
      for (std::uintptr_t word = lanes[i].address / 4; word <= (lanes[i].address + lanes[i].bytes - 1) / 4; ++word) {
        std::vector<std::uintptr_t>& bank = words[word % kBanks];
        if (std::ranges::find(bank, word) == bank.end()) bank.push_back(word);
      }
    }
    std::size_t deepest = 0;
    for (const auto& bank : words) deepest = std::max(deepest, bank.size());
    shared.wavefronts += static_cast<std::int64_t>(deepest);
    ++shared.ideal_wavefronts;
  }
}

std::vector<KernelProfile> take_profile() {
  std::vector<KernelProfile> result;
  for (const auto& profile : profiles()) result.push_back(std::move(*profile));
  profiles().clear();
  return result;
}

}  // namespace lathe::emulation
