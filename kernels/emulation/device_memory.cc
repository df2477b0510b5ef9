#include "lathe/kernels/emulation/device_memory.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace lathe::emulation {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kGap = 512;  // between allocations: what runs over the end of one is in none
constexpr std::size_t kPage = 4096;
constexpr std::size_t kRound = std::size_t{4} << 20U;  // after as many bytes, allocation begins anew, where there is room

std::size_t room_for(std::size_t bytes) { return (bytes + kGap + kAlignment - 1) / kAlignment * kAlignment; }

/// Zeroes cells; whole pages of them by giving them back.
void forget(Cell* cells, std::size_t count) {
  const auto begin = reinterpret_cast<std::uintptr_t>(cells);
  const std::uintptr_t end = begin + count * sizeof(Cell);
  const std::uintptr_t first = std::min((begin + kPage - 1) / kPage * kPage, end);
  const std::uintptr_t last = std::max(end / kPage * kPage, first);
  std::memset(static_cast<void*>(cells), 0, first - begin);
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  std::memset(reinterpret_cast<void*>(last), 0, end - last);
}

void* reserve(std::size_t bytes, int protection) {
  void* memory = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw std::system_error(errno, std::generic_category(), "emulation: addresses for the device's memory");
  return memory;
}

struct sigaction& earlier_handler() {
  static struct sigaction value {};
  return value;
}

/// Host code that touches device memory, or memory that a pending copy reads, ends the process with one line.
void on_segmentation_fault(int signal, siginfo_t* information, void* context) {
  const void* address = information->si_addr;
  if (device_memory().contains(address)) {
    const std::string text =
        "emulation: host code touches device memory: " + device_memory().describe(reinterpret_cast<std::uintptr_t>(address)) +
        "; copy it to the host first\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
  }
  sigaction(SIGSEGV, &earlier_handler(), nullptr);
  static_cast<void>(signal);
  static_cast<void>(context);
}

}  // namespace

DeviceMemory& device_memory() {
  static DeviceMemory memory;
  return memory;
}

void* dynamic_shared_memory() {
  thread_local void* memory = reserve(kDynamicSharedReserved, PROT_READ | PROT_WRITE);
  return memory;
}

DeviceMemory::DeviceMemory() {
  all_ = {reinterpret_cast<std::uintptr_t>(reserve(kReserved, PROT_NONE)), kReserved};
  next_ = all_.begin + kGap;
  cells_ = static_cast<Cell*>(reserve(kReserved / 2 * sizeof(Cell), PROT_READ | PROT_WRITE));
  states_ = static_cast<std::uint8_t*>(reserve(kReserved / 2, PROT_READ | PROT_WRITE));
  struct sigaction handler {};
  handler.sa_sigaction = on_segmentation_fault;
  handler.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &handler, &earlier_handler());
}

DeviceMemory::~DeviceMemory() {
  sigaction(SIGSEGV, &earlier_handler(), nullptr);
  munmap(reinterpret_cast<void*>(all_.begin), all_.bytes);
  munmap(cells_, kReserved / 2 * sizeof(Cell));
  munmap(states_, kReserved / 2);
}

std::uintptr_t DeviceMemory::place(std::size_t room) {
  // Round and round, so that an address comes back as late as can be: what is used after it was freed is then in no allocation.
  for (int round = 0; round < 2; ++round) {
    while (next_ + room <= all_.begin + kReserved) {
      // The allocation that ends last of those that begin before the place ends.
      const auto after = live_.lower_bound(next_ + room);
      if (after == live_.begin()) return next_;
      const Allocation& before = std::prev(after)->second;
      const std::uintptr_t end = before.begin + room_for(before.bytes);
      if (end <= next_) return next_;
      next_ = end;
    }
    next_ = all_.begin + kGap;
  }
  return 0;
}

void* DeviceMemory::allocate(std::size_t bytes) {
  if (bytes == 0 || in_use_ + bytes > kCapacity) return nullptr;
  const std::size_t room = room_for(bytes);
  const std::uintptr_t begin = place(room);
  if (begin == 0) return nullptr;
  next_ = begin + room;
  if (next_ - all_.begin > kRound) next_ = all_.begin + kGap;
  const bool further = begin - all_.begin + room > reached_;
  reached_ = std::max(reached_, begin - all_.begin + room);
  in_use_ += bytes;
  freed_.erase(freed_.lower_bound(begin), freed_.lower_bound(begin + room));
  live_[begin] = {.begin = begin, .bytes = bytes, .name = ""};
  const std::uintptr_t cell = (begin - all_.begin) / 2;
  std::fill_n(states_ + cell, (bytes + 1) / 2, static_cast<std::uint8_t>(kAllocated));
  forget(cells_ + cell, (bytes + 1) / 2);
  if (accessible_ && further) protect(PROT_READ | PROT_WRITE);
  return reinterpret_cast<void*>(begin);
}

void DeviceMemory::release(void* address) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const auto found = live_.find(begin);
  if (found == live_.end()) {
    if (freed_.contains(begin)) throw Fault(FaultKind::memory, "freed twice: " + describe(begin));
    throw Fault(FaultKind::memory, "what is freed is not the beginning of an allocation: " + describe(begin));
  }
  const Allocation gone = found->second;
  live_.erase(found);
  named_.erase(named_.lower_bound(begin), named_.lower_bound(begin + gone.bytes));
  freed_[begin] = gone;
  in_use_ -= gone.bytes;
  std::fill_n(states_ + (begin - all_.begin) / 2, (gone.bytes + 1) / 2, std::uint8_t{0});
  // Protecting memory takes time with each page that is there.
  const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const std::uintptr_t last = (begin + gone.bytes) / kPage * kPage;
  if (gone.bytes > kRound / 4 && last > first) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
    forget(cells_ + (first - all_.begin) / 2, (last - first) / 2);
  }
}

void DeviceMemory::name(const void* address, std::size_t bytes, const char* name) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const auto whole = live_.find(begin);
  if (whole != live_.end() && whole->second.bytes == bytes) {
    whole->second.name = name;
    return;
  }
  named_.erase(named_.lower_bound(begin), named_.lower_bound(begin + std::max<std::size_t>(bytes, 1)));
  named_[begin] = {.begin = begin, .bytes = bytes, .name = name};
}

namespace {

const Allocation* within(const std::map<std::uintptr_t, Allocation>& all, std::uintptr_t address) {
  auto after = all.upper_bound(address);
  if (after == all.begin()) return nullptr;
  const Allocation& candidate = std::prev(after)->second;
  return address < candidate.begin + candidate.bytes ? &candidate : nullptr;
}

std::string naming(const Allocation& allocation) {
  return (allocation.name.empty() ? std::string("an allocation") : "'" + allocation.name + "'") + " of " +
         std::to_string(allocation.bytes) + " bytes";
}

}  // namespace

const Allocation* DeviceMemory::find(std::uintptr_t address) const {
  const Allocation* named = within(named_, address);
  return named != nullptr ? named : within(live_, address);
}

std::string DeviceMemory::describe(std::uintptr_t address) const {
  char hexadecimal[32];
  std::snprintf(hexadecimal, sizeof(hexadecimal), "0x%zx, ", static_cast<std::size_t>(address));
  if (const Allocation* at = find(address))
    return hexadecimal + ("byte " + std::to_string(address - at->begin)) + " of " + naming(*at);
  if (const Allocation* gone = within(freed_, address)) {
    return hexadecimal + ("byte " + std::to_string(address - gone->begin)) + " of " + naming(*gone) + ", which was freed";
  }
  const auto after = live_.upper_bound(address);
  const Allocation* before = after == live_.begin() ? nullptr : &std::prev(after)->second;
  const std::size_t past = before == nullptr ? 0 : address - before->begin - before->bytes;
  if (before != nullptr && (after == live_.end() || past <= after->first - address)) {
    return hexadecimal + (std::to_string(past) + " bytes behind the end of ") + naming(*before);
  }
  if (after != live_.end())
    return hexadecimal + (std::to_string(after->first - address) + " bytes before ") + naming(after->second);
  return std::string(hexadecimal) + "in no allocation";
}

bool Ordered::find(const Access& before) {
  if (!ordered_before_operation(before)) return false;
  known_[next_++ % known_.size()] = moments_of_operation(before.serial);
  return true;
}

void DeviceMemory::keep_read(std::size_t cell, const Access& read) {
  std::vector<Access>& reads = kept_reads_[cell];
  // Whoever must come behind the running operation comes behind what is before it.
  std::erase_if(reads, [](const Access& each) { return ordered_before_operation(each); });
  reads.push_back(read);
}

std::vector<Access> DeviceMemory::take_reads(std::size_t cell) {
  const auto found = kept_reads_.find(cell);
  if (found == kept_reads_.end()) return {};
  std::vector<Access> reads = std::move(found->second);
  kept_reads_.erase(found);
  return reads;
}

void DeviceMemory::touch(const void* address, std::size_t bytes, AccessKind kind, Serial serial, const std::string& who) {
  const std::uintptr_t offset = reinterpret_cast<std::uintptr_t>(address) - all_.begin;
  const char* verb = kind == AccessKind::read ? "reads" : "writes";
  Ordered ordered;
  const auto must_follow = [&](const Access& before, std::uint32_t mask, std::uintptr_t at) {
    if ((before.bytes & mask) == 0 || before.serial == serial) return;
    if (!ordered.contains(before)) {
      throw Fault(FaultKind::stream_order,
                  fmt::format("{}: {} {}, {}", who, verb, describe(all_.begin + at), why_unordered(before)));
    }
  };
  for (std::uintptr_t at = offset; at < offset + bytes;) {
    const std::uintptr_t cell = at / 2;
    const std::uintptr_t next = std::min<std::uintptr_t>((cell + 1) * 2, offset + bytes);
    const std::uint32_t mask = (at % 2 == 1 ? 2U : (next - at == 1 ? 1U : 3U));
    if ((states_[cell] & kAllocated) == 0) {
      throw Fault(FaultKind::out_of_bounds,
                  fmt::format("{}: {} {}, which is in no allocation", who, verb, describe(all_.begin + at)));
    }
    Cell& entry = cells_[cell];
    must_follow(entry.write, mask, at);
    Access now{
        .serial = serial, .thread = kNoThread, .code = 0, .lanes = 0, .time = 0, .bytes = mask & 3U, .scope = 0, .atomic = 0};
    if (kind == AccessKind::read) {
      if ((states_[cell] & mask) != mask) {
        throw Fault(FaultKind::uninitialised,
                    fmt::format("{}: reads {}, which nothing has written", who, describe(all_.begin + at)));
      }
      if (entry.read.bytes != 0 && entry.read.serial != serial && !ordered.contains(entry.read)) keep_read(cell, entry.read);
      entry.read = now;
    } else {
      must_follow(entry.read, mask, at);
      if (keeps_reads()) {
        for (const Access& read : take_reads(cell)) must_follow(read, mask, at);
      }
      entry.write = now;
      entry.read = {};
      states_[cell] |= static_cast<std::uint8_t>(mask);
    }
    at = next;
  }
}

void DeviceMemory::protect(int protection) {
  const std::size_t bytes = (reached_ + kGap + kPage - 1) / kPage * kPage;
  if (mprotect(reinterpret_cast<void*>(all_.begin), bytes, protection) != 0) {
    throw std::system_error(errno, std::generic_category(), "emulation: protecting the device's memory");
  }
  accessible_ = protection != PROT_NONE;
}

DeviceMemory::Opened::Opened(DeviceMemory& memory) : memory_(memory) {
  if (memory_.opened_++ == 0 && !memory_.accessible_) memory_.protect(PROT_READ | PROT_WRITE);
}
DeviceMemory::Opened::~Opened() {
  if (--memory_.opened_ == 0 && settings().guard_host) memory_.protect(PROT_NONE);
}

}  // namespace lathe::emulation
