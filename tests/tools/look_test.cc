// The commands that look: tokenize, inspect, check-data.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class LookTest : public testing::Test {
 protected:
  LookTest() { write_tiny_model(folder_ / "model"); }
  std::string path(const fs::path& name) const { return (folder_ / name).string(); }
  void write(const fs::path& name, const std::string& text) const { std::ofstream(folder_ / name, std::ios::binary) << text; }
  CommandResult lathe(const std::vector<std::string>& arguments, const std::string& input = "") const {
    return run_lathe(folder_.path(), arguments, input);
  }
  /// What a command prints as one JSON value.
  Json json(const std::vector<std::string>& arguments) const {
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    return Json::parse(result.out);
  }
  static std::vector<Json> json_lines(const std::string& text) {
    std::istringstream stream(text);
    std::vector<Json> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  TemporaryFolder folder_;
};

void expect_has(const std::string& text, std::string_view part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is missing in: " << text;
}

TEST_F(LookTest, TokenizesStandardInputToJson) {
  const CommandResult result = lathe({"tokenize", "--model", path("model"), "--json"}, "A g\u00F6od film\n\n[SEP] \u4E2D coldly");
  ASSERT_EQ(result.status, 0) << result.error;
  const std::vector<Json> lines = json_lines(result.out);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0], Json::parse(R"({"line":1,"tokens":["[CLS]","a","good","film","[SEP]"],"ids":[2,5,7,6,3],"types":[0,0,0,0,0],
                                     "offsets":[[0,0],[0,1],[2,6],[7,11],[0,0]]})"));
  EXPECT_EQ(lines[1]["ids"], Json::parse("[2,3]"));
  EXPECT_EQ(lines[2]["tokens"], Json::parse(R"(["[CLS]","[SEP]","[UNK]","cold","##ly","[SEP]"])"));
  EXPECT_EQ(lines[2]["offsets"], Json::parse("[[0,0],[0,5],[6,7],[8,12],[12,14],[0,0]]"));
  expect_has(result.error, "3 records, 13 tokens, 7.69 % of them [UNK] (1); 0 records cut to 64 tokens, the longest has 6");
}

TEST_F(LookTest, TokenizesPairsOfAFileCutToALength) {
  write("pairs.csv", "first,second,label\na good film,\"it, is bad\",x\n");
  const std::vector<std::string> call = {
      "tokenize",      "--model", path("model"),  "--data", path("pairs.csv"), "--text-column", "first",
      "--pair-column", "second",  "--max-length", "7"};
  std::vector<std::string> as_json = call;
  as_json.emplace_back("--json");
  const Json line = json(as_json);
  EXPECT_EQ(line["line"], 2);
  EXPECT_EQ(line["tokens"], Json::parse(R"(["[CLS]","a","good","[SEP]","it","[UNK]","[SEP]"])"));
  EXPECT_EQ(line["types"], Json::parse("[0,0,0,0,1,1,1]"));
  EXPECT_EQ(line["offsets"], Json::parse("[[0,0],[0,1],[2,6],[0,0],[0,2],[2,3],[0,0]]"));
  const CommandResult table = lathe(call);
  ASSERT_EQ(table.status, 0) << table.error;
  expect_has(table.out, "line 2: 7 tokens\n");
  expect_has(table.out, "text      2-6      good\n");
  expect_has(table.out, "pair      0-2      it\n");
  expect_has(table.error, "1 record cut to 7 tokens, the longest has 10");
}

TEST_F(LookTest, TokenizeNeedsATokenizerAndNothingElse) {
  fs::remove(folder_ / "model" / "model.safetensors");
  fs::remove(folder_ / "model" / "config.json");
  EXPECT_EQ(lathe({"tokenize", "--model", path("model")}, "a film").status, 0);
  fs::remove(folder_ / "model" / "vocab.txt");
  const CommandResult refused = lathe({"tokenize", "--model", path("model")}, "a film");
  EXPECT_EQ(refused.status, 2);
  expect_has(refused.error, "vocab.txt");
}

TEST_F(LookTest, TokenizeKeepsTheOrderByAnyNumberOfThreads) {
  std::string text;
  for (int i = 0; i < 10'000; ++i) text += std::string(static_cast<std::size_t>(i % 7), 'a') + " film\n";
  const std::vector<std::string> call = {"tokenize", "--model", path("model"), "--json", "--threads"};
  std::vector<std::string> one = call;
  one.emplace_back("1");
  std::vector<std::string> three = call;
  three.emplace_back("3");
  const CommandResult a = lathe(one, text);
  const CommandResult b = lathe(three, text);
  EXPECT_EQ(a.status, 0);
  EXPECT_EQ(a.out, b.out);
  const std::vector<Json> lines = json_lines(a.out);
  ASSERT_EQ(lines.size(), 10'000U);
  for (std::size_t i = 0; i < lines.size(); ++i) ASSERT_EQ(lines[i]["line"], i + 1);
}

TEST_F(LookTest, AClosedPipeEndsQuietly) {
  std::string text = "text\tlabel\n";
  for (int i = 0; i < 20'000; ++i) text += "a good film\tx\n";
  write("train.tsv", text);
  const std::string call = std::string(LATHE_COMMAND) + " tokenize --json --model " + path("model") + " --data " +
                           path("train.tsv") + " 2>" + path("errors") + "; test $? -eq 0 || echo failed >>" + path("errors");
  ASSERT_EQ(std::system(("{ " + call + "; } | head -n 1 >" + path("head")).c_str()), 0);
  EXPECT_EQ(Json::parse(contents_of(folder_ / "head"))["line"], 2);
  EXPECT_EQ(contents_of(folder_ / "errors"), "");
}

TEST_F(LookTest, InspectsAModelThatFits) {
  const Json found = json({"inspect", path("model"), "--json"});
  EXPECT_EQ(found["findings"], Json::array());
  EXPECT_EQ(found["tensors"].size(), 5U + 2 * 16 + 2);
  EXPECT_EQ(found["tokenizer"]["tokens"], 20);
  EXPECT_EQ(found["configuration"]["hidden_size"], 32);
  EXPECT_EQ(found["types"]["F32"]["elements"], found["parameters"]);
  std::int64_t parameters = 0;
  for (const auto& [name, totals] : found["modules"].items()) parameters += totals["elements"].get<std::int64_t>();
  EXPECT_EQ(found["parameters"], parameters);
  const CommandResult text = lathe({"inspect", path("model")});
  ASSERT_EQ(text.status, 0) << text.error;
  expect_has(text.out, "encoder.layer.1.output.dense.weight");
  expect_has(text.out, "findings: none\n");
  EXPECT_EQ(text.error, "");
  // A file alone is its tensors.
  const Json file = json({"inspect", path("model/model.safetensors"), "--json"});
  EXPECT_FALSE(file.contains("configuration"));
  EXPECT_EQ(file["tensors"], found["tensors"]);
}

TEST_F(LookTest, InspectFindsWhatDoesNotFitAndIsNotFinite) {
  // NaN into the last value of the file, a layer and tokens that the file lacks.
  std::string weights = contents_of(folder_ / "model" / "model.safetensors");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  weights.replace(weights.size() - sizeof nan, sizeof nan, reinterpret_cast<const char*>(&nan), sizeof nan);
  write("model/model.safetensors", weights);
  Json config = Json::parse(contents_of(folder_ / "model" / "config.json"));
  config["num_hidden_layers"] = 3;
  config["vocab_size"] = 300;
  write("model/config.json", config.dump());
  const Json found = json({"inspect", path("model"), "--json"});
  EXPECT_EQ(found["configuration"]["missing"].size(), 16U);
  EXPECT_EQ(found["configuration"]["misfits"].size(), 1U);
  ASSERT_EQ(found["findings"].size(), 1U + 16 + 1 + 1);
  expect_has(found["findings"][0], "not finite: 1 NaN, 0 infinite");
  expect_has(found["findings"].back(), "has 20 tokens");
  // Without a configuration that Lathe reads the tensors are listed all the same.
  config["model_type"] = "gpt2";
  write("model/config.json", config.dump());
  const CommandResult other = lathe({"inspect", path("model")});
  EXPECT_EQ(other.status, 0);
  expect_has(other.out, "finding: ");
  expect_has(other.out, "\"gpt2\"");
}

TEST_F(LookTest, InspectRefusesWhatIsNoModel) {
  const std::string weights = contents_of(folder_ / "model" / "model.safetensors");
  write("cut.safetensors", weights.substr(0, weights.size() / 2));
  for (const char* name : {"cut.safetensors", "absent", "model/config.json"}) {
    const CommandResult result = lathe({"inspect", path(name)});
    EXPECT_EQ(result.status, 2) << name;
    EXPECT_EQ(result.out, "") << name;
    expect_has(result.error, name);
  }
}

TEST_F(LookTest, ChecksData) {
  write("train.tsv",
        "id\ttext\tlabel\n1\ta good film\tpositive\n2\ta bad film\tnegative\n3\ta good  film\tnegative\n4\tit is "
        "\xFF\tpositive\n5\t\tpositive\n");
  write("dev.tsv", "id\ttext\tlabel\n1\t a bad film\tnegative\n2\tit is warm\tmixed\n");
  const Json found = json({"check-data", path("train.tsv"), "--dev", path("dev.tsv"), "--model", path("model"), "--json"});
  const Json& data = found["data"];
  EXPECT_EQ(data["rows"], 5);
  EXPECT_EQ(data["ignored_columns"][0]["name"], "id");
  EXPECT_EQ(data["labels"][0], Json::parse(R"({"label":"positive","rows":3,"first_line":2})"));
  EXPECT_EQ(data["duplicate_rows"], 1);
  EXPECT_EQ(data["contradictions"][0],
            Json::parse(R"({"first_line":2,"line":4,"first_label":"positive","label":"negative","text":"a good  film"})"));
  EXPECT_EQ(data["invalid_utf8_rows"], 1);
  EXPECT_EQ(data["empty_texts"], 1);
  EXPECT_EQ(data["tokens"]["total"], 5 + 5 + 5 + 4 + 2);
  EXPECT_EQ(data["max_length"][0], Json::parse(R"({"max_length":64,"rows_cut":0,"tokens_lost":0})"));
  EXPECT_EQ(found["overlap"]["dev_rows_in_data"], 1);
  EXPECT_EQ(found["overlap"]["labels_only_in_dev"][0]["label"], "mixed");

  const CommandResult text = lathe({"check-data", path("train.tsv"), "--dev", path("dev.tsv")});
  ASSERT_EQ(text.status, 0) << text.error;
  EXPECT_EQ(text.error, "");
  for (const char* part :
       {"always answering \"positive\" would be right in 60.0 %", "warning: 1 row (20.0 %) with the text of an earlier row",
        R"(lines 2 and 4 ("positive" and "negative"): a good  film)", "warning: 1 row not valid UTF-8, first in line 5",
        "the label \"mixed\" is in the dev file alone", "are told with --model"}) {
    expect_has(text.out, part);
  }
}

TEST_F(LookTest, CheckDataRefusesWhatIsNoDataSet) {
  write("bad.tsv", "text\tlabel\na\tb\tc\n");
  const CommandResult result = lathe({"check-data", path("bad.tsv")});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.out, "");
  expect_has(result.error, "line 2");
  write("good.tsv", "text\tlabel\na\tb\nc\td\n");
  const CommandResult mistyped = lathe({"check-data", path("good.tsv"), "--label-column", "lable"});
  EXPECT_EQ(mistyped.status, 2);
  EXPECT_EQ(mistyped.out, "");
  expect_has(mistyped.error, "--label-column lable: ");
}

TEST_F(LookTest, HelpShowsExamples) {
  for (const char* command : {"tokenize", "inspect", "check-data"}) {
    const CommandResult help = lathe({command, "--help"});
    EXPECT_EQ(help.status, 0);
    expect_has(help.out, std::string("lathe ") + command);
    expect_has(help.out, "Exit status:");
  }
}

}  // namespace
}  // namespace lathe
