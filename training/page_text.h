#pragma once
// Values as they stand in the text of a page or a picture.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {

/// `text` for HTML and XML, between tags or in a quoted attribute: & < > " ' as references. What shows nothing or is forbidden there
/// (control characters, line ends too; bytes that aren't UTF-8; U+FFFE and U+FFFF) is shown as \xNN.
std::string escaped(std::string_view text);

/// The front of `text`, at most `max_bytes` long and never cut inside a character, with "…" where something was cut.
std::string beginning(std::string_view text, std::size_t max_bytes);

}  // namespace lathe
