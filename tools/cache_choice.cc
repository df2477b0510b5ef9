#include "tools/cache_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody changes the environment
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

/// What the user's other caches are in; nothing where there is no home.
std::optional<fs::path> own_folder() {
  if (const auto caches = environment("XDG_CACHE_HOME")) return fs::path(*caches) / "lathe" / "tokens";
  if (const auto home = environment("HOME")) return fs::path(*home) / ".cache" / "lathe" / "tokens";
  return std::nullopt;
}

}  // namespace

std::unique_ptr<TokenCache> choose_token_cache(const std::optional<std::string>& asked, int processes_of_host,
                                               TokenCacheOptions::Use use) {
  if (asked && asked->empty()) throw UsageError("--cache-dir: its name is empty; name a folder, or none for no cache");
  const std::optional<std::string> named = asked ? asked : environment("LATHE_CACHE");
  if (named == "none" || (!named && processes_of_host < 2)) return nullptr;
  const std::optional<fs::path> folder = named ? fs::path(*named) : own_folder();
  if (!folder) return nullptr;
  return std::make_unique<TokenCache>(TokenCacheOptions{.folder = *folder,
                                                        .use = use,
                                                        .warn = [](const std::string& text) { print_warning(text); },
                                                        .tell = [](const std::string& text) { write_message(text + "\n"); }});
}

int tokenizing_threads(const RunningOptions& running, int own, const TokenCache* cache) {
  return cache != nullptr && !running.threads ? std::max(own, default_threads().threads) : own;
}

}  // namespace lathe
