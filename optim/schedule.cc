#include "lathe/optim/schedule.h"

#include <algorithm>

namespace lathe {

double LinearSchedule::rate(std::int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);
  const std::int64_t decay_steps = std::max<std::int64_t>(1, total_steps - warmup_steps);
  return peak * std::max(0.0, static_cast<double>(total_steps - step) / static_cast<double>(decay_steps));
}

}  // namespace lathe
