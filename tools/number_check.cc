#include "tools/number_check.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

namespace lathe {
namespace {

NumberCheck check(const char* expected, bool (*fits)(double)) {
  return [=](const std::string& text) -> std::string {
    double value = 0.0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool number = failure == std::errc() && end == text.data() + text.size() && std::isfinite(value);
    return number && fits(value) ? "" : fmt::format("found {}, expected a finite number {}", text, expected);
  };
}

}  // namespace

NumberCheck above_zero() {
  return check("above 0", [](double value) { return value > 0.0; });
}

NumberCheck share_of_one() {
  return check("above 0 and at most 1", [](double value) { return value > 0.0 && value <= 1.0; });
}

NumberCheck dropout_rate() {
  return check("from 0 to 0.99", [](double value) { return value >= 0.0 && value <= 0.99; });
}

NumberCheck zero_or_more() {
  return check("of 0 or more", [](double value) { return value >= 0.0; });
}

}  // namespace lathe
