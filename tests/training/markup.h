#pragma once
// What an XML parser says about a document: Python's, since the tests need no other.
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/temporary_folder.h"

namespace lathe {

/// What is wrong with `document`, a whole file or an element; empty where it is well-formed.
inline std::string markup_fault(const std::string& document) {
  const TemporaryFolder folder;
  const auto path = folder / "document";
  std::ofstream(path, std::ios::binary) << document;
  const std::string call = std::string(LATHE_PYTHON) + " -c 'import sys, xml.parsers.expat as x\n" +
                           "try: x.ParserCreate(\"utf-8\").ParseFile(open(sys.argv[1], \"rb\"))\n" +
                           "except x.ExpatError as e: print(e)' " + path.string() + " 2>&1";
  std::FILE* const pipe = ::popen(call.c_str(), "re");
  if (pipe == nullptr) return "python can't be run";
  std::string fault;
  std::array<char, 256> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) fault += part.data();
  const int status = ::pclose(pipe);
  return !fault.empty() || (WIFEXITED(status) && WEXITSTATUS(status) == 0) ? fault : "python failed";
}

/// How often `part` is in `text`.
inline std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

}  // namespace lathe
