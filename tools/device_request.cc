#include "tools/device_request.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"

namespace lathe {

DeviceRequest parse_device(const std::string& text) {
  using Place = DeviceRequest::Place;
  if (text == "auto") return {.place = Place::automatic, .index = 0};
  if (text == "cpu") return {.place = Place::cpu, .index = 0};
  if (text == "cuda") return {.place = Place::cuda, .index = 0};
  if (text == "emulated") {
    if (cuda_backend() == CudaBackend::emulated) return {.place = Place::cuda, .index = 0};
    throw UsageError(
        "this build doesn't emulate CUDA; `cmake --preset emulated && cmake --build --preset emulated` makes "
        "build/emulated/lathe, which does");
  }
  constexpr std::string_view kNumbered = "cuda:";
  if (text.starts_with(kNumbered)) {
    int index = 0;
    const char* const last = text.data() + text.size();
    const auto [end, failure] = std::from_chars(text.data() + kNumbered.size(), last, index);
    if (failure == std::errc() && end == last && index >= 0) return {.place = Place::cuda, .index = index};
  }
  throw UsageError(fmt::format("{} is none of auto, cpu, cuda, and cuda:N for one of several GPUs, from 0", text));
}

}  // namespace lathe
