#include "lathe/training/page_text.h"

#include "lathe/runtime/error.h"
#include "lathe/text/utf8.h"

namespace lathe {

std::string escaped(std::string_view text) {
  const std::string shown = printable(text);
  std::string result;
  result.reserve(shown.size());
  for (std::size_t i = 0; i < shown.size(); ++i) {
    switch (shown[i]) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      case '\xEF':
        // U+FFFE and U+FFFF are well-formed, and yet no characters to XML.
        if (shown.compare(i, 3, "\xEF\xBF\xBE") == 0 || shown.compare(i, 3, "\xEF\xBF\xBF") == 0) {
          result += shown[i + 2] == '\xBE' ? R"(\xEF\xBF\xBE)" : R"(\xEF\xBF\xBF)";
          i += 2;
          break;
        }
        [[fallthrough]];
      default:
        result += shown[i];
    }
  }
  return result;
}

std::string beginning(std::string_view text, std::size_t max_bytes) {
  const std::string_view front = utf8_prefix(text, max_bytes);
  return std::string(front) + (front.size() < text.size() ? "…" : "");
}

}  // namespace lathe
