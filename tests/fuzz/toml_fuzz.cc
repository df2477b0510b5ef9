// run.toml.
#include "tests/fuzz/fuzz.h"
#include "tools/run_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  static const MemoryFile memory("run.toml");
  memory.hold({data, size});
  const auto values = accepted([] { return lathe::read_run_section(memory.folder(), "run"); });
  if (!values) return 0;
  for (const auto& [key, value] : *values) {
    require(key.size() + value.size() <= size, "what was read was in the file");
  }
  return 0;
}
