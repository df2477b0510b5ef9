// The faults of docs/reliability.md, by number: what a user gets who meets one.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/file_lock.h"
#include "lathe/text/records.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/dataset.h"
#include "lathe/training/finetune.h"
#include "tests/tools/refusal.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kWords = "embeddings.word_embeddings.weight";
constexpr const char* kQuery = "encoder.layer.0.attention.self.query.weight";
constexpr const char* kKey = "encoder.layer.0.attention.self.key.weight";

/// A safetensors file in two parts, to be put together otherwise.
struct Weights {
  Json header;
  std::string data;
};

class Faults : public RefusalTest {
 protected:
  Weights weights() const {
    const std::string whole = contents_of(folder_ / "model" / "model.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, whole.data(), sizeof length);
    return {.header = Json::parse(whole.substr(8, length)), .data = whole.substr(8 + length)};
  }
  void write_weights(const std::string& header, const std::string& data, std::uint64_t length) const {
    std::string whole(sizeof length, '\0');
    std::memcpy(whole.data(), &length, sizeof length);
    write("model/model.safetensors", whole + header + data);
  }
  void write_weights(const Weights& weights) const {
    const std::string header = weights.header.dump();
    write_weights(header, weights.data, header.size());
  }
  /// Refused where the header's entry of `tensor` has `field` as `value`; the message has `facts`.
  void expect_entry_refused(const char* tensor, const char* field, const Json& value, std::vector<std::string> facts) const {
    const std::string before = contents_of(folder_ / "model" / "model.safetensors");
    Weights changed = weights();
    changed.header[tensor][field] = value;
    write_weights(changed);
    facts.insert(facts.begin(), {"model.safetensors", std::string(tensor).substr(0, 25)});
    expect_refused(finetune(), facts);
    write("model/model.safetensors", before);
  }
  /// Puts `numbers` at the front of a tensor.
  void overwrite(const char* tensor, std::vector<float> numbers, std::size_t skip = 0) const {
    Weights changed = weights();
    const auto begin = changed.header[tensor]["data_offsets"][0].get<std::size_t>();
    std::memcpy(changed.data.data() + begin + skip * sizeof(float), numbers.data(), numbers.size() * sizeof(float));
    write_weights(changed);
  }
  CommandResult train(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"--max-steps", "2", "--overwrite"});
    return run_lathe(folder_.path(), finetune(std::move(more)));
  }
  std::string trained_weights() const { return contents_of(folder_ / "run" / "model.safetensors"); }
};

/// Most memory that a process which this one waited for has had.
std::int64_t most_memory_of_children() {
  struct rusage usage = {};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return usage.ru_maxrss * 1024;
}

TEST_F(Faults, F01_TruncatedSafetensors) {
  const std::string whole = contents_of(folder_ / "model" / "model.safetensors");
  for (const std::size_t size : {whole.size() - 1, whole.size() / 2}) {
    write("model/model.safetensors", whole.substr(0, size));
    expect_refused(finetune(), {"model.safetensors", "truncated", std::to_string(whole.size()), std::to_string(size)});
  }
  for (const std::size_t size : {std::size_t{5}, std::size_t{0}}) {
    write("model/model.safetensors", whole.substr(0, size));
    expect_refused(finetune(), {"model.safetensors", fmt::format("has {} bytes", size)});
  }
}

TEST_F(Faults, F02_HeaderLengthOfAnExabyte) {
  const Weights before = weights();
  write_weights(before.header.dump(), before.data, std::uint64_t{1} << 60U);
  expect_refused(finetune(), {"model.safetensors", "offset 0", "1152921504606846976", "100000000"});
  EXPECT_LT(most_memory_of_children(), 1'000'000'000) << "nothing of that size was allocated";
}

TEST_F(Faults, F03_OffsetsThatOverlapLeaveGapsOrTurnRound) {
  const Json offsets = weights().header[kQuery]["data_offsets"];
  const auto begin = offsets[0].get<std::int64_t>();
  const auto end = offsets[1].get<std::int64_t>();
  expect_entry_refused(kQuery, "data_offsets", {end, begin}, {"reverse order"});
  expect_entry_refused(kQuery, "data_offsets", {begin - 4, end - 4}, {"overlaps", fmt::format("offset {}", begin - 4)});
  expect_entry_refused(kQuery, "data_offsets", {begin, end - 4}, {fmt::format("hold {}", end - begin - 4)});
  Weights gap = weights();
  gap.header[kQuery]["data_offsets"] = {begin + 4, end + 4};
  write_weights(gap);
  expect_refused(finetune(), {"model.safetensors", "has a gap", fmt::format("offset {}", begin + 4)});
}

TEST_F(Faults, F03_DuplicateKeys) {
  const Weights before = weights();
  const std::string header = before.header.dump();
  const std::string twice = fmt::format("{{\"{}\":{},", kQuery, before.header[kQuery].dump()) + header.substr(1);
  write_weights(twice, before.data, twice.size());
  expect_refused(finetune(), {"model.safetensors", kQuery, "twice"});
}

TEST_F(Faults, F04_SizesThatOverflowAndOffsetsThatAreNoneOrNegative) {
  expect_entry_refused(kWords, "shape", {std::int64_t{1} << 32, std::int64_t{1} << 32}, {"4294967296"});
  expect_entry_refused(kWords, "shape", {std::int64_t{1} << 62}, {"4611686018427387904"});
  expect_entry_refused(kWords, "shape", {-20, -32}, {"-20"});
  expect_entry_refused(kWords, "data_offsets", {-4, 4}, {"-4"});
  expect_entry_refused(kWords, "data_offsets", {0.5, 4}, {"0.5"});
  expect_entry_refused(kWords, "data_offsets", {0, std::numeric_limits<std::uint64_t>::max()}, {"18446744073709551615"});
}

TEST_F(Faults, F05_WeightsThatAreNotFinite) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  // Rows of [MASK], which no text has: training would not even notice.
  constexpr std::size_t kMaskRow = std::size_t{4} * 32;
  overwrite(kWords, {kNan, kNan, -kInfinity}, kMaskRow);
  expect_refused(finetune(), {"model.safetensors", "3 weights in 1 tensor", std::string(kWords) + " (2 NaN, 1 infinite)",
                              "--allow-non-finite"});
  const CommandResult allowed = train({"--allow-non-finite"});
  EXPECT_EQ(allowed.status, 0) << allowed.error;
  EXPECT_NE(allowed.error.find("warning: 3 weights in 1 tensor"), std::string::npos) << allowed.error;
  // What was trained has them still, and who uses it is told.
  const CommandResult predicted = run_lathe(folder_.path(), {"predict", "--model", path("run")}, "a good film\n");
  EXPECT_EQ(predicted.status, 0) << predicted.error;
  EXPECT_NE(predicted.error.find("(2 NaN, 1 infinite)"), std::string::npos) << predicted.error;

  overwrite(kQuery, {kInfinity});
  overwrite(kKey, {kNan});
  fs::remove_all(folder_ / "run");
  expect_refused(finetune(), {"5 weights in 3 tensors", kWords, " and 1 more"});
}

TEST_F(Faults, F06_UnsupportedTypes) {
  expect_entry_refused(kWords, "dtype", "I32", {"I32", "F32, F16, BF16 or F64"});
  expect_entry_refused(kWords, "dtype", "F8_E9M9", {"F8_E9M9"});
}

TEST_F(Faults, F07_MissingExtraAndMisshapenTensors) {
  Weights changed = weights();
  changed.header["something.else"] = changed.header[kKey];
  changed.header.erase(kKey);  // missing, and one that nobody asked for in its place
  changed.header[kWords]["shape"] = {32, 20};
  changed.header["encoder.layer.9.output.dense.bias"] = changed.header["embeddings.LayerNorm.bias"];
  changed.header.erase("embeddings.LayerNorm.bias");
  write_weights(changed);
  expect_refused(finetune(), {"model.safetensors", "4 tensors do not fit", kWords, "[32, 20]", "[20, 32]"});
  // The library has them all.
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "model" / "model.safetensors");
  const auto expected = bert_tensors(BertConfig::load(folder_ / "model" / "config.json"), 0);
  try {
    match_bert_tensors(file, expected);
    FAIL() << "it fits";
  } catch (const WeightsMismatchError& failure) {
    EXPECT_EQ(failure.problems(),
              (std::vector<std::string>{std::string(kWords) + " is [32, 20], expected [20, 32]",
                                        "encoder.layer.9.output.dense.bias is of a layer beyond the 2 expected",
                                        "embeddings.LayerNorm.bias is missing", std::string(kKey) + " is missing"}));
  }
}

TEST_F(Faults, F07_ANewHeadAndUnusedTensorsAreTold) {
  Weights changed = weights();
  const std::size_t end = changed.data.size();
  changed.header["cls.predictions.bias"] = {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
  changed.data.append(4, '\0');
  write_weights(changed);
  const CommandResult result = train();
  EXPECT_EQ(result.status, 0);
  for (const char* fact : {"new: classifier.weight, classifier.bias", "not used: 'cls.predictions.bias'"})
    EXPECT_NE(result.error.find(fact), std::string::npos) << fact << " is missing in " << result.error;
}

TEST_F(Faults, F08_AVocabularyOfAnotherSize) {
  std::ofstream(folder_ / "model" / "vocab.txt", std::ios::app) << "more\nwords\n";
  expect_refused(finetune(), {"vocab.txt", "22 tokens", "config.json", "20"});
}

TEST_F(Faults, F12_LineEndsAndByteOrderMarksChangeNoToken) {
  const auto with_crlf = [](std::string text) {
    for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 2)) text.replace(at, 1, "\r\n");
    return text;
  };
  const std::string data = contents_of(folder_ / "train.tsv");
  const std::string vocabulary = contents_of(folder_ / "model" / "vocab.txt");
  ASSERT_EQ(train().status, 0);
  const std::string expected = trained_weights();
  write("train.tsv", with_crlf(data));
  ASSERT_EQ(train().status, 0);
  EXPECT_EQ(trained_weights(), expected);
  write("train.tsv", "\xEF\xBB\xBF" + with_crlf(data));
  write("model/vocab.txt", "\xEF\xBB\xBF" + with_crlf(vocabulary));
  const CommandResult marked = train();
  ASSERT_EQ(marked.status, 0);
  EXPECT_EQ(trained_weights(), expected);
  // Nor is a mark part of the first column's name or of the first token.
  EXPECT_NE(marked.error.find("text in \"text\""), std::string::npos) << marked.error;
  EXPECT_EQ(WordPieceTokenizer::load(folder_ / "model").find("[PAD]"), 0);
}

TEST_F(Faults, F13_InvalidUtf8) {
  write("train.tsv", contents_of(folder_ / "train.tsv") + "a \xff film\tpositive\nvery \xC3\tnegative\n");
  const CommandResult result = train();
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_NE(result.error.find("2 rows are not valid UTF-8, first in line 62; such bytes are read as U+FFFD"), std::string::npos)
      << result.error;
  const CommandResult predicted = run_lathe(folder_.path(), {"predict", "--model", path("run")}, "good\n\xFE\n");
  EXPECT_EQ(predicted.status, 0) << predicted.error;
  EXPECT_NE(predicted.error.find("1 of 2 texts not valid UTF-8, first in line 2"), std::string::npos) << predicted.error;
  // A label and a token are names: they can't stand for something else.
  fs::remove_all(folder_ / "run");
  write("labels.tsv", "text\tlabel\ngood\tpositive\nbad\t\xff\n");
  expect_refused(finetune_on("labels.tsv"), {"labels.tsv", "line 3", "\\xFF", "UTF-8"});
  write("model/vocab.txt", "[PAD]\n[UNK]\n\xC0\xAF\n");
  expect_refused(finetune(), {"vocab.txt", "line 3", "\\xC0\\xAF", "UTF-8"});
}

TEST_F(Faults, F14_LabelsThatAreUnknownOrOutOfRange) {
  write("dev.tsv", "text\tlabel\ngood\tpositive\nbad\tangry\n");
  expect_refused(finetune({"--dev", path("dev.tsv")}), {"dev.tsv", "line 3", "'angry'", "'negative', 'positive'"});
  write("numbers.tsv", "text\tlabel\ngood\t1\nbad\t0\n");
  write("beyond.tsv", "text\tlabel\ngood\t1\n\nbad\t2\n");
  expect_refused(finetune_on("numbers.tsv", {"--dev", path("beyond.tsv")}), {"beyond.tsv", "line 4", "'2'", "'0', '1'"});
}

TEST_F(Faults, F15_DataWithoutRecords) {
  write("empty.tsv", "");
  expect_refused(finetune_on("empty.tsv"), {"empty.tsv", "empty"});
  write("header.tsv", "text\tlabel\n");
  expect_refused(finetune_on("header.tsv"), {"header.tsv", "no records after the header"});
  expect_refused(finetune({"--dev", path("header.tsv")}), {"header.tsv", "no records after the header"});
  write("empty.jsonl", "\n\n");
  expect_refused(finetune_on("empty.jsonl"), {"empty.jsonl", "no records"});
}

TEST_F(Faults, F16_RowsOfAnotherWidth) {
  write("wide.tsv", "text\tlabel\ngood\tpositive\nbad\tdull\tnegative\n");
  expect_refused(finetune_on("wide.tsv"), {"wide.tsv", "line 3", "found 3 fields, expected 2", "'text', 'label'"});
  write("narrow.csv", "text,label\ngood,positive\n\nbad\n");
  expect_refused(finetune_on("narrow.csv"), {"narrow.csv", "line 4", "found 1 field, expected 2"});
}

TEST_F(Faults, F16_ALineOf100Megabytes) {
  // NOLINTNEXTLINE(bugprone-string-constructor): the length and the letter are not swapped, it is to be this long
  write("long.tsv", "text\tlabel\ngood\tpositive\n" + std::string(100'000'000, 'x') + "\tnegative\n");
  expect_refused(finetune_on("long.tsv"), {"long.tsv", "line 3", "longer than 67108864 bytes"});
  EXPECT_LT(most_memory_of_children(), 1'000'000'000);
}

TEST_F(Faults, F17_TextsThatAreEmptyTooLongOrOneHugeWord) {
  std::string long_text = "a";
  for (int i = 0; i < 99; ++i) long_text += " film";
  write("odd.tsv", "text\tlabel\n\tpositive\n" + long_text + "\tnegative\n" + std::string(10'000, 'x') + "\tpositive\n");
  const CommandResult result = run_lathe(folder_.path(), finetune_on("odd.tsv", {"--max-steps", "1"}));
  EXPECT_EQ(result.status, 0) << result.error;
  // [CLS] [SEP], 64 of the 102, and [CLS] [UNK] [SEP].
  for (const char* fact : {"the text of 1 row is empty, first in line 2",
                           "69 tokens, 1 of 3 rows cut to 64 tokens (the longest has 102), 1 unknown (1.45 %)"})
    EXPECT_NE(result.error.find(fact), std::string::npos) << fact << " is missing in " << result.error;
  const CommandResult predicted =
      run_lathe(folder_.path(), {"predict", "--model", path("run")}, "\n" + long_text + "\n" + std::string(10'000, 'x'));
  EXPECT_EQ(predicted.status, 0) << predicted.error;
  EXPECT_EQ(std::count(predicted.out.begin(), predicted.out.end(), '\n'), 3);
  EXPECT_NE(predicted.error.find("1 of 3 texts cut to 64 tokens"), std::string::npos) << predicted.error;
  EXPECT_NE(predicted.error.find("1 of 3 texts empty, first in line 1"), std::string::npos) << predicted.error;
}

TEST_F(Faults, F24_MemoryThatIsNotThereIsToldWithABatchSizeThatFits) {
  const DataSet data = read_records(folder_ / "train.tsv");
  const auto load = [&](std::int64_t bytes) {
    return Classifier::load(folder_ / "model", Device::cpu({.threads = 1, .target = {}, .reserved_bytes = bytes}),
                            LabelSet::from_data(data.records), Classifier::Head::kept, 1);
  };
  const auto needed = [&](std::int32_t batch_size) {
    const auto classifier = load(1 << 28);
    LabelledSamples train = {.samples = tokenize(*classifier, data.records, TextKind::single, 64, 1).samples,
                             .labels = classifier->labels().ids_of(data.records)};
    FinetuneSettings settings;
    settings.batch_size = batch_size;
    rehearse(*classifier, train, settings);
    return classifier->device()->memory().peak;
  };
  const std::int64_t enough_for_8 = needed(8) + (1 << 16);
  ASSERT_LT(enough_for_8, needed(16));
  const auto classifier = load(enough_for_8);
  LabelledSamples train = {.samples = tokenize(*classifier, data.records, TextKind::single, 64, 1).samples,
                           .labels = classifier->labels().ids_of(data.records)};
  FinetuneSettings settings;
  try {
    rehearse(*classifier, train, settings);
    FAIL() << "there is no memory for 32 texts";
  } catch (const OutOfMemoryError& failure) {
    const std::string line = failure.what();
    EXPECT_NE(line.find("32 texts"), std::string::npos) << line;
    EXPECT_NE(line.find("MiB more were needed"), std::string::npos) << line;
    EXPECT_NE(line.find("MiB are free"), std::string::npos) << line;
    EXPECT_NE(line.find("--batch-size 8 fits"), std::string::npos) << line;
    EXPECT_GT(failure.requested(), 0);
  }
  // As it says.
  settings.batch_size = 8;
  settings.max_steps = 10;
  FinetuneObserver observer;
  EXPECT_EQ(lathe::finetune(*classifier, train, nullptr, settings, observer).steps, 10);
}

#if !defined(LATHE_NO_ADDRESS_LIMIT)
TEST_F(Faults, F24_WithoutMemoryTheEarlierRunStays) {
  write_tiny_model(folder_ / "model", 4, 64);
  ASSERT_EQ(train().status, 0);
  const std::string before = trained_weights();
  std::string rows = "text\tlabel\n";
  for (int i = 0; i < 2000; ++i) {
    for (int word = 0; word < 60; ++word) rows += i % 2 == 0 ? "good " : "bad ";
    rows += i % 2 == 0 ? "\tpositive\n" : "\tnegative\n";
  }
  write("train.tsv", rows);
  const auto limit_addresses = [] {
    constexpr rlim_t kLimit = rlim_t{1} << 30U;
    const rlimit limit = {kLimit, kLimit};
    ::setrlimit(RLIMIT_AS, &limit);
  };
  const CommandResult refused =
      run_lathe(folder_.path(), finetune({"--overwrite", "--max-steps", "1", "--batch-size", "2000", "--threads", "1"}), "", {},
                limit_addresses);
  EXPECT_EQ(refused.status, 2) << refused.error;
  EXPECT_NE(refused.error.find("lathe: no memory for this run: it needs "), std::string::npos) << refused.error;
  EXPECT_NE(refused.error.find(" a step of up to "), std::string::npos) << refused.error;
  const auto at = refused.error.find("--micro-batch-tokens ");
  ASSERT_NE(at, std::string::npos) << refused.error;
  EXPECT_EQ(trained_weights(), before);
  std::istringstream advice(refused.error.substr(at));
  std::string option;
  std::string size;
  advice >> option >> size;
  const CommandResult advised = run_lathe(
      folder_.path(), finetune({"--overwrite", "--max-steps", "1", "--batch-size", "2000", option, size, "--threads", "1"}), "",
      {}, limit_addresses);
  EXPECT_EQ(advised.status, 0) << advised.error;
  EXPECT_TRUE(trained_weights() != before);
}
#endif

TEST_F(Faults, F24_ALossThatIsNoNumberEndsTheRunAndKeepsTheModel) {
  // Warm-up begins at a rate of 0, so that the first epoch (one step) leaves a good model; the steps behind it are wild.
  expect_refused(finetune({"--lr", "1e30", "--max-grad-norm", "0", "--warmup", "100", "--batch-size", "60", "--epochs", "50"}),
                 {"step ", "loss", "--lr"}, true);
  const SafetensorsFile saved = SafetensorsFile::open(folder_ / "run" / "model.safetensors");
  EXPECT_NE(saved.find("classifier.weight"), nullptr);
}

TEST_F(Faults, F25_TwoRunsToOneFolder) {
  const auto while_it_runs = [&](pid_t first) {
    for (int i = 0; i < 3000 && !fs::exists(folder_ / "run" / "model.safetensors"); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    TemporaryFolder scratch;
    const CommandResult second = run_lathe(scratch.path(), finetune({"--overwrite"}));
    EXPECT_EQ(second.status, 2) << second.error;
    EXPECT_NE(second.error.find(fmt::format("is in use: process {} writes a run there", first)), std::string::npos)
        << second.error;
    EXPECT_TRUE(fs::exists(folder_ / "run" / "model.safetensors")) << "the second has removed nothing";
    ::kill(first, SIGKILL);
  };
  const CommandResult killed = run_lathe(folder_.path(), finetune({"--epochs", "1000000"}), "", while_it_runs);
  EXPECT_EQ(killed.status, 128 + SIGKILL);
  EXPECT_TRUE(fs::exists(folder_ / "run" / ".lathe.lock")) << "what a killed run leaves behind";
  // It hinders nobody.
  EXPECT_EQ(train().status, 0);
  EXPECT_FALSE(fs::exists(folder_ / "run" / ".lathe.lock"));
}

TEST_F(Faults, F25_WhatAKilledRunBeganIsNoRun) {
  fs::create_directory(folder_ / "run");
  write("run/.lathe.lock", "1234\n");
  write("run/run.toml.1234.partial", "# The set");
  const CommandResult result = run_lathe(folder_.path(), finetune({"--max-steps", "1"}));
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_FALSE(fs::exists(folder_ / "run" / "run.toml.1234.partial"));
}

TEST_F(Faults, F25_WeightsThatAreCutWhileInUse) {
  const fs::path weights_path = folder_ / "model" / "model.safetensors";
  const SafetensorsFile file = SafetensorsFile::open(weights_path);
  const TensorEntry& last = file.tensors().back();
  std::vector<float> values(static_cast<std::size_t>(last.elements()));
  EXPECT_NO_THROW(file.read_f32(last, values));
  fs::resize_file(weights_path, fs::file_size(weights_path) / 2);
  try {
    file.read_f32(last, values);
    FAIL() << "half of the file is gone";
  } catch (const FileError& failure) {
    EXPECT_NE(std::string(failure.what()).find("while being read"), std::string::npos) << failure.what();
  }
  EXPECT_THROW(file.bytes(last), FileError);
}

TEST_F(Faults, F25_DataThatIsCutWhileInUse) {
  std::string rows = "text\tlabel\n";
  for (int i = 0; i < 200'000; ++i) rows += "a good film\tpositive\n";
  write("large.tsv", rows);
  RecordReader reader(folder_ / "large.tsv", {});
  Record record;
  ASSERT_TRUE(reader.next(record));
  fs::resize_file(folder_ / "large.tsv", rows.size() / 2);
  try {
    while (reader.next(record)) {
    }
    FAIL() << "half of the data set passed for the whole";
  } catch (const FileError& failure) {
    EXPECT_NE(std::string(failure.what()).find(fmt::format("it had {} when it was opened", rows.size())), std::string::npos)
        << failure.what();
  }
}

}  // namespace
}  // namespace lathe
