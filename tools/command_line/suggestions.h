#pragma once
// What was probably meant.
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

/// The one of `known` that `given` is most likely a misspelling of: few letters differ (counting swapped neighbours once), or one begins
/// with the other. Empty where none is near.
std::optional<std::string> nearest(std::string_view given, std::span<const std::string> known);

/// What the setting that other trainers call `given` is called in Lathe, both without dashes in front ("learning_rate" -> "lr"); among
/// `known`, else the nearest of them.
std::optional<std::string> nearest_setting(std::string_view given, std::span<const std::string> known);

/// The command that `given` may have meant.
std::optional<std::string> nearest_command(std::string_view given, std::span<const std::string> known);

}  // namespace lathe
