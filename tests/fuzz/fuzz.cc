#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>

namespace lathe::fuzz {

void require(bool holds, std::string_view rule) {
  if (holds) return;
  std::cerr << "broken rule: " << rule << '\n';
  std::abort();
}

MemoryFile::MemoryFile(std::string_view name) : path_(folder_ / name), descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
  require(descriptor_ >= 0, "memory can be had as a file");
  std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(descriptor_), path_);
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

void MemoryFile::hold(Bytes bytes) const {
  const bool held = ::ftruncate(descriptor_, 0) == 0 &&
                    ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  require(held, "memory takes an input");
}

void check_refusal(const Error& error) {
  const std::string_view message = error.what();
  require(error.exit_status() == 2, "what is wrong with a file is the user's to mend");
  require(!message.empty(), "a refusal says something");
  require(message.size() <= kLongestMessage, "a message fits a line");
  require(printable(message) == message, "a message is printable");
  require(message.find('\n') == std::string_view::npos, "a message is one line");
}

}  // namespace lathe::fuzz
