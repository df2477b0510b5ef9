#include "lathe/training/token_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <optional>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>

#include "lathe/runtime/content_hash.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/file_lock.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

/// Which file lies under a name: a file that took its place is another one.
using Identity = std::optional<std::tuple<dev_t, ino_t, off_t, std::int64_t, std::int64_t>>;
Identity identity_of(const fs::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return std::tuple{status.st_dev, status.st_ino, status.st_size, std::int64_t{status.st_mtim.tv_sec},
                    std::int64_t{status.st_mtim.tv_nsec}};
}

/// What a writer of this entry left that was killed. Whoever holds the entry's lock is the only one to write it.
void remove_leftovers(const fs::path& entry) {
  std::error_code failure;
  for (auto at = fs::directory_iterator(entry.parent_path(), failure); !failure && at != fs::directory_iterator();
       at.increment(failure)) {
    const std::string name = at->path().filename().string();
    std::error_code ignored;
    if (name.starts_with(entry.filename().string() + ".") && name.ends_with(".partial")) fs::remove(at->path(), ignored);
  }
}

/// The lock `path`; nothing where another process took it after the first that was waited for: that one has gone, with an entry or without.
std::optional<FileLock> wait_for(const fs::path& path, const TokenCacheOptions& options) {
  constexpr std::chrono::milliseconds kPause{20};
  const auto begin = std::chrono::steady_clock::now();
  std::string first;
  for (bool told = false;;) {
    if (auto lock = FileLock::take(path)) return lock;
    std::string holder = lock_holder(path);
    if (!holder.starts_with("process ")) holder.clear();  // it has the lock, and is about to write its number
    if (first.empty()) first = holder;
    if (!holder.empty() && holder != first) return std::nullopt;
    if (!told && std::chrono::steady_clock::now() - begin >= options.patience) {
      options.tell(fmt::format("waiting for {}, which tokenizes the same data into {}",
                               holder.empty() ? "another process" : holder, printable(path.parent_path().string())));
      told = true;
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

fs::path TokenCache::entry(std::string_view key) const {
  const auto bytes = std::as_bytes(std::span(key));
  ContentHash second(1);
  second.add(bytes);
  return options_.folder / fmt::format("{:016x}{:016x}.tokens", content_hash_of(bytes), second.value());
}

TokenCache::Result TokenCache::get(std::string_view key, std::int64_t vocabulary, const std::function<StoredTokens()>& make) {
  const fs::path path = entry(key);
  const auto open = [&]() -> std::optional<StoredTokens> {
    try {
      return open_token_file(path, key, vocabulary);
    } catch (const Error& failure) {
      std::error_code ignored;
      if (fs::exists(fs::symlink_status(path, ignored))) options_.warn(fmt::format("{}; it is not used", failure.what()));
      return std::nullopt;
    }
  };
  const auto give_up = [&](std::string_view why) {
    options_.warn(fmt::format("{}; tokens are not kept for another time", why));
    options_.use = TokenCacheOptions::Use::read_only;
  };
  for (;;) {
    const Identity before = identity_of(path);
    if (auto tokens = open()) return {.tokens = std::move(*tokens), .found = true};
    if (options_.use == TokenCacheOptions::Use::read_only) return {.tokens = make(), .found = false};
    std::optional<FileLock> lock;
    try {
      fs::create_directories(options_.folder);
      lock = wait_for(fs::path(path) += ".lock", options_);
    } catch (const FileError& failure) {
      give_up(failure.what());
      return {.tokens = make(), .found = false};
    } catch (const fs::filesystem_error& failure) {
      give_up(fmt::format("{}: cannot be made: {}", options_.folder.string(), failure.code().message()));
      return {.tokens = make(), .found = false};
    }
    // Somebody else may have made it since. Where one couldn't, as on a full disk, the others don't try one after the other.
    if (identity_of(path) != before) continue;
    if (!lock) return {.tokens = make(), .found = false};
    remove_leftovers(path);
    StoredTokens tokens = make();
    try {
      write_token_file(path, key, tokens);
    } catch (const FileError& failure) {
      give_up(failure.what());
      return {.tokens = std::move(tokens), .found = false};
    }
    lock.reset();
    // From now on in the memory that the other processes see, too.
    if (auto mapped = open()) return {.tokens = std::move(*mapped), .found = false};
    return {.tokens = std::move(tokens), .found = false};
  }
}

}  // namespace lathe
