#include <lathe/runtime/error.h>
#include <lathe/text/wordpiece.h>

#include <filesystem>
#include <fstream>

int main() {
  const std::filesystem::path vocabulary = "vocabulary.txt";
  std::ofstream(vocabulary) << "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwarm\nfilm\n";
  const auto tokenizer = lathe::WordPieceTokenizer::from_vocabulary(vocabulary, {});
  lathe::Encoding encoding;
  tokenizer.encode("Warm film!", 8, encoding);
  if (encoding.ids != std::vector<std::int32_t>{2, 5, 6, 1, 3}) return 1;
  try {
    lathe::WordPieceTokenizer::from_vocabulary("no such file", {});
  } catch (const lathe::FileError&) {
    return 0;
  }
  return 1;
}
