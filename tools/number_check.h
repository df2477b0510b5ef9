#pragma once
// Checks of the command line's fractions. CLI11's own let NaN pass, and spell the largest double out in 309 digits.
#include <functional>
#include <string>

namespace lathe {

/// Takes an option's text and gives what is wrong with it, or nothing.
using NumberCheck = std::function<std::string(const std::string&)>;

/// A finite number above 0.
NumberCheck above_zero();
/// A finite number, 0 or above.
NumberCheck zero_or_more();

}  // namespace lathe
