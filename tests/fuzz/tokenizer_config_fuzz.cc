// tokenizer_config.json beside a vocabulary that never changes.
#include <fstream>

#include "tests/fuzz/encoding_rules.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  static const MemoryFile memory("tokenizer_config.json");
  static const bool written = [] {
    std::ofstream file(memory.folder() / "vocab.txt");
    return static_cast<bool>(file << "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncafe\n##s\n<x>\n.\n" << std::flush);
  }();
  require(written, "the vocabulary can be written");
  memory.hold({data, size});
  const auto tokenizer = accepted([] { return lathe::WordPieceTokenizer::load(memory.folder()); });
  if (!tokenizer) return 0;
  check_vocabulary(*tokenizer);
  check_encoding(*tokenizer, "The caf\xC3\xA9s<x> [MASK]\xE4\xB8\xAD.");
  check_encoding(*tokenizer, text_of({data, size}).substr(0, 200));
  return 0;
}
