#include "lathe/runtime/memory_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lathe/runtime/address_poison.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kGuard = 64;
constexpr std::size_t kHolesExpected = 4096;

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

MemoryPool::MemoryPool(std::unique_ptr<MemorySource> source, std::string advice)
    : source_(std::move(source)), advice_(std::move(advice)) {
  holes_.reserve(kHolesExpected);
  unused_.reserve(kHolesExpected);
}

std::vector<MemoryPool::Hole>::iterator MemoryPool::find_hole(std::int64_t bytes) {
  const auto fits = [bytes](const Hole& hole) { return hole.bytes >= bytes; };
  const auto hole = std::ranges::find_if(holes_, fits);
  if (hole != holes_.end()) return hole;
  const std::span<std::byte> piece = source_->grow(bytes + kAlignment);
  if (piece.empty()) return holes_.end();
  // The last line of a piece stays out, so that holes of neighbouring pieces are never joined.
  const Hole grown{piece.data(), std::ssize(piece) / kAlignment * kAlignment - kAlignment};
  return holes_.insert(std::ranges::upper_bound(holes_, grown.begin, {}, &Hole::begin), grown);
}

Storage::Block* MemoryPool::take(std::int64_t bytes) {
  const std::scoped_lock lock(mutex_);
  // A guard of one line between blocks: what a kernel writes past its end is seen by AddressSanitizer.
  const std::int64_t granted = (std::max<std::int64_t>(bytes, 1) + kGuard + kAlignment - 1) / kAlignment * kAlignment;
  const auto hole = find_hole(granted);
  if (hole == holes_.end() || !source_->admit(bytes, hole->begin + granted)) refuse(bytes);
  Storage::Block* block = nullptr;
  if (unused_.empty()) {
    block = &blocks_.emplace_back();
    block->pool = this;
  } else {
    block = unused_.back();
    unused_.pop_back();
  }
  block->bytes = bytes;
  block->granted = granted;
  block->data = hole->begin;
  block->references.store(1, std::memory_order_relaxed);
  hole->begin += granted;
  hole->bytes -= granted;
  if (hole->bytes == 0) holes_.erase(hole);
  use_.now += granted;
  use_.peak = std::max(use_.peak, use_.now);
  if (source_->is_real()) {
    unpoison(block->data, bytes);
    poison(block->data + bytes, granted - bytes);
  }
  return block;
}

void MemoryPool::give_back(Storage::Block* block) noexcept {
  const std::scoped_lock lock(mutex_);
  if (source_->is_real()) poison(block->data, block->granted);
  use_.now -= block->granted;
  const std::byte* end = block->data + block->granted;
  const auto after = std::ranges::lower_bound(holes_, end, {}, &Hole::begin);
  const bool joins_after = after != holes_.end() && after->begin == end;
  const bool joins_before = after != holes_.begin() && std::prev(after)->begin + std::prev(after)->bytes == block->data;
  if (joins_before) {
    std::prev(after)->bytes += block->granted + (joins_after ? after->bytes : 0);
    if (joins_after) holes_.erase(after);
  } else if (joins_after) {
    after->begin = block->data;
    after->bytes += block->granted;
  } else {
    holes_.insert(after, {block->data, block->granted});
  }
  unused_.push_back(block);
}

MemoryUse MemoryPool::use() const {
  const std::scoped_lock lock(mutex_);
  return use_;
}

std::int64_t MemoryPool::count_free() const {
  std::int64_t free = 0;
  for (const Hole& hole : holes_) free += hole.bytes;
  return free;
}

std::int64_t MemoryPool::free() const {
  const std::scoped_lock lock(mutex_);
  return count_free();
}

std::int64_t MemoryPool::available() const {
  const std::scoped_lock lock(mutex_);
  return source_->available(count_free());
}

void MemoryPool::refuse(std::int64_t bytes) const {
  const std::int64_t available = source_->available(count_free());
  throw OutOfMemoryError(fmt::format("no memory for a tensor of {:.1f} MiB: tensors have {:.1f} MiB and {:.1f} MiB are free; {}",
                                     mebibytes(bytes), mebibytes(use_.now), mebibytes(available), advice_),
                         bytes, available);
}

}  // namespace lathe
