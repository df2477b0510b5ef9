#include "lathe/checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "lathe/checkpoint/float_conversion.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors holds little-endian numbers, which are taken as they are");

/// Elements converted at a time: their bytes stay in the cache between the copy and the conversion.
constexpr std::size_t kChunk = 32'768;

/// Reads destination.size() elements of type Stored from `offset` of the file on and hands them to `convert` in chunks.
template <class Stored>
void read_in_chunks(const InputFile& file, std::uint64_t offset, std::span<float> destination, const auto& convert) {
  std::vector<Stored> buffer(std::min(kChunk, destination.size()));
  while (!destination.empty()) {
    const std::size_t count = std::min(kChunk, destination.size());
    const std::span<Stored> chunk = std::span(buffer).first(count);
    file.read(offset, std::as_writable_bytes(chunk));
    std::ranges::transform(chunk, destination.begin(), convert);
    destination = destination.subspan(count);
    offset += chunk.size_bytes();
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(InputFile file, std::uint64_t data_start, SafetensorsHeader header)
    : file_(std::move(file)),
      mapping_(file_.map()),
      data_start_(data_start),
      header_(std::move(header)),
      by_name_(header_.tensors.size()) {
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::ranges::sort(by_name_, {}, [this](std::uint32_t index) -> const std::string& { return header_.tensors[index].name; });
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  InputFile file(path);
  if (file.size() < 8) {
    throw FormatError(
        path, "",
        fmt::format("has {} bytes; a safetensors file begins with an 8-byte header length: get the file again", file.size()));
  }
  std::uint64_t header_bytes = 0;
  file.read(0, std::as_writable_bytes(std::span(&header_bytes, 1)));
  if (header_bytes > kLongestSafetensorsHeader) {
    throw FormatError(path, "offset 0",
                      fmt::format("the header length is {}, the format allows {} at most: this is not a safetensors file",
                                  header_bytes, kLongestSafetensorsHeader));
  }
  if (header_bytes > file.size() - 8) {
    throw FormatError(path, "",
                      fmt::format("is truncated: its header alone needs {} bytes, the file has {}; get the file again",
                                  header_bytes + 8, file.size()));
  }
  std::string text(header_bytes, '\0');
  file.read(8, std::as_writable_bytes(std::span(text)));
  SafetensorsHeader header = parse_safetensors_header(text, file.size() - 8 - header_bytes, path);
  return {std::move(file), 8 + header_bytes, std::move(header)};
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto name_at = [this](std::uint32_t index) -> std::string_view { return header_.tensors[index].name; };
  const auto found = std::ranges::lower_bound(by_name_, name, {}, name_at);
  return found != by_name_.end() && name_at(*found) == name ? &header_.tensors[*found] : nullptr;
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorEntry& entry) const {
  file_.require_unchanged_size();
  return mapping_.subspan(data_start_ + entry.offset, entry.bytes);
}

void SafetensorsFile::read_bytes(const TensorEntry& entry, std::uint64_t offset, std::span<std::byte> destination) const {
  if (offset > entry.bytes || destination.size() > entry.bytes - offset) {
    throw LogicError(fmt::format("tensor {} has {} bytes; {} from byte {} on were asked for", entry.name, entry.bytes,
                                 destination.size(), offset));
  }
  file_.read(data_start_ + entry.offset + offset, destination);
}

void SafetensorsFile::read_f32(const TensorEntry& entry, std::span<float> destination) const {
  if (destination.size() != static_cast<std::size_t>(entry.elements())) {
    throw LogicError(
        fmt::format("tensor {} has {} elements, the destination {}", entry.name, entry.elements(), destination.size()));
  }
  const std::uint64_t offset = data_start_ + entry.offset;
  switch (entry.type) {
    case SafetensorsType::f32:
      file_.read(offset, std::as_writable_bytes(destination));
      return;
    case SafetensorsType::f16:
      read_in_chunks<std::uint16_t>(file_, offset, destination, f16_to_f32);
      return;
    case SafetensorsType::bf16:
      read_in_chunks<std::uint16_t>(file_, offset, destination, bf16_to_f32);
      return;
    case SafetensorsType::f64:
      read_in_chunks<double>(file_, offset, destination, [&](double value) {
        if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()) {
          throw FormatError(path(), "tensor " + entry.name, fmt::format("holds {}, which is beyond the range of fp32", value));
        }
        return static_cast<float>(value);
      });
      return;
    default:
      throw FormatError(path(), "tensor " + entry.name,
                        fmt::format("is of type {}; Lathe reads weights of type F32, F16, BF16 and F64", name_of(entry.type)));
  }
}

}  // namespace lathe
