#include "lathe/runtime/host_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace lathe {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

/// The number at the start of a file; nothing where there is no such file or it says "max".
std::optional<std::int64_t> number_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

/// The number behind `key` in a file of "key number" lines.
std::optional<std::int64_t> value_in(const std::filesystem::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  for (std::string line; file >> word && std::getline(file, line);) {
    if (word == key) return std::stoll(line);
  }
  return std::nullopt;
}

std::int64_t left_by_system() {
  constexpr std::int64_t kKibibyte = 1024;
  const auto available = value_in("/proc/meminfo", "MemAvailable:");
  if (!available) return kUnlimited;
  return (*available + value_in("/proc/meminfo", "SwapFree:").value_or(0)) * kKibibyte;
}

/// What the control group (version 2) and those above it leave. Their cached files are given up before a process is refused memory.
std::int64_t left_by_control_group() {
  std::ifstream groups("/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::/")) path = line.substr(4);
  }
  const std::filesystem::path root = "/sys/fs/cgroup";
  std::int64_t left = kUnlimited;
  for (std::filesystem::path group = root / path;; group = group.parent_path()) {
    const auto limit = number_in(group / "memory.max");
    const auto used = number_in(group / "memory.current");
    if (limit && used) left = std::min(left, *limit - *used + value_in(group / "memory.stat", "file").value_or(0));
    if (group == root || !group.has_relative_path()) return left;
  }
}

}  // namespace

std::int64_t available_host_memory() { return std::max<std::int64_t>(0, std::min(left_by_system(), left_by_control_group())); }

std::int64_t available_addresses() {
  struct rlimit limit = {};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  const std::int64_t used = number_in("/proc/self/statm").value_or(0) * ::sysconf(_SC_PAGESIZE);
  return std::max<std::int64_t>(0, static_cast<std::int64_t>(limit.rlim_cur) - used);
}

}  // namespace lathe
