#pragma once
// run.toml: what a run was given and what it resolved to, in the names of the command line.
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lathe {

using RunValue = std::variant<std::int64_t, double, bool, std::string>;

/// A section of a run.toml, keys in order.
struct RunSection {
  std::string name;
  std::vector<std::pair<std::string, RunValue>> values;
};

/// Writes `sections` into `folder`/run.toml, atomically, below a comment.
void write_run_file(const std::filesystem::path& folder, const std::vector<RunSection>& sections);

/// The values of one section of `folder`/run.toml as text; empty where there is no such file. Throws FormatError.
std::map<std::string, std::string> read_run_section(const std::filesystem::path& folder, const std::string& section);

/// A number that changes with the file's contents: "fnv1a64:0123456789abcdef".
std::string content_hash(const std::filesystem::path& path);

}  // namespace lathe
