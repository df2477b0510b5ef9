#pragma once
// What each rank of a job says of itself at the start, and what follows from it for all of them. Functions take the reports of all ranks, by
// rank, so that every rank comes to the same.
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/kernels/stream.h"
#include "lathe/runtime/processors.h"

namespace lathe {

struct RankReport {
  std::string host;
  int local_rank = 0;             ///< among the host's
  Processors processors;          ///< that the launcher left it
  int host_cores = 1;             ///< that it could have been left
  bool avx512 = false;            ///< whether its processor has x86-64-v4
  std::vector<std::string> gpus;  ///< that it sees, by UUID, in the order of their numbers
};
/// Of this process.
RankReport rank_report(const std::string& host, int local_rank);

/// As text, and back.
std::string to_text(const RankReport& report);
RankReport parse_rank_report(const std::string& text);

/// The threads that `rank` can have for itself, unless it is told: of a core that k ranks of a host may use it has 1/k, and of a control group's
/// quota its part.
ThreadChoice own_threads(std::span<const RankReport> reports, std::size_t rank);
/// The same for all ranks: the least that any can have. Ranks have equal work, so that more would wait for those.
ThreadChoice common_threads(std::span<const RankReport> reports, std::size_t rank);

/// What is wrong with how `launcher` has bound ranks to cores, with the option that helps: the first rank that has less than its fair share of
/// its host. Nothing where all have theirs.
std::optional<std::string> binding_fault(std::span<const RankReport> reports, const std::string& launcher);

/// The best instruction set that all ranks have; nothing where they have the same one.
std::optional<CpuTarget> lowest_target(std::span<const RankReport> reports);

/// The number of `rank`'s GPU among those that it sees: the one that is its local rank's beyond `first`, modulo their number; `first` itself
/// where it sees fewer. Throws UsageError where two ranks come to the same GPU.
int choose_gpu(std::span<const RankReport> reports, std::size_t rank, int first);

}  // namespace lathe
