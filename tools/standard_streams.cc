#include "tools/standard_streams.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "lathe/runtime/error.h"

namespace lathe {

void open_standard_streams() {
  // Output is opened for reading, so that writing to it fails as it would have.
  constexpr std::array<int, 3> kModes = {O_RDONLY, O_RDONLY, O_WRONLY};
  // The lowest number that is free is the one that is given out.
  for (int number = 0; number < static_cast<int>(kModes.size()); ++number) {
    if (::fcntl(number, F_GETFD) < 0 && errno == EBADF) ::open("/dev/null", kModes[static_cast<std::size_t>(number)]);
  }
}

void write_message(std::string_view text) noexcept { static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr)); }

void flush_output() {
  if (std::fflush(stdout) != 0 && errno != EPIPE)
    throw FileError("standard output", fmt::format("cannot be written: {}", std::strerror(errno)));
}

}  // namespace lathe
