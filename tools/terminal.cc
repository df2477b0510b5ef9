#include "tools/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "tools/standard_streams.h"

namespace lathe {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
  return value == nullptr ? "" : value;
}

}  // namespace

bool is_terminal(int file) { return ::isatty(file) != 0 && environment("TERM") != "dumb"; }

std::string coloured(std::string_view text, Tone tone) {
  // https://no-color.org: set and not empty.
  if (!is_terminal(STDERR_FILENO) || !environment("NO_COLOR").empty()) return std::string(text);
  const int colour = tone == Tone::error ? 31 : tone == Tone::warning ? 33 : 32;
  return fmt::format("\x1b[{}m{}\x1b[0m", colour, text);
}

void print_error(std::string_view message) { write_message(fmt::format("{} {}\n", coloured("lathe:", Tone::error), message)); }

void print_warning(std::string_view message) {
  write_message(fmt::format("{} {}\n", coloured("warning:", Tone::warning), message));
}

}  // namespace lathe
