#include "tools/rank_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "lathe/kernels/cpu_target.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Json = nlohmann::json;

bool has_avx512() {
  try {
    return best_cpu_target() == CpuTarget::v4;
  } catch (const std::exception&) {
    return false;  // who uses the CPU will be told why it can't be
  }
}

std::vector<std::string> visible_uuids() {
  try {
    return Device::visible_gpu_uuids();
  } catch (const Error&) {
    return {};  // likewise
  }
}

std::ptrdiff_t ranks_on(std::span<const RankReport> reports, const std::string& host) {
  return std::ranges::count(reports, host, &RankReport::host);
}

/// A rank's part of the cores in its affinity mask.
struct Part {
  double cores = 0.0;
  std::ptrdiff_t sharing = 1;  // ranks on the core that most are on
};
Part part_of(std::span<const RankReport> reports, std::size_t rank) {
  const RankReport& mine = reports[rank];
  Part part;
  for (const int core : mine.processors.cores) {
    const std::ptrdiff_t sharing = std::ranges::count_if(reports, [&](const RankReport& other) {
      return other.host == mine.host && std::ranges::binary_search(other.processors.cores, core);
    });
    part.cores += 1.0 / static_cast<double>(sharing);
    part.sharing = std::max(part.sharing, sharing);
  }
  return part;
}

/// Whole cores; thirds of three add up to one.
int whole(double cores) { return static_cast<int>(cores + 1e-6); }

int sharing_quota(std::span<const RankReport> reports, const RankReport& mine) {
  return static_cast<int>(std::ranges::count_if(reports, [&](const RankReport& other) {
    return other.host == mine.host && other.processors.quota == mine.processors.quota &&
           other.processors.quota_group == mine.processors.quota_group;
  }));
}

std::string counted_cores(std::size_t count) { return fmt::format("{} core{}", count, count == 1 ? "" : "s"); }

/// What a launcher is to be told so that each rank gets so many cores.
std::string binding_options(const std::string& launcher, int cores) {
  if (launcher == "srun") return fmt::format("srun --cpus-per-task={}, or --cpu-bind=none", cores);
  if (launcher == "mpiexec") return "mpiexec -bind-to none";
  return fmt::format("mpirun --bind-to none, or --map-by slot:PE={}", cores);
}

}  // namespace

RankReport rank_report(const std::string& host, int local_rank) {
  return {.host = host,
          .local_rank = local_rank,
          .processors = available_processors(),
          .host_cores = reachable_cores(),
          .avx512 = has_avx512(),
          .gpus = visible_uuids()};
}

std::string to_text(const RankReport& report) {
  Json json = {{"host", report.host},
               {"local_rank", report.local_rank},
               {"cores", report.processors.cores},
               {"quota_group", report.processors.quota_group},
               {"host_cores", report.host_cores},
               {"avx512", report.avx512},
               {"gpus", report.gpus}};
  if (report.processors.quota) json["quota"] = *report.processors.quota;
  if (report.processors.openmp_threads) json["openmp_threads"] = *report.processors.openmp_threads;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankReport parse_rank_report(const std::string& text) {
  const Json json = Json::parse(text);
  RankReport report{
      .host = json.at("host"),
      .local_rank = json.at("local_rank"),
      .processors = {.cores = json.at("cores"), .quota = {}, .quota_group = json.at("quota_group"), .openmp_threads = {}},
      .host_cores = json.at("host_cores"),
      .avx512 = json.at("avx512"),
      .gpus = json.at("gpus")};
  if (json.contains("quota")) report.processors.quota = json["quota"].get<double>();
  if (json.contains("openmp_threads")) report.processors.openmp_threads = json["openmp_threads"].get<int>();
  return report;
}

ThreadChoice own_threads(std::span<const RankReport> reports, std::size_t rank) {
  const RankReport& mine = reports[rank];
  const Part part = part_of(reports, rank);
  const std::size_t cores = mine.processors.cores.size();
  std::string reason = fmt::format("{} physical core{} in the affinity mask", cores, cores == 1 ? "" : "s");
  if (part.sharing > 1) reason += fmt::format(", shared by {} ranks", part.sharing);
  return threads_on(mine.processors, whole(part.cores), std::move(reason), sharing_quota(reports, mine));
}

ThreadChoice common_threads(std::span<const RankReport> reports, std::size_t rank) {
  const ThreadChoice own = own_threads(reports, rank);
  ThreadChoice least = own;
  for (std::size_t other = 0; other < reports.size(); ++other) {
    ThreadChoice theirs = own_threads(reports, other);
    if (theirs.threads >= least.threads) continue;
    least = {
        .threads = theirs.threads,
        .reason = fmt::format("as many as rank {} (host {}) can have: {}", other, printable(reports[other].host), theirs.reason)};
  }
  return least;
}

std::optional<std::string> binding_fault(std::span<const RankReport> reports, const std::string& launcher) {
  std::optional<std::string> first;
  std::size_t others = 0;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    const RankReport& report = reports[rank];
    const Part part = part_of(reports, rank);
    const int fair = report.host_cores / static_cast<int>(ranks_on(reports, report.host));
    // What it couldn't use for another reason, or wasn't meant to, isn't missed.
    const int usable = threads_on(report.processors, fair, "", sharing_quota(reports, report)).threads;
    if (part.cores + 1e-6 >= std::min(fair, usable)) continue;
    if (first) {
      ++others;
      continue;
    }
    first = fmt::format(
        "rank {} (host {}) is bound to {} of {}{}, and its fair share would be {}; use {}", rank, printable(report.host),
        report.processors.cores.size(), counted_cores(static_cast<std::size_t>(report.host_cores)),
        part.sharing > 1 ? fmt::format(", which {} ranks share", part.sharing) : "", fair, binding_options(launcher, fair));
  }
  if (first && others > 0) *first += fmt::format(" ({} more rank{})", others, others == 1 ? " is bound so" : "s are bound so");
  return first;
}

std::optional<CpuTarget> lowest_target(std::span<const RankReport> reports) {
  const auto with = std::ranges::count(reports, true, &RankReport::avx512);
  if (with == 0 || with == std::ssize(reports)) return std::nullopt;
  return CpuTarget::v3;
}

int choose_gpu(std::span<const RankReport> reports, std::size_t rank, int first) {
  const auto number_of = [&](const RankReport& report) {
    const auto count = static_cast<int>(report.gpus.size());
    return first < count ? (first + report.local_rank) % count : first;
  };
  std::map<std::string, std::size_t> taken;  // by UUID, by which rank
  for (std::size_t r = 0; r < reports.size(); ++r) {
    const auto number = static_cast<std::size_t>(number_of(reports[r]));
    if (number >= reports[r].gpus.size()) continue;  // it has none, and will say so
    const std::string& uuid = reports[r].gpus[number];
    const auto [other, is_first] = taken.emplace(uuid, r);
    if (is_first) continue;
    const RankReport& before = reports[other->second];
    const std::string on = before.host == reports[r].host
                               ? fmt::format("ranks {} and {} (host {})", other->second, r, printable(before.host))
                               : fmt::format("rank {} (host {}) and rank {} (host {})", other->second, printable(before.host), r,
                                             printable(reports[r].host));
    throw UsageError(
        fmt::format("{} would both use {}, and a GPU takes one rank: start no more ranks on a host than it has GPUs "
                    "(mpirun --map-by ppr:N:node), or let each see another one (CUDA_VISIBLE_DEVICES)",
                    on, printable(uuid)));
  }
  return number_of(reports[rank]);
}

}  // namespace lathe
