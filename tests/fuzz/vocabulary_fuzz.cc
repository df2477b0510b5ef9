// vocab.txt: the first byte chooses the normalizer, the rest is the file.
#include <algorithm>
#include <string>

#include "tests/fuzz/encoding_rules.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

/// Whether the normalizer leaves `token` as it is and one word, whatever its settings.
bool is_plain(std::string_view token) {
  return !token.empty() && token.size() <= 100 &&
         std::ranges::all_of(token, [](unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

}  // namespace
}  // namespace lathe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  if (size == 0) return 0;
  static const MemoryFile memory("vocab.txt");
  memory.hold({data + 1, size - 1});
  lathe::BertNormalizerOptions options;
  options.clean_text = (data[0] & 1U) == 0;
  options.handle_chinese_chars = (data[0] & 2U) == 0;
  options.lowercase = (data[0] & 4U) == 0;
  if ((data[0] & 8U) != 0) options.strip_accents = (data[0] & 16U) != 0;
  const auto tokenizer = accepted([&] { return lathe::WordPieceTokenizer::from_vocabulary(memory.path(), options); });
  if (!tokenizer) return 0;
  check_vocabulary(*tokenizer);
  const auto lines = static_cast<std::int32_t>(std::ranges::count(text_of({data + 1, size - 1}), '\n')) + 1;
  require(tokenizer->vocabulary_size() <= lines, "a token a line");
  check_encoding(*tokenizer, text_of({data + 1, size - 1}).substr(0, 500));
  for (std::int32_t id = 0; id < tokenizer->vocabulary_size(); ++id) {
    const std::string_view token = tokenizer->token(id);
    require(!token.empty() && lathe::is_valid_utf8(token), "tokens are text");
    if (!is_plain(token)) continue;
    const lathe::Encoding encoding = encoded(*tokenizer, token);
    require(encoding.ids.size() == 3 && encoding.ids[1] == id, "a token that is a word is encoded as itself");
  }
  return 0;
}
