#pragma once
// Text of which a small model can guess masked words, in the words of tiny_model.h.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lathe/runtime/random.h"

namespace lathe {

/// Writes documents of one to four paragraphs, each "it is very good and warm ." or "it is not bad and cold .": the word before tells the next.
inline void write_tiny_text(const std::filesystem::path& path, int documents, std::uint32_t seed) {
  const std::vector<std::string> sentences = {"it is very good and warm .", "a film is not bad and cold .",
                                              "it is a great dull film ."};
  const RandomNumbers random(seed, RandomUse::split, 1);
  std::ofstream file(path, std::ios::binary);
  std::uint64_t draw = 0;
  for (int i = 0; i < documents; ++i) {
    const auto paragraphs = 1 + random.bits(draw++) % 4;
    for (std::uint64_t p = 0; p < paragraphs; ++p) file << sentences[random.bits(draw++) % sentences.size()] << '\n';
    file << '\n';
  }
}

}  // namespace lathe
