// Every access of a kernel to memory arrives here: from the compiler's instrumentation, which believes to call ThreadSanitizer, and from
// kernels/device for what is wider.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/memory_access.h"
#include "lathe/kernels/emulation/profiler.h"
#include "lathe/kernels/emulation/running.h"
#include "lathe/kernels/emulation/symbols.h"

namespace lathe::emulation {
namespace {

/// What shared memory remembers; cells older than the block are of other blocks.
struct SharedShadow {
  std::vector<Cell> cells;
  std::vector<std::uint8_t> states;  ///< kInFlight alone
  void reach(std::size_t bytes) {
    if (cells.size() * 2 < bytes) {
      cells.resize((bytes + 1) / 2);
      states.resize((bytes + 1) / 2);
    }
  }
};
SharedShadow& dynamic_shadow() {
  thread_local SharedShadow shadow;
  return shadow;
}
SharedShadow& static_shadow() {
  thread_local SharedShadow shadow;
  return shadow;
}

/// What lies so close to static shared memory is meant to be in it.
constexpr std::size_t kNearShared = std::size_t{64} << 10U;

/// An access with all that a message needs.
class Judge {
 public:
  Judge(Running& run, const Touch& touch, const void* code)
      : run_(run),
        touch_(touch),
        code_(code),
        address_(reinterpret_cast<std::uintptr_t>(touch.address)),
        warp_(run.warp()),
        lane_(run.lane()),
        now_{.serial = run.serial,
             .thread = run.thread(),
             .code = low_half(code),
             .lanes = 1U << run.lane(),
             .time = warp_.time & Warp::kTimeAtMost,
             .bytes = 0,
             .scope = 0,
             .atomic = touch.kind == AccessKind::atomic} {}

  [[noreturn]] void fail_misaligned() {
    fail(FaultKind::misaligned, fmt::format("must be a multiple of {} bytes", touch_.alignment));
  }

  void judge() {
    const DeviceMemory& memory = *run_.memory;
    if (memory.contains(touch_.address)) {
      if (touch_.space == Space::shared) fail(FaultKind::out_of_bounds, "is global memory, and must be shared");
      judge_global(address_ - memory.range().begin);
    } else if (address_ - run_.dynamic_shared.begin < kDynamicSharedReserved) {
      const std::uintptr_t offset = address_ - run_.dynamic_shared.begin;
      if (offset + touch_.bytes > run_.dynamic_shared.bytes) {
        fail(FaultKind::out_of_bounds,
             fmt::format("is behind the block's {} bytes of dynamic shared memory", run_.dynamic_shared.bytes));
      }
      judge_shared(dynamic_shadow(), offset, run_.dynamic_shared.bytes);
    } else if (const ThreadLocalVariable* variable = shared_variable()) {
      if (variable->guard) return;
      const std::uintptr_t offset = address_ - run_.static_shared.begin;
      if (offset + touch_.bytes > variable->offset + variable->bytes)
        fail(FaultKind::out_of_bounds, "reaches behind the end of " + variable->name);
      judge_shared(static_shadow(), offset, run_.static_shared.bytes);
    } else {
      judge_other();
    }
  }

 private:
  static void widen(Access& access, Scope scope) { access.scope = static_cast<std::uint32_t>(scope) & 3U; }
  static Scope scope_of(const Access& access) { return static_cast<Scope>(access.scope); }

  /// The static __shared__ variable that has the address; null where none has.
  const ThreadLocalVariable* shared_variable() const {
    if (!run_.static_shared.contains(address_)) return nullptr;
    return thread_local_variable(run_.kernel.function, address_ - run_.static_shared.begin);
  }

  void judge_other() {
    const Range own_stack{reinterpret_cast<std::uintptr_t>(run_.current->stack), kStackBytes};
    if (touch_.space == Space::any) {
      if (own_stack.contains(address_) || run_.arguments.contains(address_)) return;
      if (touch_.kind == AccessKind::read && is_constant(address_)) return;
    }
    const std::vector<Thread>& pool = thread_pool(run_.threads);
    for (unsigned i = 0; i < run_.threads; ++i) {
      if (Range{reinterpret_cast<std::uintptr_t>(pool[i].stack), kStackBytes}.contains(address_)) {
        fail(FaultKind::host_pointer,
             own_stack.contains(address_) ? "is a local variable" : "is a local variable of another thread");
      }
    }
    const Range near_shared{run_.static_shared.begin - kNearShared, run_.static_shared.bytes + 2 * kNearShared};
    if (run_.static_shared.bytes > 0 && near_shared.contains(address_))
      fail(FaultKind::out_of_bounds, "is in no variable of shared memory");
    fail(FaultKind::host_pointer, "is host memory, which no kernel can reach");
  }

  void judge_global(std::uintptr_t offset) {
    std::uint8_t* states = run_.memory->states();
    Cell* cells = run_.memory->cells();
    for_cells(offset, [&](std::uintptr_t cell, std::uint32_t mask) {
      std::uint8_t& state = states[cell];
      if ((state & kAllocated) == 0) fail(FaultKind::out_of_bounds, "is in no allocation");
      if (touch_.kind != AccessKind::write && (state & mask) != mask) fail(FaultKind::uninitialised, "was never written");
      visit(cells[cell], state, mask);
    });
    if (run_.profiler != nullptr) run_.profiler->count(Profiler::Memory::global, address_, touch_.bytes, touch_.kind, code_);
  }

  void judge_shared(SharedShadow& shadow, std::uintptr_t offset, std::size_t whole) {
    shadow.reach(whole);
    for_cells(offset, [&](std::uintptr_t cell, std::uint32_t mask) {
      Cell& entry = shadow.cells[cell];
      std::uint8_t& state = shadow.states[cell];
      const bool of_this_block = std::max(entry.write.serial, entry.read.serial) >= run_.block_began;
      if (!of_this_block) {
        entry = {};
        state = 0;
      }
      if ((state & kInFlight) != 0) {
        fail(FaultKind::async_copy, fmt::format("is the destination of the cp.async at {}, which has not been waited for",
                                                source_line(entry.write.code)));
      }
      if (touch_.kind != AccessKind::write && (state & mask) != mask)
        fail(FaultKind::uninitialised, "was never written by this block");
      visit(entry, state, mask);
      if (touch_.asynchronous) state |= kInFlight;
    });
    if (run_.profiler != nullptr) run_.profiler->count(Profiler::Memory::shared, address_, touch_.bytes, touch_.kind, code_);
  }

  template <class Visit>
  void for_cells(std::uintptr_t offset, const Visit& visit) {
    const std::uintptr_t end = offset + touch_.bytes;
    for (std::uintptr_t cell = offset / 2; cell * 2 < end; ++cell) {
      const bool low = cell * 2 >= offset;
      const bool high = cell * 2 + 1 < end;
      visit(cell, (low ? 1U : 0U) | (high ? 2U : 0U));
    }
  }

  void visit(Cell& entry, std::uint8_t& state, std::uint32_t mask) {
    must_follow(entry.write, mask, "write");
    if (touch_.kind == AccessKind::read) {
      const Access& read = entry.read;
      if (read.bytes != 0 && read.serial < run_.began && !run_.ordered.contains(read))
        run_.memory->keep_read(static_cast<std::size_t>(&entry - run_.memory->cells()), read);
      remember(entry.read, mask);
      return;
    }
    must_follow(entry.read, mask, "read");
    if (run_.memory->keeps_reads() && run_.memory->contains(touch_.address)) {
      for (const Access& read : run_.memory->take_reads(static_cast<std::size_t>(&entry - run_.memory->cells())))
        must_follow(read, mask, "read");
    }
    if (touch_.kind == AccessKind::atomic && entry.write.atomic == 1) {
      remember(entry.write, mask);
    } else {
      const bool again = entry.write.serial == now_.serial && entry.write.thread == now_.thread && entry.write.time == now_.time;
      const std::uint32_t bytes = again ? entry.write.bytes | mask : mask;
      entry.write = now_;
      entry.write.bytes = bytes & 3U;
    }
    if ((entry.read.bytes & ~mask) == 0) entry.read = {};
    state |= static_cast<std::uint8_t>(mask);
  }

  /// Fails unless what `before` remembers happened before this access, or is of the same thread.
  void must_follow(const Access& before, std::uint32_t mask, const char* noun) {
    if ((before.bytes & mask) == 0) return;
    if (before.serial < run_.began) {
      if (!run_.ordered.contains(before)) fail(FaultKind::stream_order, why_unordered(before));
      return;
    }
    if (scope_of(before) == Scope::thread && before.thread == now_.thread) return;
    if (before.atomic == 1 && touch_.kind == AccessKind::atomic) return;
    if (of_block(before)) {
      if (before.serial < run_.serial) return;  // a barrier lies between
      if (of_warp(before)) {
        const std::uint32_t unknown = unknown_lanes(before);
        if (unknown == 0) return;
        fail_race(noun,
                  before.thread - before.thread % run_.threads % kWarpLanes + static_cast<unsigned>(std::countr_zero(unknown)),
                  before.code);
      }
    }
    fail_race(noun, before.thread, before.code);
  }

  bool of_block(const Access& access) const {
    return scope_of(access) != Scope::grid && access.thread - run_.first_thread < run_.threads;
  }
  /// Of an access of this block.
  bool of_warp(const Access& access) const {
    return scope_of(access) != Scope::block &&
           (access.thread - run_.first_thread) / kWarpLanes == run_.current->number / kWarpLanes;
  }
  /// The lanes of an access of this warp that this lane does not know to be over.
  std::uint32_t unknown_lanes(const Access& access) const {
    if (access.time <= warp_.settled) return 0;
    std::uint32_t unknown = 0;
    for (std::uint32_t lanes = access.lanes; lanes != 0; lanes &= lanes - 1) {
      const auto lane = static_cast<unsigned>(std::countr_zero(lanes));
      if (!warp_.knows(lane_, lane, access.time)) unknown |= 1U << lane;
    }
    return unknown;
  }

  /// Adds this access to those that `known` stands for.
  void remember(Access& known, std::uint32_t mask) {
    const std::uint32_t bytes = (known.bytes | mask) & 3U;
    // Of what an earlier operation did all that matters has been judged or kept.
    const bool first = known.serial < run_.began;
    const bool in_block = !first && of_block(known);
    if (first ||
        (in_block && (known.serial < run_.serial || (scope_of(known) == Scope::thread && known.thread == now_.thread)))) {
      known = now_;
    } else if (!in_block) {
      known = now_;
      widen(known, Scope::grid);
    } else if (of_warp(known)) {
      // What this lane knows to be over, whoever knows of this lane knows too. Where the others were earlier the earlier time stands, which
      // may hide a race between partial masks but never makes one up.
      const std::uint32_t others = unknown_lanes(known) & ~now_.lanes;
      const std::uint32_t time = others == 0 ? now_.time : known.time;
      known = now_;
      known.time = time & Warp::kTimeAtMost;
      if (others != 0) {
        known.lanes |= others;
        widen(known, Scope::warp);
      }
    } else {
      known = now_;
      widen(known, Scope::block);
    }
    known.bytes = (first ? mask : bytes) & 3U;
  }

  [[noreturn, gnu::cold, gnu::noinline]] void fail_race(const char* noun, std::uint32_t thread, std::uint32_t code) {
    const std::string who = thread == now_.thread ? "another thread" : place_of(run_, thread);
    fail(FaultKind::race, fmt::format("collides with the {} by {} at {}: no barrier lies between", noun, who, source_line(code)));
  }

  [[noreturn, gnu::cold, gnu::noinline]] void fail(FaultKind kind, const std::string& why) {
    std::string place;
    if (run_.memory->contains(touch_.address)) {
      place = run_.memory->describe(address_);
    } else if (address_ - run_.dynamic_shared.begin < kDynamicSharedReserved) {
      place = fmt::format("byte {} of dynamic shared memory", address_ - run_.dynamic_shared.begin);
    } else if (const ThreadLocalVariable* variable = shared_variable()) {
      place = fmt::format("byte {} of {} of {} bytes in shared memory", address_ - run_.static_shared.begin - variable->offset,
                          variable->name, variable->bytes);
    } else {
      place = fmt::format("{:#x}", address_);
    }
    const char* verb =
        touch_.kind == AccessKind::read ? "reads" : (touch_.kind == AccessKind::write ? "writes" : "updates atomically");
    run_.fail(kind, fmt::format("{} {} bytes at {}: {}, {}", verb, touch_.bytes, source_line(low_half(code_)), place, why));
  }

  Running& run_;
  const Touch& touch_;
  const void* code_;
  std::uintptr_t address_;
  const Warp& warp_;
  unsigned lane_;
  Access now_;
};

}  // namespace

void watch(const Touch& touch, const void* code) {
  Judge judge(*running, touch, code);
  if (touch.alignment > 1 && reinterpret_cast<std::uintptr_t>(touch.address) % touch.alignment != 0) judge.fail_misaligned();
  judge.judge();
}

void landed(const AsyncCopy& copy) {
  Running& run = *running;
  const auto address = reinterpret_cast<std::uintptr_t>(copy.to);
  const bool dynamic = run.dynamic_shared.contains(address);
  SharedShadow& shadow = dynamic ? dynamic_shadow() : static_shadow();
  const std::uintptr_t offset = address - (dynamic ? run.dynamic_shared.begin : run.static_shared.begin);
  for (std::uintptr_t cell = offset / 2; cell * 2 < offset + copy.bytes; ++cell) {
    shadow.states[cell] &= static_cast<std::uint8_t>(~kInFlight);
    shadow.cells[cell].write.serial = run.serial;
    shadow.cells[cell].write.time = run.warp().time & Warp::kTimeAtMost;
  }
}

void load(void* to, const void* from, std::size_t bytes) {
  if (running != nullptr)
    watch({.address = from, .bytes = bytes, .kind = AccessKind::read, .alignment = bytes}, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void store(void* to, const void* from, std::size_t bytes) {
  if (running != nullptr)
    watch({.address = to, .bytes = bytes, .kind = AccessKind::write, .alignment = bytes}, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void atomic_begin(void* old, const void* address, std::size_t bytes) {
  watch({.address = address, .bytes = bytes, .kind = AccessKind::atomic, .alignment = bytes}, __builtin_return_address(0));
  std::memcpy(old, address, bytes);
}

void atomic_end(void* address, const void* value, std::size_t bytes) { std::memcpy(address, value, bytes); }

namespace {

void instrumented(const void* address, std::size_t bytes, std::size_t alignment, AccessKind kind, const void* code) {
  Running* run = running;
  if (run == nullptr || run->current == nullptr) return;
  // A thread's own stack is touched most; nothing there needs judgement.
  if (reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(run->current->stack) < kStackBytes) return;
  watch({.address = address, .bytes = bytes, .kind = kind, .alignment = alignment}, code);
}

}  // namespace
}  // namespace lathe::emulation

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): what instrumented code calls
#pragma GCC visibility push(default)
extern "C" {

using lathe::emulation::AccessKind;
using lathe::emulation::instrumented;

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read1(void* p) { instrumented(p, 1, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read2(void* p) { instrumented(p, 2, 2, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read4(void* p) { instrumented(p, 4, 4, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read8(void* p) { instrumented(p, 8, 8, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read16(void* p) { instrumented(p, 16, 8, AccessKind::read, __builtin_return_address(0)); }
void __tsan_write1(void* p) { instrumented(p, 1, 1, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write2(void* p) { instrumented(p, 2, 2, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write4(void* p) { instrumented(p, 4, 4, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write8(void* p) { instrumented(p, 8, 8, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write16(void* p) { instrumented(p, 16, 8, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_read2(void* p) { instrumented(p, 2, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_read4(void* p) { instrumented(p, 4, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_read8(void* p) { instrumented(p, 8, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_read16(void* p) { instrumented(p, 16, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_write2(void* p) { instrumented(p, 2, 1, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_write4(void* p) { instrumented(p, 4, 1, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_write8(void* p) { instrumented(p, 8, 1, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_write16(void* p) { instrumented(p, 16, 1, AccessKind::write, __builtin_return_address(0)); }
void __tsan_read_range(void* p, std::size_t bytes) { instrumented(p, bytes, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_write_range(void* p, std::size_t bytes) { instrumented(p, bytes, 1, AccessKind::write, __builtin_return_address(0)); }

// prelude.h sends instrumented code's calls of memcpy, memmove and memset here.
void* lathe_emulated_memcpy(void* to, const void* from, std::size_t bytes) {
  instrumented(from, bytes, 1, AccessKind::read, __builtin_return_address(0));
  instrumented(to, bytes, 1, AccessKind::write, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
void* lathe_emulated_memset(void* to, int value, std::size_t bytes) {
  instrumented(to, bytes, 1, AccessKind::write, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}

}  // extern "C"
#pragma GCC visibility pop
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
