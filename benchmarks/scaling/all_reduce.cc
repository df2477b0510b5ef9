// What a sum over CPU ranks takes, bucket by bucket, as training asks for it: an input of benchmarks/scaling/check.py.
//     mpirun -np 2 lathe_all_reduce_benchmark ROUNDS BYTES...
// Rank 0 prints one object: for each round the seconds from a barrier to the last bucket's sum, of the rank that was last.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/mpi_session.h"
#include "lathe/runtime/tensor.h"

namespace {

using Clock = std::chrono::steady_clock;

std::int64_t number(const char* text) {
  std::size_t end = 0;
  const std::int64_t value = std::stoll(text, &end);
  if (end != std::strlen(text) || value < 1) throw lathe::UsageError(fmt::format("{} is no number above 0", text));
  return value;
}

int measure(int argc, char** argv) {
  if (argc < 3) throw lathe::UsageError("usage: lathe_all_reduce_benchmark ROUNDS BYTES...");
  const std::int64_t rounds = number(argv[1]);
  std::vector<std::int64_t> buckets;
  std::int64_t elements = 0;
  for (int i = 2; i < argc; ++i) {
    buckets.push_back(number(argv[i]) / static_cast<std::int64_t>(sizeof(float)));
    elements += buckets.back();
  }
  const lathe::MpiSession mpi;
  const auto ranks = lathe::make_mpi_communicator({});
  const lathe::Tensor gradients = lathe::Tensor::zeros(lathe::Device::cpu({}), lathe::DType::f32, lathe::Shape{elements});
  std::vector<double> seconds;
  // Two rounds that don't count: the first touch of all memory.
  for (std::int64_t round = -2; round < rounds; ++round) {
    ranks->barrier();
    const auto begin = Clock::now();
    std::int64_t at = 0;
    for (const std::int64_t bucket : buckets) {
      ranks->all_reduce_sum(gradients.view(at, lathe::Shape{bucket}));
      at += bucket;
    }
    const double taken = std::chrono::duration<double>(Clock::now() - begin).count();
    double last = 0.0;
    for (const std::string& of_rank : ranks->gather({reinterpret_cast<const char*>(&taken), sizeof(taken)})) {
      double theirs = 0.0;
      std::memcpy(&theirs, of_rank.data(), sizeof(theirs));
      last = std::max(last, theirs);
    }
    if (round >= 0) seconds.push_back(last);
  }
  if (ranks->rank() == 0) {
    fmt::print("{{\"ranks\": {}, \"transport\": \"{}\", \"bytes\": {}, \"seconds\": [{}]}}\n", ranks->size(), ranks->transport(),
               elements * static_cast<std::int64_t>(sizeof(float)), fmt::join(seconds, ", "));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return measure(argc, argv);
  } catch (const std::exception& failure) {
    fmt::print(stderr, "lathe_all_reduce_benchmark: {}\n", failure.what());
    return 2;
  }
}
