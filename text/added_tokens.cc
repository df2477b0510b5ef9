#include "lathe/text/added_tokens.h"

#include <algorithm>
#include <utility>

namespace lathe {
namespace {

std::size_t first_byte(std::string_view text) noexcept { return static_cast<unsigned char>(text.front()); }

/// Where the code point in front of `end` begins.
std::size_t previous(std::string_view text, std::size_t end) noexcept {
  do --end;
  while ((static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U);
  return end;
}

char32_t code_point_at(std::string_view text, std::size_t at) noexcept {
  const char* p = text.data() + at;
  return next_code_point(p);
}

bool touches_word(std::string_view text, std::size_t start, std::size_t stop) noexcept {
  return (start > 0 && Unicode::is_word_character(code_point_at(text, previous(text, start)))) ||
         (stop < text.size() && Unicode::is_word_character(code_point_at(text, stop)));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<Pattern> patterns) : unicode_(Unicode::tables()), patterns_(std::move(patterns)) {
  std::sort(patterns_.begin(), patterns_.end(), [](const Pattern& a, const Pattern& b) {
    if (a.text.front() != b.text.front()) return first_byte(a.text) < first_byte(b.text);
    return a.text.size() > b.text.size();
  });
  for (const Pattern& pattern : patterns_) ++by_first_[first_byte(pattern.text) + 1];
  for (std::size_t i = 1; i < by_first_.size(); ++i) by_first_[i] += by_first_[i - 1];
}

const AddedTokenFinder::Pattern* AddedTokenFinder::match(std::string_view text) const noexcept {
  const std::size_t first = first_byte(text);
  for (std::uint32_t i = by_first_[first]; i < by_first_[first + 1]; ++i) {
    if (text.starts_with(patterns_[i].text)) return &patterns_[i];
  }
  return nullptr;
}

std::size_t AddedTokenFinder::space_before(std::string_view text, std::size_t start) const noexcept {
  while (start > 0) {
    const std::size_t before = previous(text, start);
    if ((unicode_.traits(code_point_at(text, before)) & traits::kWhiteSpace) == 0) break;
    start = before;
  }
  return start;
}

std::size_t AddedTokenFinder::space_behind(std::string_view text, std::size_t stop) const noexcept {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data() + stop; p != end;) {
    if ((unicode_.traits(next_code_point(p)) & traits::kWhiteSpace) == 0) break;
    stop = static_cast<std::size_t>(p - text.data());
  }
  return stop;
}

void AddedTokenFinder::split(std::string_view text, std::vector<TextPiece>& pieces) const {
  pieces.clear();
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !patterns_.empty();) {
    const Pattern* pattern = match(text.substr(at));
    if (pattern == nullptr) {
      ++at;
      continue;
    }
    std::size_t start = at;
    std::size_t stop = at + pattern->text.size();
    at = stop;  // the search goes on behind the match, whether it counts or not
    const AddedToken& token = pattern->token;
    if (token.single_word && touches_word(text, start, stop)) continue;
    // White space that the token before has taken stays with it.
    if (token.lstrip) start = std::max(space_before(text, start), std::min(done, start));
    if (token.rstrip) stop = space_behind(text, stop);
    if (done < start) pieces.push_back({text.substr(done, start - done), std::nullopt});
    pieces.push_back({text.substr(start, stop - start), token.id});
    // White space that one token took may hold another: it is found all the same, and the text goes on behind it.
    done = stop;
  }
  if (done < text.size()) pieces.push_back({text.substr(done), std::nullopt});
}

}  // namespace lathe
