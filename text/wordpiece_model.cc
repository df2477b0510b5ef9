#include "lathe/text/wordpiece_model.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

constexpr std::int32_t kNone = -1;
constexpr std::uint64_t kHashStart = 0xCBF29CE484222325U;

// FNV-1a: cheap to extend by a byte, which gives the hashes of all fronts of a word in one pass.
constexpr std::uint64_t extend_hash(std::uint64_t hash, char byte) noexcept {
  return (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3U;
}

std::uint64_t hash_of(std::string_view text) noexcept {
  std::uint64_t hash = kHashStart;
  for (const char byte : text) hash = extend_hash(hash, byte);
  return hash;
}

constexpr std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash >> 32U); }

// The low bits of FNV-1a depend on the low bits of the text alone; the upper half is folded in.
constexpr std::size_t slot_of(std::uint64_t hash, std::size_t slots) noexcept {
  return static_cast<std::size_t>(hash ^ (hash >> 29U)) & (slots - 1);
}

constexpr bool continues_code_point(char byte) noexcept { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }

}  // namespace

WordPieceModel::WordPieceModel(const std::vector<VocabularyEntry>& vocabulary, const Options& options)
    : max_word_code_points_(options.max_word_code_points), size_(vocabulary.size()), unknown_id_(kNone) {
  const std::string& prefix = options.continuing_prefix;
  std::size_t bytes = 0;
  std::size_t continuing = 0;
  for (const VocabularyEntry& entry : vocabulary) {
    bytes += entry.token.size();
    continuing += entry.token.starts_with(prefix) ? 1 : 0;
  }
  if (bytes > std::numeric_limits<std::uint32_t>::max()) throw LogicError("a vocabulary of more than 4 GiB");
  bytes_.reserve(bytes);
  initial_.slots.resize(std::bit_ceil(2 * vocabulary.size() + 1));
  continuing_.slots.resize(std::bit_ceil(2 * continuing + 1));
  for (const auto& [token, id] : vocabulary) {
    const auto offset = static_cast<std::uint32_t>(bytes_.size());
    const auto length = static_cast<std::uint32_t>(token.size());
    const auto prefix_length = static_cast<std::uint32_t>(prefix.size());
    bytes_.append(token);
    if (token == options.unknown_token) unknown_id_ = id;  // which may be empty, and then isn't among what matches
    // An empty token, and one that is the prefix alone, never matches: no word and no rest of one is empty.
    if (length > 0) insert(initial_, offset, length, id);
    if (length > prefix_length && token.starts_with(prefix)) {
      insert(continuing_, offset + prefix_length, length - prefix_length, id);
    }
  }
  if (unknown_id_ == kNone) throw LogicError("the vocabulary lacks its unknown token " + printable(options.unknown_token));
}

void WordPieceModel::insert(Table& table, std::uint32_t offset, std::uint32_t length, std::int32_t id) const {
  const std::uint64_t hash = hash_of(std::string_view(bytes_).substr(offset, length));
  const std::size_t mask = table.slots.size() - 1;
  std::size_t i = slot_of(hash, table.slots.size());
  while (table.slots[i].length != 0) i = (i + 1) & mask;
  table.slots[i] = {offset, length, id, tag_of(hash)};
  table.longest = std::max<std::size_t>(table.longest, length);
}

std::int32_t WordPieceModel::look_up(const Table& table, std::string_view token, std::uint64_t hash) const noexcept {
  const std::size_t mask = table.slots.size() - 1;
  const std::uint32_t tag = tag_of(hash);
  for (std::size_t i = slot_of(hash, table.slots.size());; i = (i + 1) & mask) {
    const Slot& slot = table.slots[i];
    if (slot.length == 0) return kNone;
    if (slot.tag == tag && std::string_view(bytes_.data() + slot.offset, slot.length) == token) return slot.id;
  }
}

std::optional<std::int32_t> WordPieceModel::find(std::string_view token) const {
  if (token.empty()) return std::nullopt;
  const std::int32_t id = look_up(initial_, token, hash_of(token));
  return id == kNone ? std::nullopt : std::optional(id);
}

std::int32_t WordPieceModel::longest_match(const Table& table, std::string_view text, std::vector<std::uint64_t>& hashes,
                                           std::size_t& length) const {
  const std::size_t longest = std::min(text.size(), table.longest);
  if (hashes.size() < longest + 1) hashes.resize(longest + 1);
  hashes[0] = kHashStart;
  for (std::size_t i = 0; i < longest; ++i) hashes[i + 1] = extend_hash(hashes[i], text[i]);
  for (length = longest; length > 0; --length) {
    if (length < text.size() && continues_code_point(text[length])) continue;
    const std::int32_t id = look_up(table, text.substr(0, length), hashes[length]);
    if (id != kNone) return id;
  }
  return kNone;
}

template <class Piece>
bool WordPieceModel::cut(const Word& word, std::vector<std::uint64_t>& hashes, Piece&& piece) const {
  if (word.code_points > max_word_code_points_) return false;
  std::string_view rest = word.text;
  const Table* table = &initial_;
  while (!rest.empty()) {
    std::size_t length = 0;
    const std::int32_t id = longest_match(*table, rest, hashes, length);
    if (id == kNone) return false;
    piece(id, length);
    rest.remove_prefix(length);
    table = &continuing_;
  }
  return true;
}

void WordPieceModel::tokenize(const Word& word, std::vector<std::uint64_t>& hashes, std::vector<std::int32_t>& ids) const {
  const std::size_t before = ids.size();
  if (cut(word, hashes, [&](std::int32_t id, std::size_t) { ids.push_back(id); })) return;
  ids.resize(before);
  ids.push_back(unknown_id_);
}

void WordPieceModel::tokenize(const Word& word, std::vector<std::uint64_t>& hashes, std::vector<std::int32_t>& ids,
                              std::vector<std::size_t>& lengths) const {
  const std::size_t before = ids.size();
  const std::size_t lengths_before = lengths.size();
  const auto add = [&](std::int32_t id, std::size_t length) {
    ids.push_back(id);
    lengths.push_back(length);
  };
  if (cut(word, hashes, add)) return;
  ids.resize(before);
  lengths.resize(lengths_before);
  add(unknown_id_, word.text.size());
}

}  // namespace lathe
