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
  std::optional<std::int64_t> rank;  ///< of this process, where the launcher tells
  /// Whether it says how they find each other. Open MPI ends a program by a page of its own words where srun doesn't.
  bool connects = true;
};

/// Reads the environment; nothing where this process is alone. SLURM_NTASKS isn't looked at: a batch script has it, which is one process.
std::optional<Launch> announced_launch();

}  // namespace lathe
