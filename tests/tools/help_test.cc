// What the command says of itself: help, version, completion, the manual page, and what it guesses that somebody meant.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <regex>
#include <sstream>

#include "lathe/runtime/mpi_session.h"
#include "lathe/runtime/nccl_communicator.h"
#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

Strings lines_of(const std::string& text) {
  std::istringstream stream(text);
  Strings lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// An option as --help has it: "--lr RATE", and the text beside and below it.
struct Entry {
  std::string head;
  std::string text;
};

/// The entries of a help text: they start at column 3 with a dash, their text at column 30.
std::vector<Entry> entries_of(const std::string& help) {
  std::vector<Entry> entries;
  bool open = false;
  for (const std::string& line : lines_of(help)) {
    if (line.starts_with("  -")) {
      const auto gap = line.find("  ", 3);
      entries.push_back({.head = line.substr(2, gap == std::string::npos ? gap : gap - 2),
                         .text = gap == std::string::npos ? "" : line.substr(line.find_first_not_of(' ', gap))});
      open = true;
    } else if (open && line.starts_with(std::string(29, ' '))) {
      std::string& text = entries.back().text;
      text += (text.empty() ? "" : " ") + line.substr(29);
    } else {
      open = false;
    }
  }
  return entries;
}

class HelpTest : public testing::Test {
 protected:
  CommandResult lathe(const Strings& arguments) const { return run_lathe(folder_.path(), arguments); }
  std::string help(const std::string& command) const {
    const CommandResult result = lathe({command, "--help"});
    EXPECT_EQ(result.status, 0) << command << result.error;
    EXPECT_EQ(result.error, "");
    return result.out;
  }
  Strings commands() const {
    Strings names;
    bool listed = false;
    for (const std::string& line : lines_of(lathe({"--help"}).out)) {
      if (listed && line.starts_with("  ") && line[2] != ' ') names.push_back(line.substr(2, line.find(' ', 2) - 2));
      if (line.empty()) listed = false;
      if (line == "Commands:") listed = true;
    }
    return names;
  }
  std::string error_line(const Strings& arguments) const {
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::count(result.error.begin(), result.error.end(), '\n'), 1) << result.error;
    return result.error;
  }

  TemporaryFolder folder_;
};

TEST_F(HelpTest, EveryCommandIsListed) {
  const Strings names = commands();
  for (const char* name : {"finetune", "pretrain", "evaluate", "predict", "completion", "man"})
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
}

TEST_F(HelpTest, EveryOptionSaysWhatItIsAndItsDefault) {
  for (const std::string& command : commands()) {
    const std::vector<Entry> entries = entries_of(help(command));
    EXPECT_FALSE(entries.empty()) << command;
    for (const Entry& entry : entries) {
      EXPECT_GT(entry.text.size(), 8U) << command << ' ' << entry.head;
      const bool flag = entry.head.find(' ') == std::string::npos;
      const bool said = entry.text.find("(default: ") != std::string::npos || entry.text.ends_with("(required)");
      EXPECT_TRUE(flag || said) << command << ' ' << entry.head << ": " << entry.text;
      EXPECT_EQ(entry.text.find("(default: )"), std::string::npos) << entry.text;
    }
  }
}

TEST_F(HelpTest, RequiredOptionsAreMarkedAndDemanded) {
  for (const std::string& command : commands()) {
    Strings required;
    for (const Entry& entry : entries_of(help(command))) {
      if (entry.text.ends_with("(required)")) required.push_back(entry.head);
    }
    if (required.empty()) continue;
    EXPECT_NE(help(command).find("Usage: lathe " + command + " " + required.front()), std::string::npos);
    EXPECT_NE(error_line({command}).find(required.front() + " is missing"), std::string::npos) << error_line({command});
  }
  const std::string text = help("finetune");
  EXPECT_NE(text.find("Usage: lathe finetune --model DIR|NAME --train FILE --output DIR [options]"), std::string::npos) << text;
}

TEST_F(HelpTest, LinesFitATerminalAndStatusesAreTold) {
  Strings texts = {lathe({"--help"}).out};
  for (const std::string& command : commands()) texts.push_back(help(command));
  for (const std::string& text : texts) {
    for (const std::string& line : lines_of(text)) EXPECT_LE(line.size(), 80U) << line;
    EXPECT_NE(text.find("Exit status:\n  0    done\n"), std::string::npos) << text;
    EXPECT_NE(text.find("  2    a mistake"), std::string::npos);
    EXPECT_TRUE(text.find("Example") != std::string::npos || text == texts.front()) << text;
  }
}

TEST_F(HelpTest, ExamplesRun) {
  write_tiny_model(folder_ / "all-MiniLM-L6-v2");
  write_tiny_data(folder_ / "train.tsv", 60, 1);
  write_tiny_data(folder_ / "test.tsv", 30, 2);
  write_tiny_data(folder_ / "dev.tsv", 30, 3);
  write_tiny_text(folder_ / "wiki.txt", 60, 4);
  std::ofstream news(folder_ / "news.csv");
  for (int i = 0; i < 40; ++i) news << '"' << i % 2 + 1 << R"(","a film",")" << (i % 2 == 0 ? "good" : "bad") << "\"\n";
  news.close();
  int run = 0;
  for (const std::string& command : commands()) {
    if (command == "man") continue;  // pages on a terminal
    const std::string text = help(command);
    const auto begin = text.find("Example");
    Strings calls;
    bool continued = false;
    for (const std::string& line : lines_of(text.substr(begin, text.find("\n\nExit status") - begin))) {
      if (continued) {
        calls.back() += "\n" + line;
      } else if (line.starts_with("  ")) {
        calls.push_back(line.substr(2));
      }
      continued = line.ends_with('\\');
    }
    EXPECT_FALSE(calls.empty()) << command;
    for (const std::string& call : calls) {
      const std::string script = "cd '" + folder_.path().string() + "' && PATH=\"" +
                                 fs::path(LATHE_COMMAND).parent_path().string() + ":$PATH\"\n" + call + "\n";
      std::ofstream(folder_ / "example.sh") << "set -e\n" << script;
      const int status =
          std::system(("bash '" + (folder_ / "example.sh").string() + "' >'" + (folder_ / "said").string() + "' 2>&1").c_str());
      EXPECT_EQ(status, 0) << call << "\n" << contents_of(folder_ / "said");
      ++run;
    }
  }
  EXPECT_GE(run, 9);
}

TEST_F(HelpTest, MisspeltAndForeignOptionsAreGuessed) {
  const auto meant = [&](const char* given, const char* option) {
    const std::string line = error_line({"finetune", given, "1"});
    EXPECT_EQ(line, "lathe: finetune has no option " + std::string(given) + "; did you mean " + option + "?\n");
  };
  meant("--learning_rate", "--lr");
  meant("--num_train_epochs", "--epochs");
  meant("--per_device_train_batch_size", "--batch-size");
  meant("--output_dir", "--output");
  meant("--model_name_or_path", "--model");
  meant("--batchsize", "--batch-size");
  meant("--epoch", "--epochs");
  EXPECT_EQ(error_line({"finetune", "--frobnicate=1"}),
            "lathe: finetune has no option --frobnicate; `lathe finetune --help` lists them\n");
  EXPECT_EQ(error_line({"finetune", "--lr"}), "lathe: --lr needs a value\n");
  EXPECT_EQ(error_line({"fintune"}), "lathe: there is no command 'fintune'; did you mean finetune?\n");
  EXPECT_EQ(error_line({"train", "--lr", "1"}), "lathe: there is no command 'train'; did you mean finetune?\n");
  EXPECT_EQ(error_line({"zzz"}), "lathe: there is no command 'zzz'; `lathe --help` lists them\n");
  EXPECT_EQ(error_line({"evaluate", "model"}), "lathe: evaluate takes no 'model' there: a value follows its option\n");
  EXPECT_EQ(error_line({"--verson"}), "lathe: lathe has no option --verson; did you mean --version?\n");
}

TEST_F(HelpTest, ThePageForHuggingFacesUsersIsTrue) {
  // Its rows: | `learning_rate` | `--lr RATE` | ...
  const std::string page = contents_of(fs::path(LATHE_SOURCE) / "docs" / "from-hugging-face.md");
  const std::regex row(R"(\n\| `([a-z0-9_]+)` \| `--([a-z-]+)[^`]*` \|)");
  const auto pretraining = page.find("\n## Pre-training");
  ASSERT_NE(pretraining, std::string::npos);
  int rows = 0;
  for (std::sregex_iterator match(page.begin(), page.end(), row), end; match != end; ++match, ++rows) {
    const std::string command = match->position() > static_cast<std::ptrdiff_t>(pretraining) ? "pretrain" : "finetune";
    const std::string given = (*match)[1];
    const std::string option = (*match)[2];
    EXPECT_NE(help(command).find("\n  --" + option), std::string::npos) << option;
    std::string dashed = given;
    std::ranges::replace(dashed, '_', '-');
    if (dashed == option && given == dashed) continue;  // the name that Lathe has
    EXPECT_NE(error_line({command, "--" + given, "1"}).find("did you mean --" + option + "?"), std::string::npos) << given;
  }
  EXPECT_GE(rows, 32);
}

TEST_F(HelpTest, VersionTellsBuildProcessorAndLibraries) {
  const Strings lines = lines_of(lathe({"--version"}).out);
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_TRUE(std::regex_match(lines[0], std::regex(R"(lathe \d+\.\d+\.\d+, matrix products by (oneDNN|Eigen) \d.*)")))
      << lines[0];
  EXPECT_TRUE(std::regex_match(lines[1], std::regex(R"(build: \w+, (GNU|Clang) \d+\.\d+.*)"))) << lines[1];
  EXPECT_TRUE(
      std::regex_match(lines[2], std::regex(R"(instruction sets: x86-64-v3 \(AVX2\), x86-64-v4 \(AVX-512\); this processor .*)")))
      << lines[2];
  EXPECT_TRUE(lines[3] == "backends: cpu" || lines[3] == "backends: cpu, cuda" ||
              lines[3] == "backends: cpu, cuda emulated on the cpu")
      << lines[3];
  const std::string nccl = has_nccl() ? " and " + nccl_library() : "";
  EXPECT_EQ(lines[4], has_mpi() ? "processes: several, by " + mpi_library() + nccl : "processes: one, as this build has no MPI");
  for (const char* library : {"CLI11", "Eigen", "fmt", "nlohmann-json", "OpenMP", "toml\\+\\+", "utf8proc"})
    EXPECT_TRUE(std::regex_search(lines[5], std::regex(std::string(library) + R"( \d+\.\d+)"))) << library << " in " << lines[5];
}

TEST_F(HelpTest, BashCompletesOptionsFilesAndChoices) {
  std::ofstream(folder_ / "train.tsv") << "";
  std::ofstream(folder_ / "two words.tsv") << "";
  fs::create_directory(folder_ / "treasure");
  std::ofstream(folder_ / "lathe.bash") << lathe({"completion", "bash"}).out;
  const auto complete = [&](const std::string& words, int at) {
    std::ofstream(folder_ / "ask.sh") << "cd '" << folder_.path().string() << "'\nsource lathe.bash\nCOMP_WORDS=(" << words
                                      << ")\nCOMP_CWORD=" << at << "\n_lathe\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
    const int status =
        std::system(("bash '" + (folder_ / "ask.sh").string() + "' >'" + (folder_ / "said").string() + "' 2>&1").c_str());
    EXPECT_EQ(status, 0);
    Strings offered = lines_of(contents_of(folder_ / "said"));
    std::ranges::sort(offered);
    return offered;
  };
  EXPECT_EQ(complete("lathe fine", 1), Strings({"finetune"}));
  EXPECT_EQ(complete("lathe --v", 1), Strings({"--version"}));
  EXPECT_EQ(complete("lathe finetune --max", 2), Strings({"--max-grad-norm", "--max-length", "--max-steps"}));
  EXPECT_EQ(complete("lathe predict --max", 2), Strings({"--max-length"})) << "another command, other options";
  EXPECT_EQ(complete("lathe finetune --train tr", 3), Strings({"train.tsv", "treasure"}));
  EXPECT_EQ(complete("lathe finetune --train t", 3), Strings({"train.tsv", "treasure", "two words.tsv"}));
  EXPECT_EQ(complete("lathe finetune --output tr", 3), Strings({"treasure"}));
  EXPECT_EQ(complete("lathe finetune --device ''", 3), Strings({"auto", "cpu", "cuda"}));
  EXPECT_EQ(complete("lathe finetune --device = cu", 4), Strings({"cuda"}));
  EXPECT_EQ(complete("lathe finetune --lr ''", 3), Strings({""})) << "a number is for the user to think of";
  EXPECT_EQ(complete("lathe completion ''", 2), Strings({"bash"})) << "an argument";
  EXPECT_EQ(complete("lathe completion -", 2), Strings({"--help"}));
  // It registers itself.
  const std::string registered = "bash -c 'source " + (folder_ / "lathe.bash").string() + " && complete -p lathe' >'" +
                                 (folder_ / "said").string() + "' 2>&1";
  EXPECT_EQ(std::system(registered.c_str()), 0);
  EXPECT_EQ(contents_of(folder_ / "said"), "complete -F _lathe lathe\n");
}

TEST_F(HelpTest, TheManualPageHasEverythingAndNoWarnings) {
  if (std::system("command -v groff >/dev/null") != 0) GTEST_SKIP() << "groff isn't installed";
  std::ofstream(folder_ / "lathe.1") << lathe({"man"}).out;
  const std::string call = "groff -man -Tascii -ww -P-c -P-b -P-u -rLL=200n '" + (folder_ / "lathe.1").string() + "' >'" +
                           (folder_ / "page").string() + "' 2>'" + (folder_ / "warnings").string() + "'";
  EXPECT_EQ(std::system(call.c_str()), 0);
  EXPECT_EQ(contents_of(folder_ / "warnings"), "");
  const std::string page = contents_of(folder_ / "page");
  for (const std::string& command : commands()) {
    for (const Entry& entry : entries_of(help(command))) EXPECT_NE(page.find(entry.head), std::string::npos) << entry.head;
  }
  EXPECT_NE(page.find("EXIT STATUS"), std::string::npos);
  EXPECT_NE(page.find("echo 'A warm, funny film.' | lathe predict --model sentiment"), std::string::npos) << "quotes stay";
}

}  // namespace
}  // namespace lathe
