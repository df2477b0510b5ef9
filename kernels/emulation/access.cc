// Every access of a kernel to memory arrives here: from the compiler's instrumentation, which believes to call ThreadSanitizer, and from
// kernels/device for what is wider.
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

const char* verb(AccessKind kind) {
  return kind == AccessKind::read ? "reads" : (kind == AccessKind::write ? "writes" : "updates atomically");
}

/// An access with all that a message needs.
class Judge {
 public:
  Judge(Running& run, const Touch& touch, const void* code)
      : run_(run), touch_(touch), code_(code), address_(reinterpret_cast<std::uintptr_t>(touch.address)) {}

  void judge() {
    if (touch_.aligned && address_ % touch_.bytes != 0)
      fail(FaultKind::misaligned, "must be a multiple of its " + std::to_string(touch_.bytes) + " bytes");
    const Range all = device_memory().range();
    if (all.contains(address_)) {
      if (touch_.space == Space::shared) fail(FaultKind::out_of_bounds, "is global memory, and must be shared");
      judge_global(address_ - all.begin);
    } else if (address_ - run_.dynamic_shared.begin < (std::size_t{1} << 20U)) {
      const std::uintptr_t offset = address_ - run_.dynamic_shared.begin;
      if (offset + touch_.bytes > run_.dynamic_shared.bytes) {
        fail(FaultKind::out_of_bounds,
             "is behind the block's " + std::to_string(run_.dynamic_shared.bytes) + " bytes of dynamic shared memory");
      }
      shared(dynamic_shadow(), offset, run_.dynamic_shared.bytes);
    } else if (run_.static_shared.contains(address_) &&
               thread_local_variable(run_.kernel.function, address_ - run_.static_shared.begin) != nullptr) {
      const std::uintptr_t offset = address_ - run_.static_shared.begin;
      const ThreadLocalVariable& variable = *thread_local_variable(run_.kernel.function, offset);
      if (offset + touch_.bytes > variable.offset + variable.bytes)
        fail(FaultKind::out_of_bounds, "reaches behind the end of " + variable.name);
      shared(static_shadow(), offset, run_.static_shared.bytes);
    } else {
      judge_other();
    }
  }

 private:
  void judge_other() {
    const Range own_stack{reinterpret_cast<std::uintptr_t>(run_.current->stack), kStackBytes};
    if (touch_.space == Space::any) {
      if (own_stack.contains(address_) || run_.arguments.contains(address_)) return;
      if (touch_.kind == AccessKind::read && is_constant(address_)) return;
    }
    if (run_.static_shared.contains(address_)) fail(FaultKind::out_of_bounds, "is no variable in shared memory");
    const std::vector<Thread>& pool = thread_pool(run_.threads);
    for (unsigned i = 0; i < run_.threads; ++i) {
      if (Range{reinterpret_cast<std::uintptr_t>(pool[i].stack), kStackBytes}.contains(address_)) {
        fail(FaultKind::host_pointer,
             own_stack.contains(address_) ? "is a local variable" : "is a local variable of another thread");
      }
    }
    fail(FaultKind::host_pointer, "is host memory, which no kernel can reach");
  }

  void judge_global(std::uintptr_t offset) {
    DeviceMemory& memory = device_memory();
    for_cells(offset, [&](std::uintptr_t cell, std::uint8_t mask) {
      std::uint8_t& state = memory.states()[cell];
      if ((state & kAllocated) == 0) fail(FaultKind::out_of_bounds, "is in no allocation");
      if (touch_.kind != AccessKind::write && (state & mask) != mask) fail(FaultKind::uninitialised, "was never written");
      Cell& entry = memory.cells()[cell];
      ordered(entry.write, mask, "write");
      if (touch_.kind == AccessKind::read) {
        remember_read(entry.read, mask);
      } else {
        ordered(entry.read, mask, "read");
        remember_write(entry, mask);
        state |= mask;
      }
    });
    if (run_.profiler != nullptr) run_.profiler->count(Profiler::Memory::global, address_, touch_.bytes, touch_.kind, code_);
  }

  void shared(SharedShadow& shadow, std::uintptr_t offset, std::size_t whole) {
    shadow.reach(whole);
    for_cells(offset, [&](std::uintptr_t cell, std::uint8_t mask) {
      Cell& entry = shadow.cells[cell];
      std::uint8_t& state = shadow.states[cell];
      const bool written = entry.write.serial >= run_.block_began;
      if (!written) {
        state = 0;
        if (entry.read.serial < run_.block_began) entry.read = {};
        entry.write = {};
      }
      if ((state & kInFlight) != 0 && written) {
        fail(FaultKind::async_copy,
             "is the destination of the cp.async at " + line_of(entry.write.code) + ", which has not been waited for");
      }
      if (touch_.kind != AccessKind::write && (state & mask) != mask)
        fail(FaultKind::uninitialised, "was never written by this block");
      ordered(entry.write, mask, "write");
      if (touch_.kind == AccessKind::read) {
        remember_read(entry.read, mask);
      } else {
        ordered(entry.read, mask, "read");
        remember_write(entry, mask);
        state |= mask;
      }
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
      visit(cell, static_cast<std::uint8_t>((low ? 1 : 0) | (high ? 2 : 0)));
    }
  }

  /// Fails unless what `before` remembers happened before this access, or is of the same thread.
  void ordered(const Access& before, std::uint8_t mask, const char* noun) {
    if (before.serial == 0 || (before.bytes & mask) == 0) return;
    if (before.serial < run_.began) {
      if (before.serial != checked_) {
        if (const auto reason = not_ordered_before_operation(before))
          fail(FaultKind::stream_order, "is what " + *reason + " " + noun + "s");
        checked_ = before.serial;
      }
      return;
    }
    if (before.atomic != 0 && touch_.kind == AccessKind::atomic) return;
    const std::uint32_t self = run_.thread();
    if (before.scope == Scope::thread && before.thread == self) return;
    const bool same_block = before.scope != Scope::grid && before.thread / run_.threads == run_.block_number;
    if (same_block && before.serial < run_.serial) return;  // a barrier lies between
    const unsigned other = before.thread % run_.threads;
    const unsigned own = self % run_.threads;
    if (same_block && before.scope != Scope::block && other / kWarpLanes == own / kWarpLanes) {
      const Warp& warp = run_.warp();
      if (before.scope == Scope::thread && warp.known[own % kWarpLanes][other % kWarpLanes] >= before.clock) return;
      bool all = before.scope == Scope::warp;
      for (unsigned lane = 0; lane < kWarpLanes && all; ++lane) {
        all = lane == own % kWarpLanes || (warp.lanes >> lane & 1U) == 0 || warp.known[own % kWarpLanes][lane] >= before.clock;
      }
      if (all) return;
    }
    const std::string who = before.scope == Scope::thread ? place_of(run_, before.thread) : "other threads";
    fail(FaultKind::race,
         "collides with the " + std::string(noun) + " by " + who + " at " + line_of(before.code) + ": no barrier lies between");
  }

  void remember_write(Cell& entry, std::uint8_t mask) {
    const Access now{.serial = run_.serial,
                     .thread = run_.thread(),
                     .code = low_half(code_),
                     .clock = run_.warp().clock[run_.lane()],
                     .bytes = mask,
                     .scope = Scope::thread,
                     .atomic = static_cast<std::uint8_t>(touch_.kind == AccessKind::atomic ? 1 : 0)};
    const bool same = entry.write.serial == now.serial && entry.write.thread == now.thread && entry.write.clock == now.clock;
    const std::uint8_t before = same ? entry.write.bytes : std::uint8_t{0};
    entry.write = now;
    entry.write.bytes |= before;
    if ((entry.read.bytes & ~mask) == 0) entry.read = {};
  }

  void remember_read(Access& read, std::uint8_t mask) {
    const Access now{.serial = run_.serial,
                     .thread = run_.thread(),
                     .code = low_half(code_),
                     .clock = run_.warp().clock[run_.lane()],
                     .bytes = mask,
                     .scope = Scope::thread,
                     .atomic = 0};
    if (read.serial < run_.began) {  // of an earlier operation, which is ordered or will be judged by a writer of that
      read = now;
      return;
    }
    const std::uint8_t bytes = read.bytes | mask;
    const bool same_block = read.scope != Scope::grid && read.thread / run_.threads == run_.block_number;
    if (!same_block) {
      read = now;
      read.scope = Scope::grid;
    } else if (read.serial < run_.serial || (read.scope == Scope::thread && read.thread == now.thread)) {
      read = now;
    } else if (read.scope != Scope::block && read.thread % run_.threads / kWarpLanes == now.thread % run_.threads / kWarpLanes) {
      read = now;
      read.scope = Scope::warp;
    } else {
      read = now;
      read.scope = Scope::block;
    }
    read.bytes = bytes;
  }

  [[noreturn]] void fail(FaultKind kind, const std::string& why) {
    const auto* run = &run_;
    std::string place;
    if (device_memory().contains(touch_.address)) {
      place = device_memory().describe(address_);
    } else if (address_ - run->dynamic_shared.begin < (std::size_t{1} << 20U)) {
      place = "byte " + std::to_string(address_ - run->dynamic_shared.begin) + " of dynamic shared memory";
    } else if (const ThreadLocalVariable* variable =
                   run->static_shared.contains(address_)
                       ? thread_local_variable(run->kernel.function, address_ - run->static_shared.begin)
                       : nullptr) {
      place = "byte " + std::to_string(address_ - run->static_shared.begin - variable->offset) + " of " + variable->name +
              " in shared memory";
    } else {
      char text[32];
      std::snprintf(text, sizeof(text), "0x%zx", static_cast<std::size_t>(address_));
      place = text;
    }
    run_.fail(kind, std::string(verb(touch_.kind)) + " " + std::to_string(touch_.bytes) + " bytes at " +
                        line_of(low_half(code_)) + ": " + place + ", " + why);
  }

  static std::uint32_t low_half(const void* code) { return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(code)); }
  static std::string line_of(std::uint32_t code) { return source_line(code); }

  Running& run_;
  const Touch& touch_;
  const void* code_;
  std::uintptr_t address_;
  static thread_local Serial checked_;
};
thread_local Serial Judge::checked_ = 0;

}  // namespace

void watch(const Touch& touch, const void* code) { Judge(*running, touch, code).judge(); }

void landed(const AsyncCopy& copy) {
  Running& run = *running;
  const auto address = reinterpret_cast<std::uintptr_t>(copy.to);
  const bool dynamic = run.dynamic_shared.contains(address);
  SharedShadow& shadow = dynamic ? dynamic_shadow() : static_shadow();
  const std::uintptr_t offset = address - (dynamic ? run.dynamic_shared.begin : run.static_shared.begin);
  for (std::uintptr_t cell = offset / 2; cell * 2 < offset + copy.bytes; ++cell) {
    shadow.states[cell] &= static_cast<std::uint8_t>(~kInFlight);
    shadow.cells[cell].write.serial = run.serial;
    shadow.cells[cell].write.clock = run.warp().clock[run.lane()];
  }
}

void load(void* to, const void* from, std::size_t bytes) {
  if (running != nullptr)
    watch({.address = from, .bytes = bytes, .kind = AccessKind::read, .aligned = true}, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void store(void* to, const void* from, std::size_t bytes) {
  if (running != nullptr)
    watch({.address = to, .bytes = bytes, .kind = AccessKind::write, .aligned = true}, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void atomic_begin(void* old, const void* address, std::size_t bytes) {
  watch({.address = address, .bytes = bytes, .kind = AccessKind::atomic, .aligned = true}, __builtin_return_address(0));
  std::memcpy(old, address, bytes);
}

void atomic_end(void* address, const void* value, std::size_t bytes) { std::memcpy(address, value, bytes); }

namespace {

void instrumented(const void* address, std::size_t bytes, AccessKind kind, const void* code) {
  Running* run = running;
  if (run == nullptr || run->current == nullptr) return;
  // A thread's own stack is touched most; nothing there needs judgement.
  if (reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(run->current->stack) < kStackBytes) return;
  watch({.address = address, .bytes = bytes, .kind = kind}, code);
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
void __tsan_read1(void* p) { instrumented(p, 1, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read2(void* p) { instrumented(p, 2, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read4(void* p) { instrumented(p, 4, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read8(void* p) { instrumented(p, 8, AccessKind::read, __builtin_return_address(0)); }
void __tsan_read16(void* p) { instrumented(p, 16, AccessKind::read, __builtin_return_address(0)); }
void __tsan_write1(void* p) { instrumented(p, 1, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write2(void* p) { instrumented(p, 2, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write4(void* p) { instrumented(p, 4, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write8(void* p) { instrumented(p, 8, AccessKind::write, __builtin_return_address(0)); }
void __tsan_write16(void* p) { instrumented(p, 16, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_read2(void* p) { instrumented(p, 2, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_read4(void* p) { instrumented(p, 4, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_read8(void* p) { instrumented(p, 8, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_read16(void* p) { instrumented(p, 16, AccessKind::read, __builtin_return_address(0)); }
void __tsan_unaligned_write2(void* p) { instrumented(p, 2, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_write4(void* p) { instrumented(p, 4, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_write8(void* p) { instrumented(p, 8, AccessKind::write, __builtin_return_address(0)); }
void __tsan_unaligned_write16(void* p) { instrumented(p, 16, AccessKind::write, __builtin_return_address(0)); }
void __tsan_read_range(void* p, std::size_t bytes) { instrumented(p, bytes, AccessKind::read, __builtin_return_address(0)); }
void __tsan_write_range(void* p, std::size_t bytes) { instrumented(p, bytes, AccessKind::write, __builtin_return_address(0)); }

// prelude.h sends instrumented code's calls of memcpy, memmove and memset here.
void* lathe_emulated_memcpy(void* to, const void* from, std::size_t bytes) {
  instrumented(from, bytes, AccessKind::read, __builtin_return_address(0));
  instrumented(to, bytes, AccessKind::write, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
void* lathe_emulated_memset(void* to, int value, std::size_t bytes) {
  instrumented(to, bytes, AccessKind::write, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}

}  // extern "C"
#pragma GCC visibility pop
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
