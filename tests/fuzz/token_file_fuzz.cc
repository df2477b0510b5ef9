// Token files: whatever is accepted has samples that lie within it. Hashes that don't hold would hide all that comes after them, so that the
// input is tried as it is, and once more with those that it should have.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "lathe/runtime/content_hash.h"
#include "lathe/training/token_file.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

constexpr std::int64_t kVocabulary = 1000;
constexpr std::string_view kKey = "key";

void read(std::span<const std::byte> file) {
  // As a mapped file's, the address is a multiple of 8; and nothing behind the end may be touched.
  const auto memory = std::make_shared<std::vector<std::uint64_t>>((file.size() + 7) / 8);
  if (!file.empty()) std::memcpy(memory->data(), file.data(), file.size());
  const auto bytes = std::as_bytes(std::span(*memory)).first(file.size());
  const auto tokens = accepted([&] { return read_token_file(bytes, memory, kKey, kVocabulary, "x.tokens"); });
  if (!tokens) return;
  const TokenizedSamples& samples = tokens->samples;
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < samples.count(); ++i) {
    require(samples.length(i) >= 0, "no sample has less than no tokens");
    for (std::int64_t at = samples.offsets[static_cast<std::size_t>(i)]; at < samples.offsets[static_cast<std::size_t>(i) + 1];
         ++at) {
      const auto token = static_cast<std::size_t>(at);
      require(samples.ids[token] >= 0 && samples.ids[token] < kVocabulary, "a token is in the vocabulary");
      require(samples.types.empty() || samples.types[token] >= 0, "a type is a number from 0");
    }
    sum += samples.length(i);
  }
  require(sum == std::ssize(samples.ids), "the samples are all tokens");
  require(samples.types.empty() || samples.types.size() == samples.ids.size(), "each token has a type");
  require(tokens->groups.empty() || tokens->groups.back() == samples.count(), "the groups are all samples");
}

/// The input as a file whose header is right, but for the counts, and whose length and hashes are those that it asks for.
std::vector<std::byte> sealed(Bytes input) {
  std::vector<std::byte> file(std::max(input.size(), sizeof(TokenFileHeader)));
  if (!input.empty()) std::memcpy(file.data(), input.data(), input.size());
  TokenFileHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  header.magic = TokenFileHeader::kMagic;
  header.version = TokenFileHeader::kVersion;
  header.header_bytes = sizeof(header);
  header.key_bytes = kKey.size();
  const auto counts = {header.samples, header.tokens, header.types, header.groups};
  if (std::ranges::all_of(counts, [](std::uint64_t count) { return count < 256; })) file.resize(layout_of(header).end);
  if (file.size() >= sizeof(header) + kKey.size()) std::memcpy(file.data() + sizeof(header), kKey.data(), kKey.size());
  header.file_bytes = file.size();
  header.content_hash = content_hash_of(std::span<const std::byte>(file).subspan(sizeof(header)));
  header.header_hash = content_hash_of(std::as_bytes(std::span(&header, 1)).first(offsetof(TokenFileHeader, header_hash)));
  std::memcpy(file.data(), &header, sizeof(header));
  return file;
}

}  // namespace
}  // namespace lathe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  read(std::as_bytes(Bytes(data, size)));
  read(sealed({data, size}));
  return 0;
}
