// The mutator of the targets that read JSON: one change in two puts a string or a number of the text in another's place, which leaves it JSON.
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::fuzz {
namespace {

/// The strings, with their quotes, and numbers of `text`.
std::vector<std::string_view> literals(std::string_view text) {
  std::vector<std::string_view> found;
  const auto is_number = [](unsigned char c) { return std::isdigit(c) != 0 || c == '-' || c == '.'; };
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i + 1;
    if (text[i] == '"') {
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, text.size());
      found.push_back(text.substr(i, end - i));
    } else if (is_number(static_cast<unsigned char>(text[i]))) {
      while (end < text.size() && is_number(static_cast<unsigned char>(text[end]))) ++end;
      found.push_back(text.substr(i, end - i));
    }
    i = end;
  }
  return found;
}

}  // namespace
}  // namespace lathe::fuzz

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string_view> literals = lathe::fuzz::literals(text);
  if (random() % 2 == 0 || literals.size() < 2) return LLVMFuzzerMutate(data, size, max_size);
  const std::string_view from = literals[random() % literals.size()];
  const std::string_view to = literals[random() % literals.size()];
  std::string changed = text;
  changed.replace(static_cast<std::size_t>(to.data() - text.data()), to.size(), from);
  changed.resize(std::min(changed.size(), max_size));
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}
