// What only a terminal gets: colour and the bar.
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <map>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

using Variables = std::map<std::string, std::string>;

/// Runs the command in a terminal of its own and returns all that it shows.
std::string on_a_terminal(const std::vector<std::string>& arguments, const Variables& variables) {
  std::vector<std::string> words = {LATHE_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child < 0) throw std::runtime_error("no terminal can be made");
  if (child == 0) {
    ::unsetenv("NO_COLOR");
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  std::string shown;
  std::array<char, 4096> buffer{};
  // The terminal of a child that ended is an error of read().
  for (ssize_t n = 0; (n = ::read(terminal, buffer.data(), buffer.size())) > 0;)
    shown.append(buffer.data(), static_cast<std::size_t>(n));
  ::close(terminal);
  ::waitpid(child, nullptr, 0);
  return shown;
}

class TerminalTest : public testing::Test {
 protected:
  TerminalTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 120, 1);
  }
  std::vector<std::string> finetune(const char* output) const {
    return {"finetune",
            "--model",
            (folder_ / "model").string(),
            "--train",
            (folder_ / "train.tsv").string(),
            "--dev",
            "0.2",
            "--epochs",
            "30",
            "--output",
            (folder_ / output).string()};
  }
  TemporaryFolder folder_;
};

TEST_F(TerminalTest, ErrorsAreRed) {
  EXPECT_EQ(on_a_terminal({"nonsense"}, {{"TERM", "xterm"}}),
            "\x1b[31mlathe:\x1b[0m there is no command 'nonsense'; `lathe --help` lists them\r\n");
}

TEST_F(TerminalTest, TheBarMovesAndTheBestEpochIsGreen) {
  const std::string shown = on_a_terminal(finetune("run"), {{"TERM", "xterm"}});
  EXPECT_NE(shown.find("\r\x1b[K["), std::string::npos) << shown;
  EXPECT_NE(shown.find("\x1b[32m, the best so far: saved\x1b[0m"), std::string::npos) << shown;
}

TEST_F(TerminalTest, NoColorTakesTheColourAndLeavesTheBar) {
  const std::string shown = on_a_terminal(finetune("run"), {{"TERM", "xterm"}, {"NO_COLOR", "1"}});
  EXPECT_EQ(shown.find("\x1b[3"), std::string::npos) << shown;
  EXPECT_NE(shown.find("\r\x1b[K["), std::string::npos) << shown;
  EXPECT_NE(on_a_terminal({"nonsense"}, {{"TERM", "xterm"}, {"NO_COLOR", ""}}).find("\x1b[31m"), std::string::npos)
      << "an empty variable says nothing";
}

TEST_F(TerminalTest, DumbTerminalsAndFilesGetPlainText) {
  const std::string shown = on_a_terminal(finetune("run"), {{"TERM", "dumb"}});
  EXPECT_EQ(shown.find('\x1b'), std::string::npos) << shown;
  EXPECT_NE(shown.find("the best so far"), std::string::npos);
  const CommandResult to_files = run_lathe(folder_.path(), finetune("files"));
  EXPECT_EQ(to_files.status, 0) << to_files.error;
  EXPECT_EQ((to_files.out + to_files.error).find('\x1b'), std::string::npos);
  EXPECT_TRUE(to_files.out.starts_with("dev: ")) << "results on standard output, and nothing else: " << to_files.out;
}

}  // namespace
}  // namespace lathe
