#pragma once
// Tokenized samples in a file that is mapped, not read (docs/token-cache.md has its layout).
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/packing.h"

namespace [[gnu::visibility("default")]] lathe {

/// What a token file holds.
struct StoredTokens {
  TokenizedSamples samples;
  std::vector<std::int64_t> groups;  ///< where groups of samples begin, and at last where they end; empty where there are none
  std::array<std::int64_t, 4> counts = {};  ///< what else was counted, in an order that its writer knows
};

/// Writes a token file, atomically, with the `key` that says what it was made of. Throws FileError.
void write_token_file(const std::filesystem::path& path, std::string_view key, const StoredTokens& tokens);

/// Maps a token file: the samples are a view of it, of which several processes share the memory. Everything is checked first: sizes, the
/// checksum of all bytes, order of the offsets, ids below `vocabulary`. Throws FileError, and FormatError for a file that is damaged, of another
/// version or kind, or has another key.
StoredTokens open_token_file(const std::filesystem::path& path, std::string_view key, std::int64_t vocabulary);

/// The same of a file that is in memory from an address on that is a multiple of 8; `holder` keeps it there, and `path` is its name in messages.
StoredTokens read_token_file(std::span<const std::byte> file, std::shared_ptr<const void> holder, std::string_view key,
                             std::int64_t vocabulary, const std::filesystem::path& path);

/// What such a file begins with. Numbers are little-endian.
struct TokenFileHeader {
  static constexpr std::array<char, 8> kMagic = {'L', 'a', 't', 'h', 'e', 'T', 'o', 'k'};
  /// Of the layout.
  static constexpr std::uint32_t kVersion = 1;

  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t header_bytes = sizeof(TokenFileHeader);
  std::uint64_t file_bytes = 0;
  std::uint64_t key_bytes = 0;
  std::uint64_t samples = 0;
  std::uint64_t tokens = 0;
  std::uint64_t types = 0;   ///< as many as tokens; 0 where all are 0
  std::uint64_t groups = 0;  ///< elements of StoredTokens::groups
  std::array<std::int64_t, 4> counts = {};
  std::uint64_t content_hash = 0;  ///< of all behind the header
  std::array<std::uint64_t, 2> unused = {};
  std::uint64_t header_hash = 0;  ///< of the header before it
};
static_assert(sizeof(TokenFileHeader) == 128);

/// Where the parts of a file lie, in bytes from its beginning: each at a multiple of 64.
struct TokenFileLayout {
  std::uint64_t key = 0, offsets = 0, groups = 0, ids = 0, types = 0, end = 0;
};
/// The header that a file of `size` bytes begins with, and what follows from it. Throws FormatError unless the parts are the whole file.
TokenFileHeader read_token_header(std::span<const std::byte> front, std::uint64_t size, const std::filesystem::path& path);
TokenFileLayout layout_of(const TokenFileHeader& header);

}  // namespace lathe
