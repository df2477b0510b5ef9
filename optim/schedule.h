#pragma once
// Learning rates over time.
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

/// Linear warm-up from 0 over `warmup_steps`, then linear decay to 0 at `total_steps`.
struct LinearSchedule {
  double peak = 5e-5;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 1;

  /// The rate of step 0, 1, ...: peak * step / warmup while warming up, then peak * (total - step) / (total - warmup), not below 0. As in
  /// Hugging Face's get_linear_schedule_with_warmup, the first step of a warm-up has rate 0.
  double rate(std::int64_t step) const;
};

}  // namespace lathe
