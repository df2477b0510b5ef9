#pragma once
// Checks of the command line's fractions. CLI11's own let NaN pass, and spell the largest double out in 309 digits.
#include <functional>
#include <string>

namespace lathe {

/// Takes an option's text and gives what is wrong with it, or nothing.
using NumberCheck = std::function<std::string(const std::string&)>;

/// A finite number above 0.
NumberCheck above_zero();
/// A number above 0 and at most 1.
NumberCheck share_of_one();
/// A number of 0 to 0.99: a dropout rate of nearly 1 would leave nothing to scale up.
NumberCheck dropout_rate();
/// A finite number, 0 or above.
NumberCheck zero_or_more();

}  // namespace lathe
