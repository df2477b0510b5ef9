// Tokens kept between runs, as a user meets them: the same model to the byte, and no text tokenized twice.
#include <algorithm>
#include <cstdlib>
#include <map>

#include "tests/tools/refusal.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

class CacheCommand : public RefusalTest {
 protected:
  CacheCommand() {
    write_tiny_data(folder_ / "dev.tsv", 20, 2);
    write_tiny_text(folder_ / "text.txt", 40, 1);
  }
  CommandResult lathe(const Strings& arguments, const std::map<std::string, std::string>& variables = {}) const {
    return run_lathe(folder_.path(), arguments, "", {}, [&] {
      ::unsetenv("LATHE_CACHE");
      for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    });
  }
  Strings train(const char* output, Strings more) const {
    Strings arguments = {"finetune", "--model",       path("model"), "--train",    path("train.tsv"),
                         "--dev",    path("dev.tsv"), "--output",    path(output), "--max-steps",
                         "2",        "--threads",     "1",           "--device",   "cpu"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Strings pretrain(const char* output, Strings more) const {
    Strings arguments = {
        "pretrain",    "--model", path("model"), "--train", path("text.txt"), "--dev", "0.2",          "--output", path(output),
        "--max-steps", "2",       "--threads",   "1",       "--batch-tokens", "128",   "--max-length", "32",       "--device",
        "cpu"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  /// What is in a folder, and when it was written.
  static std::map<std::string, fs::file_time_type> files(const fs::path& folder) {
    std::map<std::string, fs::file_time_type> found;
    if (!fs::exists(folder)) return found;
    for (const auto& file : fs::directory_iterator(folder))
      found.emplace(file.path().filename().string(), file.last_write_time());
    return found;
  }
  static std::size_t count(const std::string& text, std::string_view part) {
    std::size_t times = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++times;
    return times;
  }
  /// The lines that say what was tokenized, without where it came from.
  static std::string token_lines(const std::string& error) {
    std::string lines;
    std::istringstream stream(error);
    for (std::string line; std::getline(stream, line);) {
      if (line.find("unknown") == std::string::npos) continue;
      lines += line.substr(0, line.find(kFromCache)) + "\n";
    }
    return lines;
  }
  static constexpr const char* kFromCache = ", from the cache";
};

TEST_F(CacheCommand, ARunFromTheCacheLeavesTheSameModel) {
  for (const bool pre : {false, true}) {
    const auto run = [&](const char* output, Strings more) {
      CommandResult result = lathe(pre ? pretrain(output, std::move(more)) : train(output, std::move(more)));
      EXPECT_EQ(result.status, 0) << result.error;
      return result;
    };
    const std::size_t sets = pre ? 1 : 2;
    const fs::path cache = folder_ / (pre ? "documents" : "texts");
    const CommandResult plain = run(pre ? "a" : "p", {});
    const CommandResult first = run(pre ? "b" : "q", {"--cache-dir", cache.string()});
    const auto written = files(cache);
    EXPECT_EQ(written.size(), sets);
    const CommandResult second = run(pre ? "c" : "r", {"--cache-dir", cache.string()});
    EXPECT_EQ(files(cache), written) << "nothing is written twice";
    EXPECT_EQ(count(plain.error, kFromCache) + count(first.error, kFromCache), 0U) << first.error;
    EXPECT_EQ(count(second.error, kFromCache), sets) << second.error;
    EXPECT_NE(token_lines(plain.error), "");
    EXPECT_EQ(token_lines(first.error), token_lines(plain.error));
    EXPECT_EQ(token_lines(second.error), token_lines(plain.error));
    const std::string weights = contents_of(folder_ / (pre ? "a" : "p") / "model.safetensors");
    ASSERT_FALSE(weights.empty());
    EXPECT_EQ(contents_of(folder_ / (pre ? "b" : "q") / "model.safetensors"), weights);
    EXPECT_EQ(contents_of(folder_ / (pre ? "c" : "r") / "model.safetensors"), weights);
  }
}

TEST_F(CacheCommand, WhatTokensDependOnMakesOthers) {
  const std::string cache = path("cache");
  std::string rows = "first\tsecond\tlabel\n";
  for (int i = 0; i < 20; ++i) rows += i % 2 == 0 ? "good film\twarm\ta\n" : "dull film\tcold\tb\n";
  write("rows.tsv", rows);
  const auto found = [&](const Strings& more) {
    Strings arguments = {"finetune",  "--model",     path("model"), "--train", path("rows.tsv"), "--output",
                         path("run"), "--overwrite", "--max-steps", "1",       "--threads",      "1",
                         "--device",  "cpu",         "--cache-dir", cache};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    return count(result.error, kFromCache) == 1;
  };
  EXPECT_FALSE(found({"--text-column", "first"}));
  EXPECT_FALSE(found({"--text-column", "second"}));
  EXPECT_FALSE(found({"--text-column", "first", "--pair-column", "second"}));
  EXPECT_FALSE(found({"--text-column", "first", "--max-length", "9"}));
  EXPECT_TRUE(found({"--text-column", "first"}));
  write("rows.tsv", rows + "a film\tit\ta\n");
  EXPECT_FALSE(found({"--text-column", "first"}));
  EXPECT_EQ(files(cache).size(), 5U);
}

TEST_F(CacheCommand, IsWhereOptionOrEnvironmentSay) {
  const std::map<std::string, std::string> set = {{"LATHE_CACHE", path("env")}, {"XDG_CACHE_HOME", path("xdg")}};
  EXPECT_EQ(lathe(train("a", {}), {{"XDG_CACHE_HOME", path("xdg")}}).status, 0);
  EXPECT_EQ(lathe(train("b", {"--cache-dir", "none"}), set).status, 0);
  EXPECT_EQ(lathe(train("c", {"--dry-run"}), set).status, 0);
  EXPECT_EQ(files(path("env")).size() + files(path("xdg")).size(), 0U) << "one process, none, and a dry run";
  EXPECT_EQ(lathe(train("d", {}), set).status, 0);
  EXPECT_EQ(files(path("env")).size(), 2U);
  EXPECT_EQ(count(lathe(train("e", {"--dry-run"}), set).error, kFromCache), 2U) << "a dry run reads what is there";
  EXPECT_EQ(count(lathe({"evaluate", "--model", path("d"), "--data", path("dev.tsv")}, set).error, kFromCache), 1U);
  EXPECT_EQ(lathe(train("f", {"--cache-dir", path("given")}), set).status, 0);
  EXPECT_EQ(files(path("given")).size(), 2U);
  EXPECT_EQ(files(path("xdg")).size(), 0U);
  EXPECT_FALSE(fs::exists(folder_ / "none"));
  expect_refused(finetune({"--cache-dir", ""}), {"--cache-dir", "empty"});
}

TEST_F(CacheCommand, AFolderThatCannotBeWrittenIsToldOnceAndNoReasonToStop) {
  for (const auto& arguments :
       {train("a", {"--cache-dir", "/proc/self/fdinfo"}), pretrain("b", {"--cache-dir", path("train.tsv")})}) {
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    EXPECT_EQ(count(result.error, "warning: "), 1U) << result.error;
    EXPECT_EQ(count(result.error, "tokens are not kept for another time\n"), 1U) << result.error;
  }
  EXPECT_TRUE(fs::exists(folder_ / "a" / "model.safetensors"));
}

TEST_F(CacheCommand, ADamagedFileIsToldOfAndWrittenAnew) {
  const Strings more = {"--cache-dir", path("cache"), "--overwrite"};
  ASSERT_EQ(lathe(train("a", more)).status, 0);
  const std::string weights = contents_of(folder_ / "a" / "model.safetensors");
  for (const auto& [name, time] : files(path("cache"))) {
    std::string bytes = contents_of(folder_ / "cache" / name);
    bytes.resize(bytes.size() - 1);
    write(fs::path("cache") / name, bytes);
  }
  const CommandResult result = lathe(train("a", more));
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_EQ(count(result.error, "; it is not used\n"), 2U) << result.error;
  EXPECT_EQ(contents_of(folder_ / "a" / "model.safetensors"), weights);
  EXPECT_EQ(count(lathe(train("a", more)).error, kFromCache), 2U);
}

#ifdef LATHE_MPIEXEC
TEST_F(CacheCommand, RanksOfAHostTokenizeOnceIntoAFolderOfTheUsersOwn) {
  const auto on_two = [&](const char* output) {
    Strings words = {LATHE_MPIEXEC, "-np", "2", LATHE_COMMAND};
    const Strings arguments = train(output, {});
    words.insert(words.end(), arguments.begin(), arguments.end());
    return run_lathe(folder_.path(), {}, "", {}, [&] {
      ::unsetenv("LATHE_CACHE");
      ::setenv("XDG_CACHE_HOME", path("xdg").c_str(), 1);
      for (const auto& [name, value] : std::map<std::string, std::string>{{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                                                                          {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                                                                          {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
                                                                          {"OMPI_MCA_pml", "ob1"},
                                                                          {"OMPI_MCA_btl", "self,vader"},
                                                                          {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
                                                                          {"OMPI_MCA_plm", "isolated"},
                                                                          {"OMPI_MCA_oob_tcp_if_include", "lo"},
                                                                          {"PMIX_MCA_ptl_tcp_if_include", "lo"},
                                                                          {"ASAN_OPTIONS", "detect_leaks=0"}})
        ::setenv(name.c_str(), value.c_str(), 1);
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    });
  };
  const CommandResult first = on_two("a");
  EXPECT_EQ(first.status, 0) << first.error;
  const auto written = files(folder_ / "xdg" / "lathe" / "tokens");
  EXPECT_EQ(written.size(), 2U) << first.error;
  const CommandResult second = on_two("b");
  EXPECT_EQ(second.status, 0) << second.error;
  EXPECT_EQ(count(second.error, kFromCache), 2U) << "rank 0's word: " << second.error;
  EXPECT_EQ(files(folder_ / "xdg" / "lathe" / "tokens"), written);
  EXPECT_EQ(contents_of(folder_ / "a" / "model.safetensors"), contents_of(folder_ / "b" / "model.safetensors"));
}
#endif

}  // namespace
}  // namespace lathe
