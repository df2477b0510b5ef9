#pragma once
// Well-formed UTF-8 and what to do about the rest.
#include <cstddef>
#include <string>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {

/// Whether `text` is well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
bool is_valid_utf8(std::string_view text) noexcept;

/// `text` with one U+FFFD in place of each ill-formed part, as Unicode's "maximal subparts" practice and Python's
/// errors="replace" have it.
std::string repair_utf8(std::string_view text);

/// The front of `text`, at most `max_bytes` long, never cut inside a well-formed sequence.
std::string_view utf8_prefix(std::string_view text, std::size_t max_bytes) noexcept;

}  // namespace lathe
