#include "lathe/kernels/matmul_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kLibrary = "matrix products";
constexpr std::size_t kDigits = 16;  ///< of a word

std::string name(MatmulElement element) { return element == MatmulElement::f32 ? "f32" : "bf16"; }

MatmulElement element(const Json& json) {
  const auto text = json.get<std::string>();
  if (text == "f32") return MatmulElement::f32;
  if (text == "bf16") return MatmulElement::bf16;
  throw std::invalid_argument("an element type is '" + text + "'; f32 and bf16 are known");
}

Transpose transpose(bool transposed) { return transposed ? Transpose::yes : Transpose::no; }

std::string digits(const MatmulAlgorithm& algorithm) {
  std::string text;
  for (const std::uint64_t word : algorithm) {
    std::array<char, kDigits> significant{};
    const auto count =
        static_cast<std::size_t>(std::to_chars(significant.begin(), significant.end(), word, 16).ptr - significant.begin());
    text.append(kDigits - count, '0').append(significant.data(), count);
  }
  return text;
}

MatmulAlgorithm algorithm(const Json& json) {
  const auto text = json.get<std::string>();
  MatmulAlgorithm result{};
  bool whole = text.size() == result.size() * kDigits;
  for (std::size_t i = 0; whole && i < result.size(); ++i) {
    const char* begin = text.data() + i * kDigits;
    const auto [end, error] = std::from_chars(begin, begin + kDigits, result[i], 16);
    whole = error == std::errc() && end == begin + kDigits;
  }
  if (!whole)
    throw std::invalid_argument("'algorithm' must be " + std::to_string(result.size() * kDigits) + " hexadecimal digits");
  return result;
}

Json to_json(const MatmulProblem& p, const MatmulAlgorithm& algorithm) {
  return {{"factors", name(p.factors)},
          {"result", name(p.result)},
          {"transpose a", p.transpose_a == Transpose::yes},
          {"transpose b", p.transpose_b == Transpose::yes},
          {"bias", p.has_bias},
          {"adds", p.adds},
          {"m", p.m},
          {"n", p.n},
          {"k", p.k},
          {"lda", p.lda},
          {"ldb", p.ldb},
          {"ldd", p.ldd},
          {"alignment a", p.alignment_a},
          {"alignment b", p.alignment_b},
          {"alignment d", p.alignment_d},
          {"alignment bias", p.alignment_bias},
          {"algorithm", digits(algorithm)}};
}

std::int64_t integer(const Json& json, const char* key) {
  const Json& value = json.at(key);
  if (!value.is_number_integer()) throw std::invalid_argument(std::string("'") + key + "' must be a whole number");
  return value.get<std::int64_t>();
}

std::int32_t alignment(const Json& json, const char* key) {
  const std::int64_t bytes = integer(json, key);
  if (bytes < 1 || bytes > kMatmulAlignment || !std::has_single_bit(static_cast<std::uint64_t>(bytes))) {
    throw std::invalid_argument(std::string("'") + key + "' is " + std::to_string(bytes) + "; it must be a power of two up to " +
                                std::to_string(kMatmulAlignment));
  }
  return static_cast<std::int32_t>(bytes);
}

MatmulProblem problem(const Json& json) {
  const MatmulProblem p{.factors = element(json.at("factors")),
                        .result = element(json.at("result")),
                        .transpose_a = transpose(json.at("transpose a").get<bool>()),
                        .transpose_b = transpose(json.at("transpose b").get<bool>()),
                        .has_bias = json.at("bias").get<bool>(),
                        .adds = json.at("adds").get<bool>(),
                        .m = integer(json, "m"),
                        .n = integer(json, "n"),
                        .k = integer(json, "k"),
                        .lda = integer(json, "lda"),
                        .ldb = integer(json, "ldb"),
                        .ldd = integer(json, "ldd"),
                        .alignment_a = alignment(json, "alignment a"),
                        .alignment_b = alignment(json, "alignment b"),
                        .alignment_d = alignment(json, "alignment d"),
                        .alignment_bias = alignment(json, "alignment bias")};
  if (p.m < 1 || p.n < 1 || p.k < 1 || p.lda < p.rows_a() || p.ldb < p.rows_b() || p.ldd < p.m || (p.adds && p.has_bias)) {
    throw std::invalid_argument("its sizes, strides and options are no product's");
  }
  return p;
}

void read_line(MatmulTable& table, bool first, std::string_view line) {
  const Json json = Json::parse(line);
  if (first) {
    table.library = json.at(kLibrary).get<std::string>();
  } else if (!table.choices.emplace(problem(json), algorithm(json.at("algorithm"))).second) {
    throw std::invalid_argument("a problem stands there for the second time");
  }
}

}  // namespace

std::string to_text(const MatmulTable& table) {
  std::string text = Json{{kLibrary, table.library}}.dump() + "\n";
  for (const auto& [problem, algorithm] : table.choices) text += to_json(problem, algorithm).dump() + "\n";
  return text;
}

MatmulTable matmul_table(std::string_view text) {
  MatmulTable table;
  std::size_t line = 0;
  while (line == 0 || !text.empty()) {
    ++line;
    const std::size_t end = std::min(text.find('\n'), text.size());
    try {
      read_line(table, line == 1, text.substr(0, end));
    } catch (const std::exception& error) {
      throw std::invalid_argument("the table of matrix products, line " + std::to_string(line) + ": " + error.what());
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return table;
}

}  // namespace lathe
