#include "lathe/kernels/emulation/running.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <system_error>

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
  return ++last;
}

std::string to_string(std::source_location where) { return source_name(where.file_name()) + ":" + std::to_string(where.line()); }

std::string place_of(const Running& run, std::uint32_t thread) {
  return function_name(run.kernel.function) + ", block " + triple(index_in(run.kernel.shape.grid, thread / run.threads)) +
         ", thread " + triple(index_in(run.kernel.shape.block, thread % run.threads));
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
      fail(FaultKind::barrier, "ended while others wait in __syncthreads() at " + to_string(barrier_where_) +
                                   ": every thread of the block must reach it");
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

void Running::fail(FaultKind kind, const std::string& message) {
  const std::string text =
      current != nullptr ? place_of(*this, thread()) + ": " + message : function_name(kernel.function) + ": " + message;
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
    warp.tick = 1;
    warp.clock.fill(1);
    for (auto& row : warp.known) row.fill(0);
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
      thread.context = context::jump_fcontext(thread.context, this).fctx;
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

void Running::report_deadlock() {
  running = nullptr;
  const std::vector<Thread>& pool = thread_pool(threads);
  // A lane that waits for others of its warp explains more than the threads that wait for it in a barrier.
  const Thread* waiting = nullptr;
  for (unsigned i = 0; i < threads; ++i) {
    const Thread& thread = pool[i];
    if (thread.done) continue;
    if (waiting == nullptr || (waiting->wait.what == "__syncthreads" && thread.wait.what != "__syncthreads")) waiting = &thread;
  }
  current = nullptr;
  const bool barrier = waiting->wait.what == "__syncthreads";
  std::string text = place_of(*this, block_number * threads + waiting->number) + ": waits in " + std::string(waiting->wait.what) +
                     " at " + to_string(waiting->wait.where);
  for (unsigned i = 0; i < threads; ++i) {
    const Thread& thread = pool[i];
    const bool awaited =
        barrier || (i / kWarpLanes == waiting->number / kWarpLanes && thread.wait.generation != waiting->wait.generation);
    if (&thread == waiting || !awaited || thread.wait.generation == waiting->wait.generation) continue;
    text += "; thread " + triple(thread.index) +
            (thread.done ? " has ended" : " waits in " + std::string(thread.wait.what) + " at " + to_string(thread.wait.where));
    break;
  }
  throw Fault(barrier ? FaultKind::barrier : FaultKind::warp, text);
}

void Running::sync_block(std::source_location where) {
  if (live_ != threads)
    fail(FaultKind::barrier, "waits in __syncthreads() at " + to_string(where) + ", which a thread that has ended did not reach");
  if (barrier_arrived_ > 0 && where.line() != barrier_where_.line()) {
    fail(FaultKind::barrier,
         "reached __syncthreads() at " + to_string(where) + " while others wait in the one at " + to_string(barrier_where_));
  }
  barrier_where_ = where;
  if (++barrier_arrived_ == threads) {
    barrier_arrived_ = 0;
    ++barrier_generation_;
    serial = next_serial();
    if (profiler != nullptr) profiler->count_barrier(where);
    return;
  }
  wait({&barrier_generation_, barrier_generation_, "__syncthreads", where});
}

const std::array<std::array<std::byte, Rendezvous::kSlot>, kWarpLanes>& Running::meet(unsigned mask, const void* data,
                                                                                      std::size_t bytes, std::string_view what,
                                                                                      std::source_location where) {
  Warp& own = warp();
  if ((mask >> lane() & 1U) == 0)
    fail(FaultKind::warp, std::string(what) + " at " + to_string(where) + " with a mask that lacks the calling lane");
  if ((mask & ~own.lanes) != 0)
    fail(FaultKind::warp, std::string(what) + " at " + to_string(where) + " with a mask of lanes that the block does not have");
  if ((mask & own.done) != 0)
    fail(FaultKind::warp, std::string(what) + " at " + to_string(where) + " with a lane in its mask that has ended");
  Rendezvous* meeting = nullptr;
  for (const auto& each : own.meetings) {
    if (each->mask == mask) meeting = each.get();
    if (each->mask != mask && (each->mask & mask) != 0 && each->arrived > 0) {
      fail(FaultKind::warp, std::string(what) + " at " + to_string(where) + " while other lanes of its mask wait in " +
                                std::string(each->what) + " at " + to_string(each->where) + " with another mask");
    }
  }
  if (meeting == nullptr) {
    own.meetings.push_back(std::make_unique<Rendezvous>());
    meeting = own.meetings.back().get();
    meeting->mask = mask;
  }
  if (meeting->arrived == 0) {
    meeting->what = what;
    meeting->where = where;
  } else if (meeting->what != what || meeting->where.line() != where.line()) {
    fail(FaultKind::warp, "reached " + std::string(what) + " at " + to_string(where) + " while other lanes of its warp wait in " +
                              std::string(meeting->what) + " at " + to_string(meeting->where));
  }
  const std::uint64_t generation = meeting->generation;
  auto& slots = meeting->slots[generation % 2];
  std::copy_n(static_cast<const std::byte*>(data), bytes, slots[lane()].begin());
  meeting->arrived |= 1U << lane();
  if (meeting->arrived == mask) {
    meeting->arrived = 0;
    ++meeting->generation;
  } else {
    wait({&meeting->generation, generation, what, where});
  }
  return slots;
}

}  // namespace lathe::emulation
