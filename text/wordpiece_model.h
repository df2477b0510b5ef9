#pragma once
// A WordPiece vocabulary and the greedy longest match of words against it.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/bert_normalizer.h"

namespace lathe {

/// A token of a vocabulary.
struct VocabularyEntry {
  std::string token;
  std::int32_t id;
};

/// Cuts words into the longest pieces that the vocabulary has, from the left.
class WordPieceModel {
 public:
  struct Options {
    std::string unknown_token = "[UNK]";
    std::string continuing_prefix = "##";  ///< What pieces that don't begin a word have in front.
    std::size_t max_word_code_points = 100;
  };

  /// Tokens and ids must be unique and ids not negative; ids may leave gaps. The unknown token must be an entry. Whoever reads the
  /// vocabulary from a file checks this; LogicError otherwise.
  WordPieceModel(const std::vector<VocabularyEntry>& vocabulary, const Options& options);

  /// Appends the ids of the pieces of `word`, or the unknown token's where it is too long or some part of it is no token.
  /// `hashes` is scratch memory.
  void tokenize(const Word& word, std::vector<std::uint64_t>& hashes, std::vector<std::int32_t>& ids) const;
  /// The same, and appends how many bytes of the word each piece takes; the unknown token takes all.
  void tokenize(const Word& word, std::vector<std::uint64_t>& hashes, std::vector<std::int32_t>& ids,
                std::vector<std::size_t>& lengths) const;

  std::optional<std::int32_t> find(std::string_view token) const;
  std::int32_t unknown_id() const noexcept { return unknown_id_; }
  /// Number of tokens.
  std::size_t size() const noexcept { return size_; }

 private:
  struct Slot {
    std::uint32_t offset;  // of the token in bytes_
    std::uint32_t length;  // 0: the slot is empty
    std::int32_t id;
    std::uint32_t tag;  // the upper half of the hash, which spares most comparisons of text
  };
  /// Tokens by their text, found by the hash of it. Linear probing, at most half full.
  struct Table {
    std::vector<Slot> slots;
    std::size_t longest = 0;  // bytes
  };

  void insert(Table& table, std::uint32_t offset, std::uint32_t length, std::int32_t id) const;
  std::int32_t look_up(const Table& table, std::string_view token, std::uint64_t hash) const noexcept;
  /// Calls piece(id, bytes) for each piece of `word`; false where there is no match for all of it.
  template <class Piece>
  bool cut(const Word& word, std::vector<std::uint64_t>& hashes, Piece&& piece) const;
  std::int32_t longest_match(const Table& table, std::string_view text, std::vector<std::uint64_t>& hashes,
                             std::size_t& length) const;

  std::string bytes_;  // all tokens, one behind the other
  Table initial_;      // all tokens
  Table continuing_;   // the tokens with the continuing prefix, less the prefix
  std::size_t max_word_code_points_;
  std::size_t size_;
  std::int32_t unknown_id_;
};

}  // namespace lathe
