#include "benchmarks/profile.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#else
#include "lathe/runtime/error.h"
#endif

namespace lathe::bench {

#ifdef LATHE_EMULATED
namespace {

/// The settings with counting on, while it lives.
class Counting {
 public:
  Counting() : before_(emulation::settings()) {
    emulation::take_profile();
    emulation::Settings counting = before_;
    counting.profile = true;
    emulation::configure(counting);
  }
  ~Counting() { emulation::configure(before_); }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;
  Counting(Counting&&) = delete;
  Counting& operator=(Counting&&) = delete;

 private:
  emulation::Settings before_;
};

}  // namespace

std::vector<emulation::KernelProfile> profile(const Case& profiled) {
  const DeviceRef device = Device::cuda({});
  const Placed placed(profiled, device);
  for (std::size_t i = 0; i < profiled.operands.size(); ++i) {
    const Operand& operand = profiled.operands[i];
    if (operand.bytes > 0)
      emulation::name_memory(placed.addresses()[i], static_cast<std::size_t>(operand.bytes), operand.name.c_str());
  }
  device->synchronize();
  const Counting counting;
  placed.call()();
  device->synchronize();
  return emulation::take_profile();
}
#else
std::vector<emulation::KernelProfile> profile(const Case&) { throw LogicError("only a build with LATHE_CUDA=EMULATED counts"); }
#endif

emulation::GlobalTraffic traffic_of(const std::vector<emulation::KernelProfile>& kernels, const std::string& operand) {
  emulation::GlobalTraffic sum;
  for (const emulation::KernelProfile& kernel : kernels) {
    const auto found = kernel.tensors.find(operand);
    if (found == kernel.tensors.end()) continue;
    sum.warp_accesses += found->second.warp_accesses;
    sum.read_bytes += found->second.read_bytes;
    sum.written_bytes += found->second.written_bytes;
    sum.used_bytes += found->second.used_bytes;
    sum.sectors += found->second.sectors;
    sum.atomics += found->second.atomics;
  }
  return sum;
}

double sector_use(const emulation::GlobalTraffic& traffic) {
  return traffic.sectors == 0 ? 1.0 : static_cast<double>(traffic.used_bytes) / static_cast<double>(32 * traffic.sectors);
}

}  // namespace lathe::bench
