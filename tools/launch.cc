#include "tools/launch.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace lathe {
namespace {

struct Announcement {
  const char* variable;
  const char* rank;
  std::string_view launcher;
};
// Open MPI's mpirun; the PMI of MPICH and its kin, and of srun; srun, whose step it counts.
constexpr std::array<Announcement, 3> kAnnouncements = {
    {{.variable = "OMPI_COMM_WORLD_SIZE", .rank = "OMPI_COMM_WORLD_RANK", .launcher = "mpirun"},
     {.variable = "PMI_SIZE", .rank = "PMI_RANK", .launcher = "mpiexec"},
     {.variable = "SLURM_STEP_NUM_TASKS", .rank = "SLURM_PROCID", .launcher = "srun"}}};

std::optional<std::int64_t> number_of(const char* variable) {
  const char* value = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
  if (value == nullptr) return std::nullopt;
  const std::string_view text(value);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<Launch> announced_launch() {
  for (const auto& [variable, rank, launcher] : kAnnouncements) {
    if (const auto tasks = number_of(variable); tasks && *tasks > 1)
      return Launch{.launcher = std::string(launcher), .variable = variable, .tasks = *tasks, .rank = number_of(rank)};
  }
  return std::nullopt;
}

}  // namespace lathe
