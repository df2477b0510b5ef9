// run.toml.
#include <algorithm>
#include <string_view>

#include "tests/fuzz/fuzz.h"
#include "tools/run_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto settings = accepted([&] { return lathe::parse_run_file(text, "run.toml"); });
  if (!settings) return 0;
  const auto lines = static_cast<std::int64_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  for (const lathe::RunSetting& setting : *settings) {
    require(setting.key.size() <= size && setting.section.size() <= size, "what was read was in the file");
    require(setting.line >= 1 && setting.line <= lines, "the line is one of the file's");
  }
  return 0;
}
