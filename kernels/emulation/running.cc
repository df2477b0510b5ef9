#include "lathe/kernels/emulation/running.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "lathe/kernels/emulation/collective.h"
#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/profiler.h"
#include "lathe/kernels/emulation/symbols.h"

namespace lathe::emulation {

namespace context = boost::context::detail;

constinit thread_local Running* running = nullptr;

namespace {

constexpr std::size_t kPage = 4096;

std::string triple(const cuda::uint3& at) { return fmt::format("({}, {}, {})", at.x, at.y, at.z); }

cuda::uint3 index_in(const cuda::dim3& extent, unsigned number) {
  return {number % extent.x, number / extent.x % extent.y, number / extent.x / extent.y};
}

std::vector<unsigned> sequence(unsigned count, Order order, std::mt19937& generator) {
  std::vector<unsigned> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0U);
  if (order == Order::reverse) std::reverse(numbers.begin(), numbers.end());
  if (order == Order::random) std::shuffle(numbers.begin(), numbers.end(), generator);
  return numbers;
}

/// What the emulated device's settings are; one device, as one GPU.
Settings& mutable_settings() {
  static Settings value;
  return value;
}

}  // namespace

const Settings& settings() { return mutable_settings(); }
Settings configure(const Settings& changed) { return std::exchange(mutable_settings(), changed); }

Serial next_serial() {
  static Serial last = 0;
  if (++last == 0)
    throw std::length_error("emulation: this process has run more barriers than can be told apart (4,294,967,295)");
  return last;
}

bool Place::same(const Place& other) const {
  if (where.line() != other.where.line() || what != other.what) return false;
  // Mostly the very same text.
  return where.file_name() == other.where.file_name() || std::string_view(where.file_name()) == other.where.file_name();
}

std::string Place::text() const { return fmt::format("{} at {}", what, source_line(low_half(code))); }

void Warp::join(unsigned mask) {
  if (mask == lanes) {
    settled = time;
  } else {
    std::array<std::uint32_t, kWarpLanes> joined{};
    for (unsigned a = 0; a < kWarpLanes; ++a) {
      if ((mask >> a & 1U) == 0) continue;
      for (unsigned b = 0; b < kWarpLanes; ++b) joined[b] = std::max(joined[b], known[a][b]);
    }
    for (unsigned a = 0; a < kWarpLanes; ++a) {
      if ((mask >> a & 1U) != 0) joined[a] = time;
    }
    for (unsigned a = 0; a < kWarpLanes; ++a) {
      if ((mask >> a & 1U) != 0) known[a] = joined;
    }
    partial = true;
  }
  // At its end time stands still: what follows counts as known too late, which may hide a race but never makes one up.
  if (time < kTimeAtMost) ++time;
}

void Warp::restart() {
  time = 1;
  settled = 0;
  if (partial) known = {};
  partial = false;
}

std::string place_of(const Running& run, std::uint32_t thread) {
  return fmt::format("{}, block {}, thread {}", function_name(run.kernel.function),
                     triple(index_in(run.kernel.shape.grid, thread / run.threads)),
                     triple(index_in(run.kernel.shape.block, thread % run.threads)));
}

std::vector<Thread>& thread_pool(std::size_t count) {
  thread_local std::vector<Thread> pool;
  while (pool.size() < count) {
    void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
      throw std::system_error(errno, std::generic_category(), "emulation: memory for the threads' stacks");
    mprotect(memory, kPage, PROT_NONE);
    Thread thread;
    thread.stack = static_cast<std::byte*>(memory) + kPage;
    pool.push_back(std::move(thread));
  }
  return pool;
}

Running::Running(const Kernel& launched, Serial operation_began, Profiler* counter)
    : kernel(launched),
      profiler(counter),
      memory(&device_memory()),
      began(operation_began),
      threads(launched.shape.block.x * launched.shape.block.y * launched.shape.block.z),
      arguments{reinterpret_cast<std::uintptr_t>(launched.bound.get()), launched.bound_bytes},
      dynamic_shared{reinterpret_cast<std::uintptr_t>(dynamic_shared_memory()), launched.shape.shared_bytes},
      static_shared(thread_local_range(launched.function)),
      warps((threads + kWarpLanes - 1) / kWarpLanes) {
  start_threads();
}

Running::~Running() { running = nullptr; }

void Running::start_threads() {
  std::vector<Thread>& pool = thread_pool(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Thread& thread = pool[i];
    thread.context = context::make_fcontext(thread.stack + kStackBytes, kStackBytes, enter);
    thread.index = index_in(kernel.shape.block, i);
    thread.number = i;
  }
}

void Running::enter(context::transfer_t from) {
  auto* run = static_cast<Running*>(from.data);
  run->scheduler_ = from.fctx;
  run->run_thread();
}

void Running::run_thread() {
  // The thread's stack serves block after block; it is left for good with the launch.
  for (;;) {
    kernel.enter(kernel.bound.get());
    Thread& self = *current;
    while (!self.groups.empty() || !self.open.empty()) {
      if (!self.open.empty()) copy_async_commit();
      copy_async_wait(0);
    }
    if (barrier_arrived_ > 0) {
      fail(FaultKind::barrier,
           fmt::format("has ended while others wait in {}, which every thread of the block must reach", barrier_place_.text()));
    }
    self.done = true;
    --live_;
    warp().done |= 1U << lane();
    scheduler_ = context::jump_fcontext(scheduler_, nullptr).fctx;
  }
}

void Running::wait(const Wait& until) {
  current->wait = until;
  scheduler_ = context::jump_fcontext(scheduler_, nullptr).fctx;
}

void Running::call_on_host(const std::function<void()>& work) {
  Thread* const caller = std::exchange(current, nullptr);  // nothing is watched meanwhile
  // A fiber hands over what isn't const to it; the scheduler reads it alone.
  scheduler_ = context::jump_fcontext(scheduler_, const_cast<std::function<void()>*>(&work)).fctx;
  current = caller;
}

void on_deep_stack(const std::function<void()>& work) {
  if (running != nullptr && running->current != nullptr) {
    running->call_on_host(work);
  } else {
    work();
  }
}

void Running::fail(FaultKind kind, const std::string& message) {
  const std::string text =
      fmt::format("{}: {}", current != nullptr ? place_of(*this, thread()) : function_name(kernel.function), message);
  if (current == nullptr) throw Fault(kind, text);
  fault_.emplace(kind, text);
  // A kernel owns nothing that must be given back: its threads are left where they stand.
  context::jump_fcontext(scheduler_, nullptr);
  std::abort();
}

void Running::run() {
  running = this;
  std::mt19937 generator(settings().seed);
  const cuda::dim3& grid = kernel.shape.grid;
  for (const unsigned number : sequence(grid.x * grid.y * grid.z, settings().blocks, generator)) {
    block_number = number;
    first_thread = number * threads;
    block = index_in(grid, number);
    run_block();
  }
  running = nullptr;
}

void Running::run_block() {
  serial = block_began = next_serial();
  std::fill_n(static_cast<std::byte*>(dynamic_shared_memory()), kernel.shape.shared_bytes, std::byte{0xFF});
  std::vector<Thread>& pool = thread_pool(threads);
  live_ = threads;
  barrier_arrived_ = 0;
  for (unsigned i = 0; i < threads; ++i) {
    pool[i].done = false;
    pool[i].wait = {};
  }
  for (unsigned w = 0; w < warps.size(); ++w) {
    const unsigned count = std::min(kWarpLanes, threads - w * kWarpLanes);
    Warp& warp = warps[w];
    warp.lanes = count == kWarpLanes ? ~0U : (1U << count) - 1U;
    warp.done = 0;
    warp.restart();
    for (const auto& meeting : warp.meetings) meeting->arrived = 0;
  }

  std::mt19937 generator(settings().seed + block_number);
  std::vector<unsigned> order = sequence(threads, settings().threads, generator);
  while (live_ > 0) {
    if (settings().threads == Order::random) std::shuffle(order.begin(), order.end(), generator);
    bool progress = false;
    for (const unsigned i : order) {
      Thread& thread = pool[i];
      if (thread.done || (thread.wait.generation != nullptr && *thread.wait.generation == thread.wait.value)) continue;
      thread.wait = {};
      progress = true;
      current = &thread;
      context::transfer_t back = context::jump_fcontext(thread.context, this);
      while (back.data != nullptr) {  // call_on_host()
        (*static_cast<const std::function<void()>*>(back.data))();
        back = context::jump_fcontext(back.fctx, nullptr);
      }
      thread.context = back.fctx;
      if (fault_) {
        running = nullptr;
        throw Fault(*fault_);
      }
    }
    if (!progress) report_deadlock();
  }
  current = nullptr;
  if (profiler != nullptr) profiler->end_block();
}

std::string Running::standing(const Thread& thread) const {
  return fmt::format(
      "thread {}, which {}", triple(thread.index),
      thread.done ? "has ended" : (thread.wait.generation == nullptr ? "runs" : "waits in " + thread.wait.place.text()));
}

std::string Running::missing(unsigned warp, unsigned lanes) const {
  return standing(thread_pool(threads)[warp * kWarpLanes + static_cast<unsigned>(std::countr_zero(lanes))]);
}

void Running::report_deadlock() {
  running = nullptr;
  // Threads wait for the block's barrier, and others for lanes of their warp that wait for it: the lanes explain more. Somebody does wait for
  // lanes, or the barrier would have been reached or missed.
  const std::vector<Thread>& pool = thread_pool(threads);
  const auto waiting = std::find_if(pool.begin(), pool.begin() + threads,
                                    [](const Thread& thread) { return !thread.done && thread.wait.meeting != nullptr; });
  const Rendezvous& meeting = *waiting->wait.meeting;
  current = nullptr;
  throw Fault(FaultKind::warp, fmt::format("{}: waits in {} with the mask {:#010x} for {}",
                                           place_of(*this, first_thread + waiting->number), waiting->wait.place.text(),
                                           meeting.mask, missing(waiting->number / kWarpLanes, meeting.mask & ~meeting.arrived)));
}

void Running::sync_block(const Place& place) {
  if (live_ != threads) {
    const std::vector<Thread>& pool = thread_pool(threads);
    const auto ended = std::find_if(pool.begin(), pool.begin() + threads, [](const Thread& thread) { return thread.done; });
    fail(FaultKind::barrier, fmt::format("waits in {} for {}", place.text(), standing(*ended)));
  }
  if (barrier_arrived_ > 0 && !place.same(barrier_place_))
    fail(FaultKind::barrier, fmt::format("has reached {} while others wait in {}", place.text(), barrier_place_.text()));
  barrier_place_ = place;
  if (++barrier_arrived_ == threads) {
    barrier_arrived_ = 0;
    ++barrier_generation_;
    serial = next_serial();
    for (Warp& each : warps) each.restart();
    if (profiler != nullptr) profiler->count_barrier(place.code);
    return;
  }
  wait({.generation = &barrier_generation_, .value = barrier_generation_, .place = place});
}

const Rendezvous::Slots& Running::meet(unsigned mask, const void* data, std::size_t bytes, const Place& place,
                                       void (*last)(Running& run, unsigned mask, Rendezvous::Slots& slots)) {
  Warp& own = warp();
  if ((mask >> lane() & 1U) == 0)
    fail(FaultKind::warp, fmt::format("comes to {} with the mask {:#010x}, which lacks its own lane", place.text(), mask));
  if ((mask & ~own.lanes) != 0) {
    fail(FaultKind::warp,
         fmt::format("comes to {} with the mask {:#010x}; its warp has the lanes {:#010x}", place.text(), mask, own.lanes));
  }
  if ((mask & own.done) != 0) {
    fail(FaultKind::warp, fmt::format("waits in {} with the mask {:#010x} for {}", place.text(), mask,
                                      missing(current->number / kWarpLanes, mask & own.done)));
  }
  Rendezvous* meeting = nullptr;
  for (const auto& each : own.meetings) {
    if (each->mask == mask) meeting = each.get();
  }
  if (meeting == nullptr) {
    own.meetings.push_back(std::make_unique<Rendezvous>());
    meeting = own.meetings.back().get();
    meeting->mask = mask;
  }
  if (meeting->arrived == 0) {
    meeting->place = place;
  } else if (!meeting->place.same(place)) {
    fail(FaultKind::warp,
         fmt::format("has reached {} while other lanes of its warp wait in {}", place.text(), meeting->place.text()));
  }
  const std::uint64_t generation = meeting->generation;
  auto& slots = meeting->slots[generation % 2];
  std::memcpy(slots[lane()].data(), data, bytes);
  meeting->arrived |= 1U << lane();
  if (meeting->arrived == mask) {
    if (last != nullptr) last(*this, mask, slots);
    meeting->arrived = 0;
    ++meeting->generation;
  } else {
    wait({.generation = &meeting->generation, .value = generation, .place = place, .meeting = meeting});
  }
  return slots;
}

}  // namespace lathe::emulation
