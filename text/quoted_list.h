#pragma once
// Names from a file, listed in a message.
#include <cstddef>
#include <string>
#include <string_view>

#include "lathe/text/utf8.h"

namespace [[gnu::visibility("default")]] lathe {

/// The names, a range of strings with a size, as "'a', 'b', 'c'"; each is cut after 40 bytes, and the list with "and 5 more" after `most`.
template <class Names>
std::string quoted_list(const Names& names, std::size_t most = 20) {
  constexpr std::size_t kMaxName = 40;
  std::string list;
  std::size_t listed = 0;
  for (const std::string_view name : names) {
    if (listed++ == most) return list.append(" and " + std::to_string(names.size() - most) + " more");
    const std::string_view shown = utf8_prefix(name, kMaxName);
    list.append(list.empty() ? "'" : ", '").append(shown).append(shown.size() < name.size() ? "...'" : "'");
  }
  return list;
}

}  // namespace lathe
