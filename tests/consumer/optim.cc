#include <lathe/optim/schedule.h>

int main() {
  const lathe::LinearSchedule schedule{.peak = 1.0, .warmup_steps = 4, .total_steps = 12};
  return schedule.rate(8) == 0.5 ? 0 : 1;
}
