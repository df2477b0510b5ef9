#include "lathe/runtime/content_hash.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace lathe {
namespace {

std::uint64_t hash_of(std::string_view text) { return content_hash_of(std::as_bytes(std::span(text))); }

TEST(ContentHash, IsXxh64) {
  EXPECT_EQ(hash_of(""), 0xEF46DB3751D8E999U);
  EXPECT_EQ(hash_of("a"), 0xD24EC4F1A98C6E5BU);
  EXPECT_EQ(hash_of("abc"), 0x44BC2CF5AD770999U);
  EXPECT_EQ(hash_of("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1U) << "longer than a stripe";
}

TEST(ContentHash, IsTheSameHoweverTheBytesAreCut) {
  std::string text;
  for (int i = 0; i < 200; ++i) text.push_back(static_cast<char>(i * 37));
  const auto bytes = std::as_bytes(std::span(text));
  for (std::size_t size = 0; size <= text.size(); size += 3) {
    const std::uint64_t whole = content_hash_of(bytes.first(size));
    for (std::size_t cut = 0; cut <= size; ++cut) {
      ContentHash hash;
      hash.add(bytes.first(cut));
      hash.add(bytes.subspan(cut, size - cut));
      ASSERT_EQ(hash.value(), whole) << size << " bytes cut at " << cut;
      ASSERT_EQ(hash.size(), size);
    }
  }
}

TEST(ContentHash, SeesEveryByteAndTheLength) {
  std::string text(100, 'x');
  const std::uint64_t before = hash_of(text);
  for (char& byte : text) {
    byte = 'y';
    EXPECT_NE(hash_of(text), before);
    byte = 'x';
  }
  EXPECT_NE(hash_of(text + std::string(1, '\0')), before);
}

}  // namespace
}  // namespace lathe
