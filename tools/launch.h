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
};

/// Reads the environment; nothing where this process is alone. SLURM_NTASKS isn't looked at: a batch script has it, which is one process.
std::optional<Launch> announced_launch();

}  // namespace lathe
