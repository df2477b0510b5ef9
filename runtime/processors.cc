#include "lathe/runtime/processors.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

namespace lathe {
namespace {

std::optional<std::string> first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

/// The processors that this thread may run on; a mask of any size.
std::vector<int> allowed_processors() {
  for (std::size_t count = 1024; count <= (1U << 20U); count *= 2) {
    std::vector<cpu_set_t> sets(CPU_ALLOC_SIZE(count) / sizeof(cpu_set_t) + 1);
    const std::size_t bytes = CPU_ALLOC_SIZE(count);
    if (::sched_getaffinity(0, bytes, sets.data()) != 0) continue;
    std::vector<int> processors;
    for (std::size_t i = 0; i < count; ++i) {
      if (CPU_ISSET_S(i, bytes, sets.data())) processors.push_back(static_cast<int>(i));
    }
    return processors;
  }
  return {0};
}

/// The cores that hardware threads belong to, each once, by its first thread.
std::vector<int> cores_of(const std::vector<int>& processors) {
  std::set<int> cores;
  for (const int processor : processors) {
    // "0-1" or "0,32": the first is the same for all threads of a core.
    const auto siblings =
        first_line(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", processor)).value_or("");
    int first = processor;
    std::from_chars(siblings.data(), siblings.data() + siblings.size(), first);
    cores.insert(first);
  }
  return {cores.begin(), cores.end()};
}

/// "max 100000" or "150000 100000" (control groups, version 2): the quota in processors.
std::optional<double> parse_quota(const std::string& line) {
  std::istringstream words(line);
  std::string quota;
  double period = 0;
  if (!(words >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
  return std::strtod(quota.c_str(), nullptr) / period;
}

/// The tightest quota of this process's control group and those above it.
void find_quota(Processors& found) {
  const auto consider = [&](std::optional<double> quota, std::string group) {
    if (!quota || *quota <= 0 || (found.quota && *found.quota <= *quota)) return;
    found.quota = quota;
    found.quota_group = std::move(group);
  };
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) != 0) continue;
    const std::filesystem::path root = "/sys/fs/cgroup";
    for (std::filesystem::path group = line.substr(3);; group = group.parent_path()) {
      if (const auto limit = first_line(root / group.relative_path() / "cpu.max")) consider(parse_quota(*limit), group.string());
      if (!group.has_relative_path()) break;
    }
  }
  const auto quota = first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  const auto period = first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota && period && quota->front() != '-') consider(parse_quota(*quota + " " + *period), "/");
}

/// OMP_NUM_THREADS, or the first of its list, which is one number a level of nesting.
std::optional<int> openmp_threads() {
  const char* variable =
      std::getenv("OMP_NUM_THREADS");  // NOLINT(concurrency-mt-unsafe): read once, before any thread is started
  if (variable == nullptr) return std::nullopt;
  const std::string_view text(variable);
  int threads = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
  const bool whole = end == text.data() + text.size() || *end == ',';
  if (error != std::errc() || !whole || threads < 1) return std::nullopt;
  return threads;
}

}  // namespace

Processors available_processors() {
  Processors found;
  found.cores = cores_of(allowed_processors());
  found.openmp_threads = openmp_threads();
  find_quota(found);
  return found;
}

int reachable_cores() {
  const std::vector<int> bound = allowed_processors();
  // Of a mask of all processors the system leaves those that this process may have.
  constexpr std::size_t kMost = 1U << 16U;
  const std::size_t bytes = CPU_ALLOC_SIZE(kMost);
  std::vector<cpu_set_t> mask(bytes / sizeof(cpu_set_t) + 1);
  for (std::size_t i = 0; i < kMost; ++i) CPU_SET_S(i, bytes, mask.data());
  if (::sched_setaffinity(0, bytes, mask.data()) != 0) return static_cast<int>(cores_of(bound).size());
  const std::vector<int> reached = allowed_processors();
  CPU_ZERO_S(bytes, mask.data());
  for (const int processor : bound) CPU_SET_S(static_cast<std::size_t>(processor), bytes, mask.data());
  ::sched_setaffinity(0, bytes, mask.data());
  return static_cast<int>(cores_of(reached).size());
}

ThreadChoice threads_on(const Processors& processors, int cores, std::string reason, int sharing_quota) {
  ThreadChoice choice{.threads = std::max(1, cores), .reason = std::move(reason)};
  if (processors.quota) {
    const int threads = std::max(1, static_cast<int>(std::ceil(*processors.quota)) / std::max(1, sharing_quota));
    if (threads < choice.threads) {
      choice = {.threads = threads, .reason = fmt::format("the control group's quota of {:g} processors", *processors.quota)};
      if (sharing_quota > 1) choice.reason += fmt::format(", shared by {} ranks", sharing_quota);
    }
  }
  if (const auto threads = processors.openmp_threads; threads && *threads < choice.threads)
    choice = {.threads = *threads, .reason = fmt::format("OMP_NUM_THREADS={}", *threads)};
  return choice;
}

ThreadChoice default_threads() {
  const Processors processors = available_processors();
  const auto cores = static_cast<int>(processors.cores.size());
  return threads_on(processors, cores, fmt::format("{} physical core{} in the affinity mask", cores, cores == 1 ? "" : "s"));
}

}  // namespace lathe
