#pragma once
// Numbers for people.
#include <cstdint>
#include <string>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {

/// "22,713,216".
std::string grouped(std::int64_t value);
/// "3 rows", "1 row"; the plural is the noun with an s.
std::string counted(std::int64_t value, std::string_view noun);
/// "12.3 %" of a part in a whole; "0.0 %" of nothing.
std::string percent(std::int64_t part, std::int64_t whole);

}  // namespace lathe
