#pragma once
// safetensors files: an 8-byte little-endian header length, a JSON header that names tensors, and their bytes, back to back.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/checkpoint/input_file.h"

namespace [[gnu::visibility("default")]] lathe {

/// The element types of the format, in its own order, which is by rising alignment. f32 is what Lathe writes; f64, f16 and
/// bf16 it reads as well; the others it can only pass over or hand out as bytes.
enum class SafetensorsType : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

/// As a header spells it: "F32".
std::string_view name_of(SafetensorsType type);
/// Bits of one element: 4 for F4, 6 for the F6 types, else whole bytes.
std::uint64_t bits_of(SafetensorsType type);
/// Whether SafetensorsFile::read_f32 reads it: F16, BF16, F32 and F64.
bool converts_to_f32(SafetensorsType type);

/// Bytes of a tensor; nothing where a dimension is negative, the product of those other than 0 is 2^60 bytes or more, or the
/// elements of less than a byte don't fill whole bytes.
std::optional<std::uint64_t> byte_count(SafetensorsType type, std::span<const std::int64_t> shape);

/// One tensor of a file.
struct TensorEntry {
  std::string name;
  SafetensorsType type = SafetensorsType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t offset = 0;  ///< of its first byte, from the end of the header
  std::uint64_t bytes = 0;
  /// Product of the shape: 1 for rank 0.
  std::int64_t elements() const noexcept;
};

/// What a header says, validated.
struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  ///< by offset
  std::map<std::string, std::string> metadata;
};

/// The longest header that the format allows.
inline constexpr std::uint64_t kLongestSafetensorsHeader = 100'000'000;

/// Parses a header whose tensors must cover exactly `data_bytes` bytes. Refused: anything but strict JSON that starts with '{',
/// duplicate keys, unknown keys or types, names over 1,000 bytes, more than 64 dimensions, 1,000,000 tensors or 100,000 entries of
/// metadata, dimensions and offsets that aren't
/// whole numbers from 0, a shape whose bytes overflow or differ from its offsets', gaps, overlaps, and data beyond or short of
/// the last tensor. Memory is bounded by a small multiple of the header. Throws FormatError with `path` and the tensor.
SafetensorsHeader parse_safetensors_header(std::string_view header, std::uint64_t data_bytes, const std::filesystem::path& path);

/// A safetensors file that has passed validation. Move-only. Entries stay where they are as long as the object or what it was
/// moved into lives. Reading is allowed from several threads.
///
/// Tensors are read by copy (pread), which costs no more than faulting mapped pages in and turns a file that is cut or a disk
/// that fails while we read into a FileError; bytes() gives the mapping for those who want no copy.
class SafetensorsFile {
 public:
  /// Throws FileError, or FormatError where the file isn't valid (parse_safetensors_header); a truncated file is told as such,
  /// with the size it has and the size it should have.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const noexcept { return file_.path(); }
  /// All tensors, by offset.
  std::span<const TensorEntry> tensors() const noexcept { return header_.tensors; }
  /// The tensor of that name, or nullptr.
  const TensorEntry* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const noexcept { return header_.metadata; }

  /// The tensor's bytes in the mapped file, in no particular alignment. Throws FileError where the file has become shorter since
  /// it was opened; one that is cut later raises SIGBUS where the bytes are touched, so this is for files that nobody else
  /// writes.
  std::span<const std::byte> bytes(const TensorEntry& entry) const;

  /// Copies the tensor's bytes from `offset` on into all of `destination`. Throws FileError where reading fails, LogicError beyond the
  /// tensor's end.
  void read_bytes(const TensorEntry& entry, std::uint64_t offset, std::span<std::byte> destination) const;

  /// The tensor's elements as fp32, row-major, into `destination`, which must have entry.elements() elements. Exact for F32, F16
  /// and BF16; F64 is rounded. Throws FormatError for other types and for F64 values beyond fp32's range, FileError where reading
  /// fails.
  void read_f32(const TensorEntry& entry, std::span<float> destination) const;

 private:
  SafetensorsFile(InputFile file, std::uint64_t data_start, SafetensorsHeader header);

  InputFile file_;
  std::span<const std::byte> mapping_;
  std::uint64_t data_start_;
  SafetensorsHeader header_;
  std::vector<std::uint32_t> by_name_;  ///< indices into header_.tensors
};

}  // namespace lathe
