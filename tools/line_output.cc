#include "tools/line_output.h"

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "lathe/runtime/error.h"

namespace lathe {

LineOutput::LineOutput(const std::optional<std::filesystem::path>& path) : path_(path.value_or("standard output")) {
  std::signal(SIGPIPE, SIG_IGN);
  if (!path) return;
  file_.reset(std::fopen(path->c_str(), "wbe"));
  if (!file_) throw FileError(*path, fmt::format("cannot be written: {}", std::strerror(errno)));
}

bool LineOutput::write(std::string_view lines) {
  std::FILE* file = file_ ? file_.get() : stdout;
  if (std::fwrite(lines.data(), 1, lines.size(), file) == lines.size() && std::fflush(file) == 0) return true;
  if (errno == EPIPE) return false;
  throw FileError(path_, fmt::format("cannot be written: {}", std::strerror(errno)));
}

}  // namespace lathe
