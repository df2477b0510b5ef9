#pragma once
// The scale of a picture's axis: round numbers, evenly spaced.
#include <cstdint>
#include <string>
#include <vector>

namespace lathe {

struct Axis {
  double low = 0.0;   ///< the first tick
  double high = 1.0;  ///< the last tick
  double step = 1.0;  ///< 1, 2 or 5 times a power of ten
  std::vector<double> ticks() const;
  /// A tick's value with as many digits as tell it from its neighbours: "0.25", "1,500", "2e-5".
  std::string text(double tick) const;
};

/// What the values of an axis are.
enum class Scale : std::uint8_t { real, whole };

/// The narrowest axis that has all of [low, high], which are finite, and at most `most_steps` (at least 2) steps; Scale::whole has whole
/// ticks only. An empty range is widened.
Axis round_axis(double low, double high, int most_steps, Scale scale = Scale::real);

}  // namespace lathe
