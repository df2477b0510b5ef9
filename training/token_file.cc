#include "lathe/training/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>

#include "lathe/checkpoint/input_file.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/content_hash.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

static_assert(std::endian::native == std::endian::little, "a token file is mapped as it lies");

using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kAlignment = 64;
constexpr std::array<std::byte, kAlignment> kPadding = {};

std::uint64_t aligned(std::uint64_t at) { return (at + kAlignment - 1) / kAlignment * kAlignment; }

Bytes bytes_of(const TokenFileHeader& header) { return std::as_bytes(std::span(&header, 1)); }

std::uint64_t header_hash_of(const TokenFileHeader& header) {
  return content_hash_of(bytes_of(header).first(offsetof(TokenFileHeader, header_hash)));
}

template <class T>
std::span<const T> part(Bytes file, std::uint64_t at, std::uint64_t count) {
  return {reinterpret_cast<const T*>(file.data() + at), static_cast<std::size_t>(count)};
}

/// Whether numbers begin at 0, never fall and end at `last`.
bool cuts(std::span<const std::int64_t> numbers, std::uint64_t last) {
  if (numbers.empty() || numbers.front() != 0 || static_cast<std::uint64_t>(numbers.back()) != last) return false;
  return std::ranges::is_sorted(numbers);
}

/// Whether all are in [0, most).
bool all_below(std::span<const std::int32_t> numbers, std::int64_t most) {
  std::uint32_t highest = 0;
  for (const std::int32_t number : numbers) highest = std::max(highest, static_cast<std::uint32_t>(number));
  return numbers.empty() || static_cast<std::int64_t>(highest) < most;
}

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view message) { throw FormatError(path, "", message); }

}  // namespace

TokenFileLayout layout_of(const TokenFileHeader& header) {
  TokenFileLayout layout;
  layout.key = sizeof(TokenFileHeader);
  layout.offsets = aligned(layout.key + header.key_bytes);
  layout.groups = aligned(layout.offsets + (header.samples + 1) * sizeof(std::int64_t));
  layout.ids = aligned(layout.groups + header.groups * sizeof(std::int64_t));
  layout.types = aligned(layout.ids + header.tokens * sizeof(std::int32_t));
  layout.end = aligned(layout.types + header.types * sizeof(std::int32_t));
  return layout;
}

TokenFileHeader read_token_header(Bytes front, std::uint64_t size, const std::filesystem::path& path) {
  TokenFileHeader header;
  if (front.size() < sizeof(header) || size < sizeof(header))
    refuse(path, fmt::format("has {} bytes, and its header alone has {}", size, sizeof(header)));
  std::memcpy(&header, front.data(), sizeof(header));
  if (header.magic != TokenFileHeader::kMagic) refuse(path, "is no file of tokens");
  if (header.version != TokenFileHeader::kVersion || header.header_bytes != sizeof(header)) {
    refuse(path, fmt::format("is of version {}, and this Lathe reads version {}", header.version, TokenFileHeader::kVersion));
  }
  if (header.header_hash != header_hash_of(header)) refuse(path, "the header is damaged");
  // No count is larger than the file, so that none of the sums to come is too large for 64 bits.
  for (const std::uint64_t count : {header.key_bytes, header.samples, header.tokens, header.types, header.groups}) {
    if (count > size || size > (std::uint64_t{1} << 56U))
      refuse(path, fmt::format("has {} bytes, and its header speaks of {} elements", size, count));
  }
  const std::uint64_t end = layout_of(header).end;
  if (header.file_bytes != size || end != size)
    refuse(path, fmt::format("has {} bytes; by its header it should have {}", size, std::max(header.file_bytes, end)));
  if (header.types != 0 && header.types != header.tokens)
    refuse(path, fmt::format("has {} tokens and {} types of tokens", header.tokens, header.types));
  return header;
}

StoredTokens read_token_file(Bytes file, std::shared_ptr<const void> holder, std::string_view key, std::int64_t vocabulary,
                             const std::filesystem::path& path) {
  const TokenFileHeader header = read_token_header(file.first(std::min(file.size(), sizeof(TokenFileHeader))), file.size(), path);
  const TokenFileLayout layout = layout_of(header);
  const auto stored = part<char>(file, layout.key, header.key_bytes);
  if (!std::ranges::equal(stored, key)) refuse(path, "was made of other data, or with other settings");
  if (content_hash_of(file.subspan(sizeof(header))) != header.content_hash)
    refuse(path, "is damaged: its bytes have another hash");
  const auto offsets = part<std::int64_t>(file, layout.offsets, header.samples + 1);
  const auto groups = part<std::int64_t>(file, layout.groups, header.groups);
  const auto ids = part<std::int32_t>(file, layout.ids, header.tokens);
  const auto types = part<std::int32_t>(file, layout.types, header.types);
  if (!cuts(offsets, header.tokens) || !(groups.empty() || cuts(groups, header.samples)))
    refuse(path, "where its samples begin is out of order");
  constexpr std::int64_t kMost = std::int64_t{1} << 31U;
  if (!all_below(ids, vocabulary) || !all_below(types, kMost))
    refuse(path, fmt::format("has a token that is not in the vocabulary of {}", vocabulary));
  return {.samples = TokenizedSamples(ids, types, offsets, std::move(holder)),
          .groups = {groups.begin(), groups.end()},
          .counts = header.counts};
}

StoredTokens open_token_file(const std::filesystem::path& path, std::string_view key, std::int64_t vocabulary) {
  const auto file = std::make_shared<InputFile>(path);
  // What isn't such a file is refused before it is mapped; the rest is then read in place, of a file that nobody writes to again.
  std::array<std::byte, sizeof(TokenFileHeader)> front = {};
  const auto begin = std::span(front).first(std::min<std::uint64_t>(file->size(), front.size()));
  file->read(0, begin);
  read_token_header(begin, file->size(), path);
  return read_token_file(file->map(), file, key, vocabulary, path);
}

void write_token_file(const std::filesystem::path& path, std::string_view key, const StoredTokens& tokens) {
  const TokenizedSamples& samples = tokens.samples;
  const bool typed = std::ranges::any_of(samples.types, [](std::int32_t type) { return type != 0; });
  TokenFileHeader header;
  header.key_bytes = key.size();
  header.samples = static_cast<std::uint64_t>(samples.count());
  header.tokens = samples.ids.size();
  header.types = typed ? samples.types.size() : 0;
  header.groups = tokens.groups.size();
  header.counts = tokens.counts;
  const TokenFileLayout layout = layout_of(header);
  header.file_bytes = layout.end;

  std::vector<Bytes> pieces = {bytes_of(header)};
  ContentHash hash;
  const auto add = [&](Bytes piece) {
    for (const Bytes next : {piece, Bytes(kPadding).first((kAlignment - piece.size() % kAlignment) % kAlignment)}) {
      pieces.push_back(next);
      hash.add(next);
    }
  };
  add(std::as_bytes(std::span(key)));
  add(std::as_bytes(samples.offsets));
  add(std::as_bytes(std::span(tokens.groups)));
  add(std::as_bytes(samples.ids));
  if (typed) add(std::as_bytes(samples.types));
  header.content_hash = hash.value();
  header.header_hash = header_hash_of(header);
  write_file_atomically(path, pieces);
}

}  // namespace lathe
