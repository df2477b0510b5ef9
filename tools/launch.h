#pragma once
// What a launcher of several processes, such as mpirun or srun, says of this one.
#include <cstdint>
#include <optional>
#include <string>

namespace lathe {

/// A launcher's word that this process is one of several.
struct Launch {
  std::string launcher;  ///< "mpirun", "srun"
  std::string variable;  ///< which says so: "OMPI_COMM_WORLD_SIZE"
  std::int64_t tasks = 0;
};

/// Reads the environment; nothing where this process is alone. SLURM_NTASKS isn't looked at: a batch script has it, which is one process.
std::optional<Launch> announced_launch();

/// Throws UsageError where a launcher announces several processes: every one would train alone, and they would write to one folder. To be
/// called before anything is touched.
void check_launch();

}  // namespace lathe
