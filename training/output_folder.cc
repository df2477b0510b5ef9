#include "lathe/training/output_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 11> kRunFiles = {"config.json",  "model.safetensors",      "run.toml",
                                                        "results.json", "metrics.jsonl",          "curves.svg",
                                                        "report.html",  "tokenizer.json",         "tokenizer_config.json",
                                                        "vocab.txt",    "special_tokens_map.json"};
/// The file that tells a run of Lathe's from somebody else's folder.
constexpr std::string_view kMark = "run.toml";

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [rest, ignored] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return rest == folder.end();
}

/// Symbolic links resolved as far as the path exists.
fs::path resolved(const fs::path& path) {
  std::error_code failure;
  fs::path result = fs::weakly_canonical(path, failure);
  if (failure) throw FileError(path, failure.message());
  if (!result.has_filename()) result = result.parent_path();
  return result;
}

/// The nearest folder above `path` that exists.
fs::path existing_parent(const fs::path& path) {
  fs::path parent = path.parent_path();
  while (!parent.empty() && parent != parent.root_path() && !fs::exists(parent)) parent = parent.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

void expect_writable(const fs::path& folder, const fs::path& output) {
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw FileError(output,
                    fmt::format("cannot be written ({}: {}); choose another --output", folder.string(), std::strerror(errno)));
  }
}

}  // namespace

std::span<const std::string_view> run_file_names() { return kRunFiles; }

void check_output_folder(const fs::path& output, const fs::path& model, std::span<const fs::path> inputs, Existing existing) {
  const fs::path target = resolved(output);
  if (is_inside(target, resolved(model))) {
    throw UsageError(fmt::format("--output {} is or lies in the --model folder {}, which stays as it is; choose another folder",
                                 output.string(), model.string()));
  }
  for (const fs::path& input : inputs) {
    if (is_inside(resolved(input), target)) {
      throw UsageError(fmt::format("--output {} holds the data file {}; choose another folder", output.string(), input.string()));
    }
  }
  if (is_inside(resolved(model), target)) {
    throw UsageError(
        fmt::format("--output {} holds the --model folder {}; choose another folder", output.string(), model.string()));
  }
  std::error_code failure;
  const fs::file_status status = fs::status(target, failure);
  if (!fs::exists(status)) {
    const fs::path parent = existing_parent(target);
    if (!fs::is_directory(parent)) throw FileError(output, fmt::format("cannot be created: {} is not a folder", parent.string()));
    expect_writable(parent, output);
    return;
  }
  if (!fs::is_directory(status)) throw FileError(output, "is a file, not a folder; choose another --output");
  expect_writable(target, output);
  if (fs::is_empty(target)) return;
  if (!fs::exists(target / kMark)) {
    throw UsageError(fmt::format("--output {} is not empty and not a run of Lathe's (it has no {}); choose another folder",
                                 output.string(), kMark));
  }
  if (existing == Existing::refuse) {
    throw UsageError(
        fmt::format("--output {} holds an earlier run; choose another folder, or replace it with --overwrite", output.string()));
  }
}

void prepare_output_folder(const fs::path& output) {
  std::error_code failure;
  fs::create_directories(output, failure);
  if (failure) throw FileError(output, fmt::format("cannot be created: {}", failure.message()));
  for (const std::string_view name : kRunFiles) {
    fs::remove(output / name, failure);
    if (failure) throw FileError(output / name, fmt::format("cannot be removed: {}", failure.message()));
  }
}

}  // namespace lathe
