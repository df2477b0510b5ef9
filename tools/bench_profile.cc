#include "tools/bench_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "benchmarks/profile.h"
#include "lathe/training/number_text.h"
#include "tools/json_rows.h"
#include "tools/line_output.h"

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;
using emulation::GlobalTraffic;
using emulation::KernelProfile;

constexpr const char* kNotice = "emulated on the host: traffic is counted, no time is measured";

const bench::Operand* find(const bench::Case& profiled, const std::string& name) {
  const auto found = std::ranges::find(profiled.operands, name, &bench::Operand::name);
  return found == profiled.operands.end() ? nullptr : &*found;
}

Json to_json(const GlobalTraffic& traffic) {
  return {{"warp_accesses", traffic.warp_accesses},
          {"read_bytes", traffic.read_bytes},
          {"written_bytes", traffic.written_bytes},
          {"used_bytes", traffic.used_bytes},
          {"sectors", traffic.sectors},
          {"atomics", traffic.atomics},
          {"widest", traffic.widest},
          {"narrowest", traffic.narrowest}};
}

Json to_json(const bench::Case& profiled, const std::vector<KernelProfile>& kernels) {
  Json json = {{"family", profiled.family}, {"kernel", profiled.kernel}, {"dtype", profiled.dtype},
               {"shape", Json::object()},   {"bytes", profiled.bytes()}, {"operations", profiled.operations},
               {"kernels", Json::array()}};
  for (const auto& [name, size] : profiled.shape) json["shape"][name] = size;
  for (const KernelProfile& kernel : kernels) {
    Json one = {{"name", kernel.kernel},
                {"launches", kernel.launches},
                {"blocks", kernel.blocks},
                {"tensors", Json::object()},
                {"lines", Json::object()}};
    for (const auto& [name, traffic] : kernel.tensors) {
      Json tensor = to_json(traffic);
      if (const bench::Operand* operand = find(profiled, name)) {
        tensor["size"] = operand->bytes;
        tensor["expected_read_bytes"] = operand->read_bytes();
        tensor["expected_written_bytes"] = operand->written_bytes();
      }
      one["tensors"][name] = std::move(tensor);
    }
    for (const auto& [name, line] : kernel.lines) {
      one["lines"][name] = {{"global", to_json(line.global)},
                            {"shared",
                             {{"warp_accesses", line.shared.warp_accesses},
                              {"bytes", line.shared.bytes},
                              {"wavefronts", line.shared.wavefronts},
                              {"ideal_wavefronts", line.shared.ideal_wavefronts}}},
                            {"mma", line.mma},
                            {"barriers", line.barriers}};
    }
    json["kernels"].push_back(std::move(one));
  }
  return json;
}

/// Bytes asked for, and how often the operand that is.
std::string asked(std::int64_t bytes, std::int64_t expected) {
  if (bytes == 0) return "-";
  return expected == 0 ? grouped(bytes)
                       : fmt::format("{} ({:.3f})", grouped(bytes), static_cast<double>(bytes) / static_cast<double>(expected));
}

std::string used(const GlobalTraffic& traffic) {
  return traffic.sectors == 0 ? "-" : fmt::format("{:.1f} %", 100.0 * bench::sector_use(traffic));
}

std::string text(const bench::Case& profiled, const std::vector<KernelProfile>& kernels) {
  std::string out;
  const auto to = std::back_inserter(out);
  fmt::format_to(to, "\n{} {} {}: {} bytes by the mathematics\n", profiled.kernel, profiled.dtype, profiled.shape_text(),
                 grouped(profiled.bytes()));
  for (const KernelProfile& kernel : kernels) {
    fmt::format_to(to, "  {}\n  {}, {}\n", kernel.kernel,
                   kernel.launches == 1 ? "1 launch" : fmt::format("{} launches", kernel.launches),
                   counted(kernel.blocks, "block"));
    fmt::format_to(to, "    {:<28} {:>13} {:>22} {:>22} {:>8} {:>6} {:>8}\n", "tensor", "size", "read (times)", "written (times)",
                   "used", "widest", "atomics");
    for (const auto& [name, traffic] : kernel.tensors) {
      const bench::Operand* operand = find(profiled, name);
      fmt::format_to(to, "    {:<28} {:>13} {:>22} {:>22} {:>8} {:>6} {:>8}\n", name,
                     operand == nullptr ? "-" : grouped(operand->bytes),
                     asked(traffic.read_bytes, operand == nullptr ? 0 : operand->touched),
                     asked(traffic.written_bytes, operand == nullptr ? 0 : operand->touched), used(traffic), traffic.widest,
                     traffic.atomics);
    }
    fmt::format_to(to, "    {:<38} {:>12} {:>8} {:>6} {:>12} {:>12} {:>8} {:>8}\n", "line", "global bytes", "used", "widest",
                   "wavefronts", "ideal", "barriers", "mma");
    for (const auto& [name, line] : kernel.lines) {
      fmt::format_to(to, "    {:<38} {:>12} {:>8} {:>6} {:>12} {:>12} {:>8} {:>8}\n", name,
                     grouped(line.global.read_bytes + line.global.written_bytes), used(line.global), line.global.widest,
                     grouped(line.shared.wavefronts), grouped(line.shared.ideal_wavefronts), line.barriers, line.mma);
    }
  }
  return out;
}

}  // namespace

void print_profiles(const std::vector<bench::Case>& cases, bool json) {
  LineOutput output;
  JsonRows rows(output, Json{{"emulated", true}, {"notice", kNotice}}.dump(), "cases");
  std::string heading = fmt::format("{}\nused: bytes asked for, of the 32-byte sectors touched\n", kNotice);
  for (const bench::Case& profiled : cases) {
    const std::vector<KernelProfile> kernels = bench::profile(profiled);
    if (json) {
      if (!rows.add(to_json(profiled, kernels).dump())) return;
    } else if (!output.write(std::exchange(heading, "") + text(profiled, kernels))) {
      return;
    }
  }
  if (json) rows.finish(true);
}

}  // namespace lathe
