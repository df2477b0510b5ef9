#pragma once
// Running the `lathe` command as several ranks, by mpirun.
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/tools/run_command.h"

namespace lathe {

/// What Open MPI asks for in a container, as root, on one machine: docs/distributed.md has the reasons. It leaves leaks, in libraries that it
/// unloads, so that they can't be told apart by name.
inline const std::vector<std::pair<const char*, const char*>>& mpirun_variables() {
  static const std::vector<std::pair<const char*, const char*>> variables = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                                                                             {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                                                                             {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
                                                                             {"OMPI_MCA_hwloc_base_binding_policy", "none"},
                                                                             {"OMPI_MCA_pml", "ob1"},
                                                                             {"OMPI_MCA_btl", "self,vader"},
                                                                             {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
                                                                             {"OMPI_MCA_plm", "isolated"},
                                                                             {"ASAN_OPTIONS", "detect_leaks=0"},
                                                                             {"LATHE_CACHE", "none"},
                                                                             {"OMPI_MCA_oob_tcp_if_include", "lo"},
                                                                             {"PMIX_MCA_ptl_tcp_if_include", "lo"}};
  return variables;
}

/// A text without what mpirun adds to it where a rank fails: paragraphs between lines of dashes.
inline std::string without_mpiruns_words(const std::string& text) {
  std::istringstream lines(text);
  std::string ours;
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    const bool dashes = line.starts_with("----------") && line.find_first_not_of('-') == std::string::npos;
    if (!dashes && !inside) ours += line + '\n';
    inside ^= dashes;
  }
  return ours;
}

/// Runs a rank for each list of words, which begin with a program.
inline CommandResult run_by_mpirun(const std::filesystem::path& scratch, const std::vector<std::vector<std::string>>& ranks) {
  std::vector<std::string> words = {LATHE_MPIRUN};
  for (const auto& rank : ranks) {
    if (words.size() > 1) words.emplace_back(":");
    words.insert(words.end(), {"-np", "1"});
    words.insert(words.end(), rank.begin(), rank.end());
  }
  CommandResult result = run_program(scratch, std::move(words), "", {}, [] {
    for (const auto& [name, value] : mpirun_variables()) ::setenv(name, value, 1);  // NOLINT(concurrency-mt-unsafe): one thread
  });
  result.error = without_mpiruns_words(result.error);
  return result;
}

/// Runs `lathe` as a rank for each list of arguments.
inline CommandResult run_ranks(const std::filesystem::path& scratch, std::vector<std::vector<std::string>> ranks) {
  for (auto& rank : ranks) rank.insert(rank.begin(), LATHE_COMMAND);
  return run_by_mpirun(scratch, ranks);
}

}  // namespace lathe
