#include "lathe/training/output_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLock = ".lathe.lock";
constexpr std::array<std::string_view, 14> kRunFiles = {
    "config.json", "model.safetensors", "run.toml",       "results.json",          "metrics.jsonl", "curves.svg",
    "report.html", "products.jsonl",    "tokenizer.json", "tokenizer_config.json", "vocab.txt",     "special_tokens_map.json",
    "trace.json",  // of --profile
    kLock};
/// The file that tells a run of Lathe's from somebody else's folder.
constexpr std::string_view kMark = "run.toml";

/// Whether a killed run may have left a file of that name: its lock, or one that it had begun to write (runtime/atomic_file.h).
bool is_leftover(const fs::path& file) {
  const std::string name = file.filename().string();
  if (name == kLock) return true;
  return name.ends_with(".partial") &&
         std::ranges::any_of(kRunFiles, [&](std::string_view run_file) { return name.starts_with(std::string(run_file) + "."); });
}

bool holds_only_leftovers(const fs::path& folder) {
  return std::all_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) { return is_leftover(entry.path()); });
}

[[noreturn]] void refuse_in_use(const fs::path& output, const std::string& holder) {
  throw UsageError(fmt::format("--output {} is in use: {} writes a run there; wait for it, or choose another folder",
                               output.string(), holder));
}

[[noreturn]] void refuse_existing(const fs::path& output) {
  throw UsageError(
      fmt::format("--output {} holds an earlier run; choose another folder, or replace it with --overwrite", output.string()));
}

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
  if (::access(folder.c_str(), R_OK | W_OK | X_OK) != 0) {
    throw FileError(output,
                    fmt::format("cannot be written ({}: {}); choose another --output", folder.string(), std::strerror(errno)));
  }
}

}  // namespace

std::span<const std::string_view> run_file_names() { return kRunFiles; }

void check_output_folder(const fs::path& output, const std::optional<fs::path>& model, std::span<const fs::path> inputs,
                         Existing existing) {
  const fs::path target = resolved(output);
  if (model && is_inside(target, resolved(*model))) {
    throw UsageError(fmt::format("--output {} is or lies in the --model folder {}, which stays as it is; choose another folder",
                                 output.string(), model->string()));
  }
  for (const fs::path& input : inputs) {
    if (is_inside(resolved(input), target)) {
      throw UsageError(fmt::format("--output {} holds the data file {}; choose another folder", output.string(), input.string()));
    }
  }
  if (model && is_inside(resolved(*model), target)) {
    throw UsageError(
        fmt::format("--output {} holds the --model folder {}; choose another folder", output.string(), model->string()));
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
  if (const std::string holder = lock_holder(target / kLock); !holder.empty()) refuse_in_use(output, holder);
  if (holds_only_leftovers(target)) return;
  if (!fs::exists(target / kMark)) {
    throw UsageError(fmt::format("--output {} is not empty and not a run of Lathe's (it has no {}); choose another folder",
                                 output.string(), kMark));
  }
  if (existing == Existing::refuse) refuse_existing(output);
}

FileLock prepare_output_folder(const fs::path& output, Existing existing) {
  std::error_code failure;
  fs::create_directories(output, failure);
  if (failure) throw FileError(output, fmt::format("cannot be created: {}", failure.message()));
  std::optional<FileLock> lock = FileLock::take(output / kLock);
  if (!lock) {
    const std::string holder = lock_holder(output / kLock);
    refuse_in_use(output, holder.empty() ? "another process" : holder);
  }
  // Another run may have come and gone while this one read its data.
  if (existing == Existing::refuse && fs::exists(output / kMark)) refuse_existing(output);
  std::vector<fs::path> old;
  for (const fs::directory_entry& entry : fs::directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    const bool of_a_run = std::ranges::find(kRunFiles, name) != kRunFiles.end() || is_leftover(entry.path());
    if (of_a_run && name != kLock) old.push_back(entry.path());
  }
  for (const fs::path& file : old) {
    fs::remove(file, failure);
    if (failure) throw FileError(file, fmt::format("cannot be removed: {}", failure.message()));
  }
  return std::move(*lock);
}

}  // namespace lathe
