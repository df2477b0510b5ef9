#pragma once
// Running the `lathe` command as a user does.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace lathe {

struct CommandResult {
  int status = -1;  ///< exit status, or 128 + the signal that ended it
  std::string out, error;
};

inline std::string contents_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Runs a program by its path and arguments; `input` is its standard input; `during` is called with the process number once it runs, `before` in
/// the new process, which then becomes the program. Standard output and error go through files in `scratch`.
inline CommandResult run_program(const std::filesystem::path& scratch, std::vector<std::string> words,
                                 const std::string& input = "", const std::function<void(pid_t)>& during = {},
                                 const std::function<void()>& before = {}) {
  const auto in = scratch / "stdin";
  const auto out = scratch / "stdout";
  const auto error = scratch / "stderr";
  std::ofstream(in, std::ios::binary) << input;
  std::ofstream(out, std::ios::binary) << "";
  std::ofstream(error, std::ios::binary) << "";
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child == 0) {
    ::dup2(::open(in.c_str(), O_RDONLY), 0);
    ::dup2(::open(out.c_str(), O_WRONLY), 1);
    ::dup2(::open(error.c_str(), O_WRONLY), 2);
    if (before) before();
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  if (during) during(child);
  int status = 0;
  ::waitpid(child, &status, 0);
  return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .out = contents_of(out),
          .error = contents_of(error)};
}

/// Runs `lathe` with `arguments`; as run_program.
inline CommandResult run_lathe(const std::filesystem::path& scratch, const std::vector<std::string>& arguments,
                               const std::string& input = "", const std::function<void(pid_t)>& during = {},
                               const std::function<void()>& before = {}) {
  std::vector<std::string> words = {LATHE_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return run_program(scratch, std::move(words), input, during, before);
}

}  // namespace lathe
