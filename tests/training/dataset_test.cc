#include "lathe/training/dataset.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

/// A tokenizer.json of the tiny model's vocabulary that gives texts the type `single`, and the second of a pair the type `second`.
void write_tokenizer(const std::filesystem::path& path, int single, int second) {
  std::string vocabulary;
  int id = 0;
  for (const std::string& token : tiny_vocabulary()) {
    vocabulary += (id == 0 ? "\"" : ",\"") + token + "\":" + std::to_string(id);
    ++id;
  }
  const std::string a = R"({"Sequence":{"id":"A","type_id":)" + std::to_string(single) + "}}";
  const std::string b = R"({"Sequence":{"id":"B","type_id":)" + std::to_string(second) + "}}";
  std::ofstream(path) << R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"BertPreTokenizer"},
"post_processor":{"type":"TemplateProcessing","single":[)"
                      << a << R"(],"pair":[)" << a << "," << b << R"(],"special_tokens":{}},
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{)"
                      << vocabulary << "}}}";
}

TEST(Tokenize, RefusesTokenTypesThatTheModelHasNoEmbeddingFor) {
  const TemporaryFolder folder;
  write_tiny_model(folder / "model");
  Records records("data.tsv");
  records.append({.text = "good film", .pair = "it is", .label = {}, .line = 2});
  // Empty where the tokens are taken.
  const auto refusal = [&](int single, int second, TextKind kind) -> std::string {
    write_tokenizer(folder / "model" / "tokenizer.json", single, second);
    const auto classifier =
        Classifier::load(folder / "model", Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26}),
                         LabelSet({"negative", "positive"}), Classifier::Head::renewed, 1, ArenaUse::inference);
    try {
      tokenize(*classifier, records, kind, 32, 1);
    } catch (const MismatchError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal(1, 1, TextKind::single), "");
  EXPECT_EQ(refusal(0, 1, TextKind::pair), "");
  EXPECT_EQ(refusal(0, 2, TextKind::single), "") << "no pair is tokenized";
  const std::string single = refusal(2'000'000'000, 0, TextKind::single);
  EXPECT_NE(single.find("tokenizer.json: texts get the token type 2000000000, but config.json's type_vocab_size is 2"),
            std::string::npos)
      << single;
  const std::string pair = refusal(0, 2, TextKind::pair);
  EXPECT_NE(pair.find("pairs get the token type 2,"), std::string::npos) << pair;
}

TEST(Tokenize, RefusesTextsWithoutAnyToken) {
  const TemporaryFolder folder;
  write_tiny_model(folder / "model");
  Records records("data.tsv");
  records.append({.text = "good film", .line = 2});
  records.append({.text = " ", .line = 4});
  const auto load = [&] {
    return Classifier::load(folder / "model", Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26}),
                            LabelSet({"negative", "positive"}), Classifier::Head::renewed, 1, ArenaUse::inference);
  };
  EXPECT_EQ(tokenize(*load(), records, TextKind::single, 32, 1).samples.length(1), 2) << "[CLS] [SEP]";
  write_tokenizer(folder / "model" / "tokenizer.json", 0, 1);
  try {
    tokenize(*load(), records, TextKind::single, 32, 1);
    ADD_FAILURE() << "nothing was refused";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("data.tsv, line 4: the text makes no token"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lathe
