// tokenizer.json: whatever is accepted makes a tokenizer whose ids are rows of its vocabulary.
#include <vector>

#include "lathe/text/tokenizer_files.h"
#include "tests/fuzz/encoding_rules.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

void check_steps(const std::vector<TemplateStep>& steps, std::int32_t vocabulary_size) {
  for (const TemplateStep& step : steps) {
    require(step.type >= 0, "types aren't negative");
    for (const std::int32_t id : step.ids) require(id >= 0 && id < vocabulary_size, "special tokens are tokens");
  }
}

void check(const TokenizerDescription& description) {
  std::vector<bool> taken(static_cast<std::size_t>(description.vocabulary_size));
  for (const VocabularyEntry& entry : description.vocabulary) {
    require(entry.id >= 0 && entry.id < description.vocabulary_size, "ids are below the vocabulary's size");
    require(!taken[static_cast<std::size_t>(entry.id)], "ids are unique");
    taken[static_cast<std::size_t>(entry.id)] = true;
  }
  for (const AddedToken& token : description.added) {
    require(token.id >= 0 && token.id < description.vocabulary_size, "added tokens have ids below the vocabulary's size");
    require(!token.content.empty(), "added tokens aren't empty");
  }
  check_steps(description.single, description.vocabulary_size);
  check_steps(description.pair, description.vocabulary_size);
}

}  // namespace
}  // namespace lathe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  static const MemoryFile memory("tokenizer.json");
  memory.hold({data, size});
  const auto description = accepted([] { return lathe::read_tokenizer_json(memory.path()); });
  // A few bytes can name an id in the millions, which is allowed and slow.
  if (!description || description->vocabulary_size > 10'000) return 0;
  check(*description);
  const auto tokenizer = accepted([] { return lathe::WordPieceTokenizer::load(memory.folder()); });
  if (!tokenizer) return 0;
  check_vocabulary(*tokenizer);
  check_encoding(*tokenizer, "The caf\xC3\xA9 [SEP] isn't \xE4\xB8\xAD far\xFF.");
  check_encoding(*tokenizer, text_of({data, size}).substr(0, 200));
  for (const lathe::AddedToken& token : description->added) check_encoding(*tokenizer, "a" + token.content + " b");
  return 0;
}
