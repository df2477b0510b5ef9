// Tokens that are kept in a folder: what is read back, what is refused, and who writes where several want the same.
#include "lathe/training/token_cache.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "lathe/runtime/content_hash.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/file_lock.h"
#include "lathe/training/dataset.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kVocabulary = 20;
constexpr const char* kKey = "texts of at most 8 tokens\nand more";

StoredTokens some_tokens() {
  return {
      .samples = SampleLists{.ids = {2, 5, 3, 2, 19, 7, 3, 2, 3}, .types = {0, 0, 0, 0, 0, 1, 1, 0, 0}, .offsets = {0, 3, 7, 9}},
      .groups = {0, 1, 3},
      .counts = {4, -1, 1'000'000'000'000, 0}};
}

void expect_same(const StoredTokens& a, const StoredTokens& b) {
  EXPECT_TRUE(std::ranges::equal(a.samples.ids, b.samples.ids));
  EXPECT_TRUE(std::ranges::equal(a.samples.types, b.samples.types));
  EXPECT_TRUE(std::ranges::equal(a.samples.offsets, b.samples.offsets));
  EXPECT_EQ(a.groups, b.groups);
  EXPECT_EQ(a.counts, b.counts);
}

/// A token file in memory, at an address that suits it.
class FileInMemory {
 public:
  explicit FileInMemory(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_ = {std::istreambuf_iterator<char>(file), {}};
  }
  std::string& bytes() { return bytes_; }
  TokenFileHeader header() const {
    TokenFileHeader header;
    std::memcpy(&header, bytes_.data(), sizeof(header));
    return header;
  }
  /// Puts `header` in place, with the hashes of what the file now has.
  void seal(TokenFileHeader header) {
    header.content_hash = content_hash_of(std::as_bytes(std::span(bytes_)).subspan(sizeof(header)));
    header.header_hash = content_hash_of(std::as_bytes(std::span(&header, 1)).first(sizeof(header) - 8));
    std::memcpy(bytes_.data(), &header, sizeof(header));
  }
  template <class T>
  void put(std::uint64_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof(value));
  }
  /// What is wrong with it; empty where it is accepted.
  std::string refusal() const {
    const auto memory = std::make_shared<std::vector<std::uint64_t>>(bytes_.size() / 8 + 1);
    std::memcpy(memory->data(), bytes_.data(), bytes_.size());
    try {
      read_token_file(std::as_bytes(std::span(*memory)).first(bytes_.size()), memory, kKey, kVocabulary, "x.tokens");
    } catch (const FormatError& failure) {
      return failure.what();
    }
    return "";
  }

 private:
  std::string bytes_;
};

class TokenFileTest : public testing::Test {
 protected:
  TokenFileTest() { write_token_file(path_, kKey, some_tokens()); }
  std::string refusal_of(std::string_view key, std::int64_t vocabulary) const {
    try {
      open_token_file(path_, key, vocabulary);
    } catch (const FormatError& failure) {
      return failure.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  fs::path path_ = folder_ / "x.tokens";
};

TEST_F(TokenFileTest, IsReadBackAsItWasWritten) {
  expect_same(open_token_file(path_, kKey, kVocabulary), some_tokens());
  const StoredTokens nothing;
  write_token_file(path_, "", nothing);
  expect_same(open_token_file(path_, "", kVocabulary), nothing);
}

TEST_F(TokenFileTest, SamplesOutliveWhatOpenedThem) {
  TokenizedSamples samples;
  {
    const StoredTokens tokens = open_token_file(path_, kKey, kVocabulary);
    samples = tokens.samples;
  }
  fs::remove(path_);
  EXPECT_EQ(samples.ids[4], 19);
  EXPECT_EQ(samples.length(1), 4);
}

TEST_F(TokenFileTest, TypesThatAreAllZeroTakeNoRoom) {
  StoredTokens tokens = some_tokens();
  const auto before = fs::file_size(path_);
  tokens.samples =
      SampleLists{.ids = std::vector<std::int32_t>(9, 2), .types = std::vector<std::int32_t>(9, 0), .offsets = {0, 9}};
  tokens.groups = {};
  write_token_file(path_, kKey, tokens);
  EXPECT_LT(fs::file_size(path_), before);
  EXPECT_TRUE(open_token_file(path_, kKey, kVocabulary).samples.types.empty());
}

TEST_F(TokenFileTest, EveryBitCounts) {
  const FileInMemory whole(path_);
  ASSERT_EQ(whole.refusal(), "");
  for (std::size_t at = 0; at < fs::file_size(path_); ++at) {
    for (const int bit : {0, 7}) {
      FileInMemory file = whole;
      file.bytes()[at] = static_cast<char>(file.bytes()[at] ^ (1 << bit));
      EXPECT_NE(file.refusal(), "") << "bit " << bit << " of byte " << at;
    }
  }
}

TEST_F(TokenFileTest, EveryLengthButItsOwnIsRefused) {
  const FileInMemory whole(path_);
  const std::size_t own = fs::file_size(path_);
  for (std::size_t size = 0; size < own + 70; ++size) {
    if (size == own) continue;
    FileInMemory file = whole;
    file.bytes().resize(size);
    EXPECT_NE(file.refusal(), "") << size << " bytes";
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << file.bytes();
    EXPECT_NE(refusal_of(kKey, kVocabulary), "") << size << " bytes";
    // A header that speaks of that length is no truer.
    if (size < sizeof(TokenFileHeader)) continue;
    TokenFileHeader header = whole.header();
    header.file_bytes = size;
    file.seal(header);
    EXPECT_NE(file.refusal(), "") << size << " bytes";
  }
}

TEST_F(TokenFileTest, SizesThatDoNotFitAreRefusedWhateverTheirHash) {
  for (std::uint64_t TokenFileHeader::*const count :
       {&TokenFileHeader::file_bytes, &TokenFileHeader::key_bytes, &TokenFileHeader::samples, &TokenFileHeader::tokens,
        &TokenFileHeader::types, &TokenFileHeader::groups}) {
    FileInMemory file(path_);
    const std::uint64_t before = file.header().*count;
    // The last are those whose bytes are a whole number of 64-bit turns beside the right ones.
    for (const std::uint64_t value :
         {before + 16, std::uint64_t{1} << 20U, std::uint64_t{1} << 48U, ~std::uint64_t{0}, ~std::uint64_t{0} - 15,
          before + (std::uint64_t{1} << 61U), before + (std::uint64_t{1} << 62U)}) {
      TokenFileHeader header = file.header();
      header.*count = value;
      file.seal(header);
      EXPECT_NE(file.refusal(), "") << value << " instead of " << before;
      header.*count = before;
      file.seal(header);
    }
    EXPECT_EQ(file.refusal(), "");
  }
}

TEST_F(TokenFileTest, NumbersOutOfPlaceAreRefusedWhateverTheirHash) {
  const FileInMemory whole(path_);
  const TokenFileLayout layout = layout_of(whole.header());
  const auto refusal = [&](std::uint64_t at, auto value) {
    FileInMemory file = whole;
    file.put(at, value);
    file.seal(file.header());
    return file.refusal();
  };
  EXPECT_EQ(refusal(layout.offsets + 8, std::int64_t{4}), "") << "another cut";
  for (const std::int64_t cut : {std::int64_t{8}, std::int64_t{-1}, std::int64_t{1} << 40}) {
    EXPECT_NE(refusal(layout.offsets + 8, cut).find("out of order"), std::string::npos) << cut;
    EXPECT_NE(refusal(layout.groups + 8, cut).find("out of order"), std::string::npos) << cut;
  }
  EXPECT_NE(refusal(layout.offsets, std::int64_t{1}), "");
  EXPECT_NE(refusal(layout.offsets + 24, std::int64_t{8}), "");
  EXPECT_EQ(refusal(layout.ids, std::int32_t{19}), "");
  EXPECT_NE(refusal(layout.ids, std::int32_t{20}).find("not in the vocabulary of 20"), std::string::npos);
  EXPECT_NE(refusal(layout.ids, std::int32_t{-1}), "");
  EXPECT_NE(refusal(layout.types, std::int32_t{-1}), "");
}

TEST_F(TokenFileTest, AnotherKeyIsAnotherFile) {
  EXPECT_NE(refusal_of("texts of at most 9 tokens\nand more", kVocabulary).find("other data, or with other settings"),
            std::string::npos);
  EXPECT_NE(refusal_of("", kVocabulary), "");
  EXPECT_NE(refusal_of(kKey, 19), "");
}

TEST_F(TokenFileTest, OtherFilesAreRefused) {
  std::ofstream(path_) << std::string(1000, 'x');
  EXPECT_NE(refusal_of(kKey, kVocabulary).find("is no file of tokens"), std::string::npos);
  std::ofstream(path_) << "";
  EXPECT_NE(refusal_of(kKey, kVocabulary).find("has 0 bytes"), std::string::npos);
  EXPECT_THROW(open_token_file(folder_.path(), kKey, kVocabulary), FileError);
  EXPECT_THROW(open_token_file(folder_ / "absent", kKey, kVocabulary), FileError);
}

/// Of a process that holds a lock. It is gone after a while in any case, also where a test that fails has forgotten it.
[[noreturn]] void wait_to_be_killed() {
  constexpr unsigned kSeconds = 20;
  ::alarm(kSeconds);
  for (;;) ::pause();
}

class TokenCacheTest : public testing::Test {
 protected:
  TokenCache cache(TokenCacheOptions::Use use = TokenCacheOptions::Use::read_and_write) {
    return TokenCache({.folder = tokens_,
                       .use = use,
                       .warn = [this](const std::string& text) { warnings_.push_back(text); },
                       .tell =
                           [this](const std::string& text) {
                             told_.push_back(text);
                             if (when_told_) when_told_();
                           },
                       .patience = std::chrono::milliseconds(50)});
  }
  /// What a call gives, and whether it took what was there.
  bool found_in(TokenCache& cache, const char* key = kKey) {
    const TokenCache::Result result = cache.get(key, kVocabulary, [&] {
      ++made_;
      return some_tokens();
    });
    expect_same(result.tokens, some_tokens());
    return result.found;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    if (!fs::exists(tokens_)) return names;
    for (const auto& file : fs::directory_iterator(tokens_)) names.push_back(file.path().filename().string());
    return names;
  }
  int entries() const {
    const auto names = files();
    return static_cast<int>(std::ranges::count_if(names, [](const std::string& name) { return name.ends_with(".tokens"); }));
  }

  TemporaryFolder folder_;
  fs::path tokens_ = folder_ / "new" / "tokens";
  std::vector<std::string> warnings_, told_;
  std::function<void()> when_told_;
  int made_ = 0;
};

TEST_F(TokenCacheTest, MakesOnceAndFindsAfterwards) {
  TokenCache first = cache();
  EXPECT_FALSE(found_in(first));
  const auto written = fs::last_write_time(first.entry(kKey));
  EXPECT_TRUE(found_in(first));
  TokenCache second = cache();
  EXPECT_TRUE(found_in(second));
  EXPECT_EQ(made_, 1);
  EXPECT_EQ(files(), std::vector<std::string>{second.entry(kKey).filename().string()}) << "neither a lock nor half a file stays";
  EXPECT_EQ(fs::last_write_time(first.entry(kKey)), written);
  EXPECT_FALSE(found_in(second, "another key"));
  EXPECT_EQ(entries(), 2);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(TokenCacheTest, ADamagedFileIsToldOfAndMadeAnew) {
  TokenCache tokens = cache();
  found_in(tokens);
  const fs::path path = tokens.entry(kKey);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-70, std::ios::end);
    file << '!';
  }
  EXPECT_FALSE(found_in(tokens));
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("is damaged: its bytes have another hash; it is not used"), std::string::npos) << warnings_[0];
  EXPECT_TRUE(found_in(tokens));
  std::ofstream(path) << "LatheTok and nothing more";
  EXPECT_FALSE(found_in(tokens));
  EXPECT_TRUE(found_in(tokens));
  EXPECT_EQ(warnings_.size(), 2U);
  EXPECT_EQ(entries(), 1);
}

TEST_F(TokenCacheTest, AFileOfAnotherKeyUnderItsNameIsNotTaken) {
  TokenCache tokens = cache();
  fs::create_directories(tokens_);
  write_token_file(tokens.entry(kKey), "what has the same hash", some_tokens());
  EXPECT_FALSE(found_in(tokens));
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("other data"), std::string::npos) << warnings_[0];
  EXPECT_TRUE(found_in(tokens));
}

TEST_F(TokenCacheTest, ReadsOnlyWhereAskedTo) {
  TokenCache reader = cache(TokenCacheOptions::Use::read_only);
  EXPECT_FALSE(found_in(reader));
  EXPECT_FALSE(fs::exists(folder_ / "new"));
  TokenCache writer = cache();
  found_in(writer);
  EXPECT_TRUE(found_in(reader));
}

TEST_F(TokenCacheTest, WhereNothingCanBeWrittenItIsToldOnce) {
  std::ofstream(folder_ / "file") << "no folder";
  for (const fs::path& folder : {folder_ / "file" / "tokens", fs::path("/proc/self/fdinfo")}) {
    tokens_ = folder;
    warnings_.clear();
    TokenCache tokens = cache();
    EXPECT_FALSE(found_in(tokens));
    EXPECT_FALSE(found_in(tokens, "another key"));
    ASSERT_EQ(warnings_.size(), 1U) << folder;
    EXPECT_NE(warnings_[0].find("tokens are not kept for another time"), std::string::npos) << warnings_[0];
  }
}

TEST_F(TokenCacheTest, AFullDiskIsToldOnceAndLeavesNothing) {
  TokenCache tokens = cache();
  rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{.rlim_cur = 200, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const bool found = found_in(tokens);
  const bool found_again = found_in(tokens, "another key");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(found);
  EXPECT_FALSE(found_again);
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("cannot write: File too large; tokens are not kept"), std::string::npos) << warnings_[0];
  EXPECT_TRUE(files().empty());
}

TEST_F(TokenCacheTest, WhatCannotBeMadeLeavesNothingAndHindersNobody) {
  TokenCache tokens = cache();
  const auto refuse = []() -> StoredTokens { throw UsageError("no such text"); };
  EXPECT_THROW(tokens.get(kKey, kVocabulary, refuse), UsageError);
  EXPECT_TRUE(files().empty());
  EXPECT_FALSE(found_in(tokens));
}

TEST_F(TokenCacheTest, OfProcessesThatWantTheSameOneMakesIt) {
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      TokenCache tokens = cache();
      const TokenCache::Result result = tokens.get(kKey, kVocabulary, [&] {
        std::ofstream(folder_ / "made", std::ios::app) << 'x';
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        return some_tokens();
      });
      ::_exit(std::ranges::equal(result.tokens.samples.ids, some_tokens().samples.ids) && warnings_.empty() ? result.found : 9);
    }
    children.push_back(child);
  }
  int found = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2) << status;
    found += WEXITSTATUS(status);
  }
  EXPECT_EQ(found, kProcesses - 1);
  EXPECT_EQ(fs::file_size(folder_ / "made"), 1U);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(TokenCacheTest, WhoeverIsKilledOverItLeavesItToTheNext) {
  std::array<int, 2> ready = {};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    TokenCache tokens = cache();
    tokens.get(kKey, kVocabulary, [&]() -> StoredTokens {
      std::ofstream(tokens.entry(kKey).string() + fmt::format(".{}.partial", ::getpid())) << "half a file";
      static_cast<void>(::write(ready[1], "x", 1));
      wait_to_be_killed();
    });
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(files().size(), 2U) << "a lock and half a file";
  when_told_ = [&] { ::kill(child, SIGKILL); };
  TokenCache tokens = cache();
  EXPECT_FALSE(found_in(tokens));
  EXPECT_EQ(told_,
            std::vector{fmt::format("waiting for process {}, which tokenizes the same data into {}", child, tokens_.string())});
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(files().size(), 1U) << "what it left is gone";
  EXPECT_TRUE(found_in(tokens));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(TokenCacheTest, NobodyWaitsForASecondThatTries) {
  fs::create_directories(tokens_);
  std::array<int, 2> ready = {};
  ASSERT_EQ(::pipe(ready.data()), 0);
  TokenCache tokens = cache();
  // A process that holds the entry's lock and never makes anything.
  const auto hold = [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto lock = FileLock::take(tokens.entry(kKey) += ".lock");
      static_cast<void>(::write(ready[1], lock ? "x" : "-", 1));
      wait_to_be_killed();
    }
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_EQ(byte, 'x');
    return child;
  };
  const auto end = [](pid_t child) {
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
  };
  const pid_t first = hold();
  pid_t second = 0;
  when_told_ = [&] {
    end(first);
    second = hold();
  };
  EXPECT_FALSE(found_in(tokens)) << "that it comes back is what is tested";
  EXPECT_EQ(made_, 1);
  EXPECT_EQ(entries(), 0) << "the lock is the second's";
  end(second);
  EXPECT_FALSE(found_in(tokens));
  EXPECT_EQ(entries(), 1);
  ::close(ready[0]);
  ::close(ready[1]);
}

/// From texts to tokens, by way of the cache.
class CachedTextTest : public TokenCacheTest {
 protected:
  CachedTextTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 300, 1);
    write_tiny_text(folder_ / "text.txt", 40, 1);
  }
  std::unique_ptr<Classifier> classifier() const {
    return Classifier::load(folder_ / "model", Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26}),
                            LabelSet({"negative", "positive"}), Classifier::Head::renewed, 1, ArenaUse::inference);
  }
};

TEST_F(CachedTextTest, TextsHaveTheSameTokensWithItAndWithoutIt) {
  const auto model = classifier();
  const Records records = read_records(folder_ / "train.tsv").records;
  const TokenizedTexts plain = tokenize(*model, records, TextKind::single, 8, 1);
  EXPECT_GT(plain.truncated, 0) << "of a test that has something to compare";
  TokenCache tokens = cache();
  for (const bool found : {false, true}) {
    const TokenizedTexts cached = tokenize(*model, records, TextKind::single, 8, 2, &tokens);
    EXPECT_EQ(cached.from_cache, found);
    EXPECT_TRUE(std::ranges::equal(cached.samples.ids, plain.samples.ids));
    EXPECT_TRUE(std::ranges::equal(cached.samples.offsets, plain.samples.offsets));
    EXPECT_EQ(cached.truncated, plain.truncated);
    EXPECT_EQ(cached.longest, plain.longest);
    EXPECT_EQ(cached.unknown, plain.unknown);
    EXPECT_EQ(cached.repaired, plain.repaired);
  }
}

TEST_F(CachedTextTest, WhatTokensDependOnMakesAnotherEntry) {
  TokenCache tokens = cache();
  Records records("data.tsv");
  records.append({.text = "good film", .pair = "it is", .label = "a", .line = 2});
  records.append({.text = "bad", .pair = "it", .label = "b", .line = 3});
  const auto found = [&](const Records& of, TextKind kind, std::int32_t length) {
    return tokenize(*classifier(), of, kind, length, 1, &tokens).from_cache;
  };
  EXPECT_FALSE(found(records, TextKind::single, 8));
  EXPECT_FALSE(found(records, TextKind::single, 9));
  EXPECT_FALSE(found(records, TextKind::pair, 8));
  EXPECT_TRUE(found(records, TextKind::single, 8));
  Records shifted("data.tsv");
  shifted.append({.text = "good", .pair = " filmit is", .label = "a", .line = 2});
  shifted.append({.text = "bad", .pair = "it", .label = "b", .line = 3});
  EXPECT_FALSE(found(shifted, TextKind::pair, 8)) << "the same letters, cut elsewhere";
  Records elsewhere("other.csv");
  elsewhere.append({.text = "good film", .label = "c", .line = 5});
  elsewhere.append({.text = "bad", .label = "c", .line = 9});
  EXPECT_TRUE(found(elsewhere, TextKind::single, 8)) << "neither file nor label is what tokens are made of";
  std::ofstream(folder_ / "model" / "tokenizer_config.json") << R"({"do_lower_case": false})";
  EXPECT_FALSE(found(records, TextKind::single, 8)) << "the tokenizer";
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CachedTextTest, AFileMadeByHandWithOtherTextsIsRefused) {
  const auto model = classifier();
  Records records("data.tsv");
  records.append({.text = "good film", .line = 2});
  TokenCache tokens = cache();
  tokenize(*model, records, TextKind::single, 8, 1, &tokens);
  const fs::path path = tokens_ / files().at(0);
  // As many hashes as it takes are right, but there is a text too many.
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  TokenFileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const std::string key = bytes.substr(layout_of(header).key, header.key_bytes);
  write_token_file(path, key, some_tokens());
  EXPECT_THROW(tokenize(*model, records, TextKind::single, 8, 1, &tokens), FormatError);
}

TEST_F(CachedTextTest, DocumentsHaveTheSameSequencesWithItAndWithoutIt) {
  const auto tokenizer = WordPieceTokenizer::load(folder_ / "model");
  const std::vector<fs::path> files = {folder_ / "text.txt"};
  const TokenizedDocuments plain = tokenize_documents(tokenizer, files, 12, 1);
  TokenCache tokens = cache();
  for (const bool found : {false, true}) {
    const TokenizedDocuments cached = tokenize_documents(tokenizer, files, 12, 1, &tokens);
    EXPECT_EQ(cached.from_cache, found);
    EXPECT_TRUE(std::ranges::equal(cached.samples.ids, plain.samples.ids));
    EXPECT_TRUE(std::ranges::equal(cached.samples.offsets, plain.samples.offsets));
    EXPECT_EQ(cached.first_sequence, plain.first_sequence);
    EXPECT_EQ(cached.paragraphs, plain.paragraphs);
    EXPECT_EQ(cached.tokens, plain.tokens);
    EXPECT_EQ(cached.unknown, plain.unknown);
  }
  EXPECT_FALSE(tokenize_documents(tokenizer, files, 13, 1, &tokens).from_cache);
  const std::vector<fs::path> twice = {files[0], files[0]};
  EXPECT_FALSE(tokenize_documents(tokenizer, twice, 12, 1, &tokens).from_cache);
  std::ofstream(files[0], std::ios::app) << "it is warm .\n";
  EXPECT_FALSE(tokenize_documents(tokenizer, files, 12, 1, &tokens).from_cache);
  EXPECT_EQ(entries(), 4);
}

}  // namespace
}  // namespace lathe
