#pragma once
// Lines of results, to a file or to standard output.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

namespace lathe {

/// Passes on what is written before more is made, so that whoever reads a pipe isn't kept waiting.
class LineOutput {
 public:
  /// To a file, else to standard output. From now on a reader that goes away is told by write(), not by a signal. Throws FileError.
  explicit LineOutput(const std::optional<std::filesystem::path>& path = std::nullopt);
  /// Writes one or more whole lines. False where the reader has gone away: the command then ends quietly. Throws FileError.
  bool write(std::string_view lines);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace lathe
