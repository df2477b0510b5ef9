#include "lathe/training/data_parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "lathe/kernels/optimizer.h"
#include "lathe/runtime/content_hash.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

std::uint64_t hash_of(const ParameterArena& arena) {
  constexpr std::int64_t kPiece = std::int64_t{1} << 22;  // elements that are brought to the host at once
  ContentHash hash;
  const Tensor& weights = arena.master() ? arena.master() : arena.values();
  const auto add = [&]<class T>(std::vector<T> host) {
    for (std::int64_t at = 0; at < weights.size(); at += kPiece) {
      const Tensor piece = weights.view(at, Shape{std::min(kPiece, weights.size() - at)});
      host.resize(static_cast<std::size_t>(piece.size()));
      piece.copy_to<T>(host);
      hash.add(std::as_bytes(std::span(host)));
    }
  };
  if (weights.dtype() == DType::bf16) {
    add(std::vector<Bf16>());
  } else {
    add(std::vector<float>());
  }
  return hash.value();
}

}  // namespace

RankPart rank_part(const TokenizedSamples& samples, std::span<const std::int32_t> members, int rank, int size) {
  std::int64_t total = 0;
  for (const std::int32_t member : members) total += samples.length(member);
  // Sample i is the rank's whose share its middle lies in: 2 * (tokens before) + length against 2 * total * rank / size.
  const auto begin_of = [&](int r) {
    std::int64_t before = 0;
    std::size_t i = 0;
    for (; i < members.size(); ++i) {
      const std::int64_t length = samples.length(members[i]);
      if ((2 * before + length) * size >= 2 * total * r) break;
      before += length;
    }
    return r == size ? members.size() : i;
  };
  const std::size_t begin = begin_of(rank);
  return {.members = members.subspan(begin, begin_of(rank + 1) - begin), .first = static_cast<std::int32_t>(begin)};
}

RankPart rank_part(const TokenizedSamples& samples, std::span<const std::int32_t> members, const Communicator* communicator) {
  if (communicator == nullptr) return {.members = members};
  return rank_part(samples, members, communicator->rank(), communicator->size());
}

void sum_over_ranks(Communicator* communicator, std::span<double> numbers) {
  if (communicator == nullptr) return;
  const auto bytes = std::as_bytes(numbers);
  const auto all = communicator->gather({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::ranges::fill(numbers, 0.0);
  for (const std::string& of_rank : all) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      double number = 0.0;
      std::memcpy(&number, of_rank.data() + i * sizeof(number), sizeof(number));
      numbers[i] += number;
    }
  }
}

GradientSum::GradientSum(Communicator* communicator, const ParameterArena& arena, std::int64_t bucket_bytes, ShardOptimizer shard)
    : communicator_(communicator), shard_(shard) {
  if (communicator != nullptr) buckets_.emplace(arena, bucket_bytes);
}

void GradientSum::follow(TrainingStep& step) {
  if (!buckets_) return;
  step.mark(*buckets_);
  marked_ = true;
}

void GradientSum::sum(const Tensor& bucket) {
  if (shard_ == ShardOptimizer::yes) return communicator_->reduce_scatter_sum(bucket, kArenaBlock);
  communicator_->all_reduce_sum(bucket);
}

void GradientSum::run() {
  if (communicator_ == nullptr) return;
  if (!marked_) communicator_->follow_device();
  for (std::size_t i = 0; i < buckets().size(); ++i) {
    if (marked_) communicator_->follow(buckets_->complete(i));
    reach(i, BucketMoment::begun);
    sum(buckets()[i]);
    reach(i, BucketMoment::ended);
  }
  communicator_->lead_device();
}

void check_same_weights(Communicator* communicator, const ParameterArena& arena, std::string_view when) {
  if (communicator == nullptr) return;
  const std::string mine = fmt::format("{:016x} {}", hash_of(arena), communicator->place().host);
  const auto all = communicator->gather(mine);
  const auto hash = [](const std::string& text) { return std::string_view(text).substr(0, text.find(' ')); };
  const auto host = [](const std::string& text) { return std::string_view(text).substr(text.find(' ') + 1); };
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (hash(all[rank]) == hash(all[0])) continue;
    throw MismatchError(fmt::format("{} rank {} (host {}) has other weights than rank 0 (host {}): hashes {} and {}", when, rank,
                                    host(all[rank]), host(all[0]), hash(all[rank]), hash(all[0])));
  }
}

void share_weights(Communicator* communicator, const ParameterSet& parameters) {
  if (communicator == nullptr) return;
  std::vector<float> values;
  for (const Parameter& parameter : parameters.all()) {
    values.resize(static_cast<std::size_t>(parameter.shape.size()));
    if (communicator->rank() == 0) get_values(parameter, values);
    communicator->broadcast(std::as_writable_bytes(std::span(values)), 0);
    if (communicator->rank() != 0) set_values(parameter, values);
  }
}

}  // namespace lathe
