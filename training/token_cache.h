#pragma once
// A folder of token files (token_file.h), so that texts are tokenized once, by one process of a host, and all of them share the memory.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "lathe/training/token_file.h"

namespace [[gnu::visibility("default")]] lathe {

struct TokenCacheOptions {
  enum class Use : std::uint8_t { read_and_write, read_only };

  std::filesystem::path folder;  ///< made where it is absent, with those above it
  Use use = Use::read_and_write;
  /// Told, in a line each, what keeps the cache from being used: a file that is damaged, a folder that can't be written. Nothing fails of that.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  /// Told once of each wait for another process that is longer than `patience`.
  std::function<void(const std::string&)> tell = [](const std::string&) {};
  std::chrono::milliseconds patience{5000};
};

/// Used by one thread. Processes that share a folder need nothing else in common.
class TokenCache {
 public:
  explicit TokenCache(TokenCacheOptions options) : options_(std::move(options)) {}

  struct Result {
    StoredTokens tokens;
    bool found = false;  ///< they were there, or another process made them while this one waited
  };
  /// The tokens that `key` describes: all that they depend on, in a few lines of text. Mapped where the folder has them; else made by make() and
  /// put there. Of processes that ask for the same at once one makes them, and the others wait until it is done or has died: in a lock of the
  /// file system, whose wait no other rank takes part in. Tokens are those of a vocabulary of so many ids. Throws what make() throws.
  Result get(std::string_view key, std::int64_t vocabulary, const std::function<StoredTokens()>& make);

  /// The file of a key, whether it is there or not.
  std::filesystem::path entry(std::string_view key) const;

 private:
  TokenCacheOptions options_;
};

}  // namespace lathe
