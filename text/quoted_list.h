#pragma once
// Names from a file, listed in a message.
#include <algorithm>
#include <cstddef>
#include <ranges>
#include <string>
#include <string_view>

#include "lathe/text/utf8.h"

namespace lathe {

/// The names as "'a', 'b', 'c'", each cut after 40 bytes, with "and 5 more" after the first `most`.
std::string quoted_list(const std::ranges::sized_range auto& names, std::size_t most = 20) {
  constexpr std::size_t kMaxName = 40;
  std::string list;
  for (const std::string_view name : names | std::views::take(std::ranges::min(most, std::ranges::size(names)))) {
    const std::string_view shown = utf8_prefix(name, kMaxName);
    list.append(list.empty() ? "'" : ", '").append(shown).append(shown.size() < name.size() ? "...'" : "'");
  }
  if (names.size() > most) list.append(" and " + std::to_string(names.size() - most) + " more");
  return list;
}

}  // namespace lathe
