#include "lathe/checkpoint/model_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolderPrefix = "models--";

std::optional<fs::path> environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): read before any thread is started
  if (value == nullptr || *value == '\0') return std::nullopt;
  return fs::path(value);
}

/// Whether `name` is one that the Hub allows: letters, digits, '-', '_' and '.', in at most two parts.
bool is_hub_name(std::string_view name) {
  constexpr std::string_view kAllowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./";
  if (name.empty() || name.find_first_not_of(kAllowed) != std::string_view::npos) return false;
  if (name.find("..") != std::string_view::npos || name.find("--") != std::string_view::npos) return false;
  const auto part = [](std::string_view text) { return !text.empty() && text.front() != '.' && text.front() != '-'; };
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) return part(name);
  return part(name.substr(0, slash)) && part(name.substr(slash + 1)) && name.find('/', slash + 1) == std::string_view::npos;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const bool found = text.substr(at).starts_with(from);
    result += found ? to : text.substr(at, 1);
    at += found ? from.size() : 1;
  }
  return result;
}

std::vector<fs::path> folders_in(const fs::path& folder) {
  std::vector<fs::path> folders;
  std::error_code failure;
  for (auto at = fs::directory_iterator(folder, failure); !failure && at != fs::directory_iterator(); at.increment(failure)) {
    std::error_code ignored;
    if (at->is_directory(ignored)) folders.push_back(at->path());
  }
  std::ranges::sort(folders);
  return folders;
}

/// What refs/main names, else the snapshot that was written last.
std::optional<fs::path> snapshot_of(const fs::path& repository) {
  std::ifstream reference(repository / "refs" / "main");
  std::string revision;
  std::error_code ignored;
  const bool named = static_cast<bool>(reference >> revision) && revision.find('/') == std::string::npos;
  if (named && fs::is_directory(repository / "snapshots" / revision, ignored)) return repository / "snapshots" / revision;
  const std::vector<fs::path> snapshots = folders_in(repository / "snapshots");
  const auto newest = std::ranges::max_element(snapshots, {}, [](const fs::path& path) {
    std::error_code unreadable;
    return fs::last_write_time(path, unreadable);
  });
  return newest == snapshots.end() ? std::nullopt : std::optional(*newest);
}

/// Names of the cache's models whose last part is `name`'s.
std::vector<std::string> similar_names(const fs::path& cache, std::string_view name) {
  const std::string_view last = name.substr(name.rfind('/') + 1);
  std::vector<std::string> similar;
  for (const fs::path& folder : folders_in(cache)) {
    const std::string file = folder.filename().string();
    if (!file.starts_with(kFolderPrefix)) continue;
    const std::string known = replaced(std::string_view(file).substr(kFolderPrefix.size()), "--", "/");
    if (std::string_view(known).substr(known.rfind('/') + 1) == last) similar.push_back(known);
  }
  return similar;
}

}  // namespace

fs::path hub_cache_folder() {
  if (const auto cache = environment("HF_HUB_CACHE")) return *cache;
  if (const auto home = environment("HF_HOME")) return *home / "hub";
  if (const auto caches = environment("XDG_CACHE_HOME")) return *caches / "huggingface" / "hub";
  return environment("HOME").value_or("/") / ".cache" / "huggingface" / "hub";
}

fs::path find_model(const fs::path& model, const fs::path& cache) {
  std::error_code ignored;
  const std::string name = model.string();
  if (fs::exists(model, ignored)) return model;
  if (!is_hub_name(name)) throw FileError(model, "does not exist; a model is a folder with config.json and model.safetensors");
  if (const auto snapshot = snapshot_of(cache / (std::string(kFolderPrefix) + replaced(name, "/", "--")))) return *snapshot;
  const std::vector<std::string> similar = similar_names(cache, name);
  if (!similar.empty()) {
    throw FileError(
        model, fmt::format("no such folder, nor a model of that name in {}; did you mean {}?", cache.string(), similar.front()));
  }
  throw FileError(model, fmt::format("no such folder, nor a model of that name in {}; Lathe downloads nothing: `hf download {}` "
                                     "(from `pip install huggingface_hub`) puts it there",
                                     cache.string(), name));
}

}  // namespace lathe
