#include "lathe/checkpoint/inspection.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <exception>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// Bytes read at a time: they stay in a core's cache, and a large tensor is shared by all threads.
constexpr std::size_t kChunk = std::size_t{256} << 10U;

/// The bits of a format that follows IEEE 754: an exponent of ones means infinity where the fraction is zero, NaN elsewhere.
template <class Bits>
struct FloatFormat {
  Bits magnitude;  // all bits but the sign
  Bits exponent;
};

/// The first loop, which vectorises, is all there is to do for sound weights.
template <class Bits>
NonFiniteCount count_ieee(std::span<const Bits> values, FloatFormat<Bits> format) {
  Bits found = 0;
  for (const Bits value : values) found |= static_cast<Bits>((value & format.exponent) == format.exponent ? 1 : 0);
  NonFiniteCount count;
  if (found == 0) return count;
  for (const Bits value : values) {
    const Bits magnitude = value & format.magnitude;
    if (magnitude == format.exponent) ++count.infinite;
    if (magnitude > format.exponent) ++count.nan;
  }
  return count;
}

/// Counts in a format whose only such values are NaN, in the patterns that `is_nan` tells.
template <class IsNan>
NonFiniteCount count_nan(std::span<const std::uint8_t> values, const IsNan& is_nan) {
  return {.nan = std::ranges::count_if(values, is_nan), .infinite = 0};
}

/// `bytes` must be aligned as its values are.
template <class Bits>
std::span<const Bits> as_bits(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const Bits*>(bytes.data()), bytes.size() / sizeof(Bits)};
}

NonFiniteCount count_in(SafetensorsType type, std::span<const std::byte> bytes) {
  using enum SafetensorsType;
  switch (type) {
    case f16:
      return count_ieee<std::uint16_t>(as_bits<std::uint16_t>(bytes), {0x7FFF, 0x7C00});
    case bf16:
      return count_ieee<std::uint16_t>(as_bits<std::uint16_t>(bytes), {0x7FFF, 0x7F80});
    case f32:
    case c64:
      return count_ieee<std::uint32_t>(as_bits<std::uint32_t>(bytes), {0x7FFFFFFF, 0x7F800000});
    case f64:
      return count_ieee<std::uint64_t>(as_bits<std::uint64_t>(bytes), {0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000});
    case f8_e5m2:
      return count_ieee<std::uint8_t>(as_bits<std::uint8_t>(bytes), {0x7F, 0x7C});
    case f8_e4m3:
      return count_nan(as_bits<std::uint8_t>(bytes), [](std::uint8_t value) { return (value & 0x7FU) == 0x7FU; });
    case f8_e8m0:
      return count_nan(as_bits<std::uint8_t>(bytes), [](std::uint8_t value) { return value == 0xFFU; });
    case f8_e4m3fnuz:
    case f8_e5m2fnuz:
      return count_nan(as_bits<std::uint8_t>(bytes), [](std::uint8_t value) { return value == 0x80U; });
    default:
      throw LogicError("values of this type are always finite");
  }
}

/// Some bytes of a tensor.
struct Chunk {
  std::size_t tensor = 0;
  std::uint64_t offset = 0;
  std::size_t bytes = 0;
};

std::vector<Chunk> chunks_of(std::span<const TensorEntry> tensors) {
  std::vector<Chunk> chunks;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!may_be_non_finite(tensors[i].type)) continue;
    for (std::uint64_t offset = 0; offset < tensors[i].bytes; offset += kChunk)
      chunks.push_back({i, offset, static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, tensors[i].bytes - offset))});
  }
  return chunks;
}

/// Compares names so that layer 9 comes before layer 10.
bool name_less(std::string_view a, std::string_view b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  while (!a.empty() && !b.empty()) {
    const auto digits = [&](std::string_view text) {
      return static_cast<std::size_t>(std::ranges::find_if_not(text, is_digit) - text.begin());
    };
    const std::size_t in_a = digits(a);
    const std::size_t in_b = digits(b);
    if (in_a > 0 && in_b > 0) {
      if (in_a != in_b) return in_a < in_b;
      if (a.substr(0, in_a) != b.substr(0, in_b)) return a.substr(0, in_a) < b.substr(0, in_b);
      a.remove_prefix(in_a);
      b.remove_prefix(in_b);
      continue;
    }
    if (a.front() != b.front()) return a.front() < b.front();
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  return a.size() < b.size();
}

void add(TensorTotals& totals, const TensorEntry& entry) {
  ++totals.tensors;
  totals.elements += entry.elements();
  totals.bytes += entry.bytes;
}

}  // namespace

bool is_parameter_type(SafetensorsType type) {
  using enum SafetensorsType;
  constexpr std::array kOthers = {boolean, u8, i8, i16, u16, i32, u32, i64, u64};
  return std::ranges::find(kOthers, type) == kOthers.end();
}

bool may_be_non_finite(SafetensorsType type) {
  using enum SafetensorsType;
  return is_parameter_type(type) && type != f4 && type != f6_e2m3 && type != f6_e3m2;
}

std::vector<std::optional<NonFiniteCount>> count_non_finite(const SafetensorsFile& file, int threads) {
  const std::span<const TensorEntry> tensors = file.tensors();
  std::vector<std::optional<NonFiniteCount>> counts(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (may_be_non_finite(tensors[i].type)) counts[i].emplace();
  }
  const std::vector<Chunk> chunks = chunks_of(tensors);
  const auto count = static_cast<std::int64_t>(chunks.size());
  std::exception_ptr failure;
#pragma omp parallel num_threads(std::max(threads, 1))
  {
    std::vector<std::byte> buffer(kChunk);
#pragma omp for schedule(dynamic)
    for (std::int64_t i = 0; i < count; ++i) {
      const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
      const TensorEntry& entry = tensors[chunk.tensor];
      try {
        const std::span<std::byte> bytes = std::span(buffer).first(chunk.bytes);
        file.read_bytes(entry, chunk.offset, bytes);
        const NonFiniteCount found = count_in(entry.type, bytes);
        if (found.total() == 0) continue;
#pragma omp critical(lathe_count_non_finite)
        {
          counts[chunk.tensor]->nan += found.nan;
          counts[chunk.tensor]->infinite += found.infinite;
        }
      } catch (...) {
#pragma omp critical(lathe_count_non_finite)
        failure = std::current_exception();
      }
    }
  }
  if (failure) std::rethrow_exception(failure);
  return counts;
}

std::map<SafetensorsType, TensorTotals> totals_by_type(std::span<const TensorEntry> tensors) {
  std::map<SafetensorsType, TensorTotals> totals;
  for (const TensorEntry& entry : tensors) add(totals[entry.type], entry);
  return totals;
}

std::string module_group(std::string_view name) {
  constexpr std::string_view kPrefix = "bert.";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  const std::size_t first_word = std::min(name.find('.'), name.size());
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view word = name.substr(begin, end - begin);
    if (!word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos) return std::string(name.substr(0, end));
    begin = end + 1;
  }
  return std::string(name.substr(0, first_word));
}

std::vector<std::pair<std::string, TensorTotals>> parameters_by_module(std::span<const TensorEntry> tensors) {
  std::map<std::string, TensorTotals> totals;
  for (const TensorEntry& entry : tensors) {
    if (is_parameter_type(entry.type)) add(totals[module_group(entry.name)], entry);
  }
  std::vector<std::pair<std::string, TensorTotals>> sorted(totals.begin(), totals.end());
  std::ranges::stable_sort(sorted, [](const auto& a, const auto& b) { return name_less(a.first, b.first); });
  return sorted;
}

WeightsFit compare_weights(const SafetensorsFile& file, const BertConfig& config) {
  WeightsFit fit;
  const TensorEntry* head = file.find("classifier.weight");
  const bool head_in_file = head != nullptr && head->shape.size() == 2;
  const bool head_in_config =
      std::ranges::find(config.architectures, "BertForSequenceClassification") != config.architectures.end();
  if (head_in_file || head_in_config) {
    fit.classes = static_cast<std::int64_t>(config.labels.size());
    // Hugging Face names no labels where they are its default ones: the head tells how many there are, else it makes two.
    constexpr std::int64_t kDefaultLabels = 2;
    if (fit.classes == 0) fit.classes = head_in_file ? head->shape[0] : kDefaultLabels;
  }
  fit.match = compare_bert_tensors(file, bert_tensors(config, fit.classes));
  return fit;
}

}  // namespace lathe
