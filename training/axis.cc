#include "lathe/training/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lathe/training/number_text.h"

namespace lathe {

std::vector<double> Axis::ticks() const {
  std::vector<double> values;
  const auto count = static_cast<int>(std::lround((high - low) / step));
  // Products of the step, so that no rounding adds up and zero is zero.
  const double first = std::round(low / step);
  for (int i = 0; i <= count; ++i) values.push_back((first + i) * step);
  return values;
}

std::string Axis::text(double tick) const {
  if (tick == 0.0) return "0";
  const double largest = std::max(std::abs(low), std::abs(high));
  if (largest < 1e-2 || largest >= 1e9) {
    // "5e-05" is written "5e-5", as people write it on the command line.
    const int digits =
        std::max(0, static_cast<int>(std::floor(std::log10(std::abs(tick)) + 1e-9) - std::floor(std::log10(step) + 1e-9)));
    std::string text = fmt::format("{:.{}e}", tick, digits);
    const std::size_t exponent = text.find('e') + 2;
    while (text[exponent] == '0' && exponent + 1 < text.size()) text.erase(exponent, 1);
    if (text[exponent - 1] == '+') text.erase(exponent - 1, 1);
    return text;
  }
  if (step >= 1.0) return grouped(std::llround(tick));
  return fmt::format("{:.{}f}", tick, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
}

Axis round_axis(double low, double high, int most_steps, Scale scale) {
  if (!(high > low)) {
    const double around = scale == Scale::whole ? 1.0 : low == 0.0 ? 1.0 : std::abs(low) / 2.0;
    high = low + around;
    if (low != 0.0) low -= around;
  }
  const double least = (high - low) / most_steps;
  Axis axis;
  axis.step = std::pow(10.0, std::floor(std::log10(least)));
  if (scale == Scale::whole) axis.step = std::max(axis.step, 1.0);
  constexpr double kSlack = 1e-9;  // divisions that should come out even don't
  const auto fits = [&] {
    axis.low = std::floor(low / axis.step + kSlack) * axis.step;
    axis.high = std::ceil(high / axis.step - kSlack) * axis.step;
    return axis.high - axis.low <= (most_steps + 1e-6) * axis.step;
  };
  for (int i = 0; !fits(); ++i) axis.step *= i % 3 == 1 ? 2.5 : 2.0;  // 1, 2, 5, 10, ...
  return axis;
}

}  // namespace lathe
