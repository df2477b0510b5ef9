#pragma once
// What --device asks for.
#include <cstdint>
#include <string>

namespace lathe {

struct DeviceRequest {
  enum class Place : std::uint8_t { automatic, cpu, cuda };
  Place place = Place::automatic;
  int index = 0;  ///< of the GPU
};

/// "auto", "cpu", "cuda", "cuda:1", or in a build that emulates CUDA "emulated", which is its "cuda". Throws UsageError.
DeviceRequest parse_device(const std::string& text);

}  // namespace lathe
