#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <utility>

#include "lathe/checkpoint/json.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

struct TypeRow {
  std::string_view name;
  std::uint64_t bits;
};

/// Indexed by SafetensorsType.
constexpr std::array kTypes = {
    TypeRow{"BOOL", 8},        TypeRow{"F4", 4},      TypeRow{"F6_E2M3", 6}, TypeRow{"F6_E3M2", 6}, TypeRow{"U8", 8},
    TypeRow{"I8", 8},          TypeRow{"F8_E5M2", 8}, TypeRow{"F8_E4M3", 8}, TypeRow{"F8_E8M0", 8}, TypeRow{"F8_E4M3FNUZ", 8},
    TypeRow{"F8_E5M2FNUZ", 8}, TypeRow{"I16", 16},    TypeRow{"U16", 16},    TypeRow{"F16", 16},    TypeRow{"BF16", 16},
    TypeRow{"I32", 32},        TypeRow{"U32", 32},    TypeRow{"F32", 32},    TypeRow{"C64", 64},    TypeRow{"F64", 64},
    TypeRow{"I64", 64},        TypeRow{"U64", 64},
};
static_assert(kTypes.size() == static_cast<std::size_t>(SafetensorsType::u64) + 1);

/// More dimensions than any framework's tensors have; bounds the memory that a hostile shape takes.
constexpr std::size_t kMostDimensions = 64;

/// No framework's names come near it; bounds the length of messages.
constexpr std::size_t kLongestName = 1'000;

/// Many times what the largest models and the most talkative tools write; bound the memory that a long header takes.
constexpr std::size_t kMostTensors = 1'000'000;
constexpr std::size_t kMostMetadata = 100'000;

/// One tensor as the header gives it, before its numbers are held against each other.
struct RawTensor {
  std::string name;
  std::optional<SafetensorsType> type;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<std::vector<std::int64_t>> offsets;
};

/// Builds the header from parser events. Each event is legal in few places; `Place` says which one the document is at.
class HeaderEvents final : public JsonEvents {
 public:
  explicit HeaderEvents(const std::filesystem::path& path) : path_(path) {}

  std::vector<RawTensor> take_tensors() { return std::move(tensors_); }
  std::map<std::string, std::string> take_metadata() { return std::move(metadata_); }

  void null() override { refuse("null"); }
  void boolean(bool value) override { refuse(value ? "true" : "false"); }
  void real(JsonReal value) override { refuse(json_description({std::move(value)})); }
  void integer(std::int64_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) refuse(fmt::format("{}", value));
    if (value < 0) refuse(fmt::format("{}", value));
    if (numbers_.size() == (place_ == Place::shape ? kMostDimensions : 2)) refuse("one more number");
    numbers_.push_back(value);
  }
  void string(std::string value) override {
    if (place_ == Place::metadata_string) {
      metadata_[metadata_key_] = std::move(value);
      place_ = Place::metadata;
    } else if (place_ == Place::type) {
      const auto* row = std::ranges::find(kTypes, value, &TypeRow::name);
      if (row == kTypes.end()) refuse(json_description({std::move(value)}));
      tensors_.back().type = static_cast<SafetensorsType>(row - kTypes.begin());
      place_ = Place::tensor;
    } else {
      refuse(json_description({std::move(value)}));
    }
  }
  void begin_array() override {
    if (place_ == Place::before_shape) {
      place_ = Place::shape;
    } else if (place_ == Place::before_offsets) {
      place_ = Place::offsets;
    } else {
      refuse("a list");
    }
    numbers_.clear();
  }
  void end_array() override {
    if (place_ == Place::offsets && numbers_.size() != 2) refuse(fmt::format("a list of {}", numbers_.size()));
    (place_ == Place::shape ? tensors_.back().shape : tensors_.back().offsets) = numbers_;
    place_ = Place::tensor;
  }
  void begin_object() override {
    if (place_ == Place::before_header) {
      place_ = Place::header;
    } else if (place_ == Place::before_metadata) {
      place_ = Place::metadata;
    } else if (place_ == Place::before_tensor) {
      place_ = Place::tensor;
    } else {
      refuse("an object");
    }
  }
  void key(std::string name) override {
    if (place_ == Place::header) {
      if (name == "__metadata__") {
        place_ = Place::before_metadata;
      } else {
        if (name.size() > kLongestName) refuse(fmt::format("a name of {} bytes", name.size()));
        if (tensors_.size() == kMostTensors) refuse(fmt::format("more than {} tensors", kMostTensors));
        tensors_.push_back({.name = std::move(name), .type = {}, .shape = {}, .offsets = {}});
        place_ = Place::before_tensor;
      }
    } else if (place_ == Place::metadata) {
      if (metadata_.size() == kMostMetadata) refuse(fmt::format("more than {} entries", kMostMetadata));
      metadata_key_ = std::move(name);
      place_ = Place::metadata_string;
    } else if (name == "dtype") {
      place_ = Place::type;
    } else if (name == "shape") {
      place_ = Place::before_shape;
    } else if (name == "data_offsets") {
      place_ = Place::before_offsets;
    } else {
      refuse("the key " + json_description({std::move(name)}));
    }
  }
  void end_object() override {
    if (place_ == Place::tensor) {
      const RawTensor& tensor = tensors_.back();
      for (const auto& [present, name] :
           {std::pair{tensor.type.has_value(), "dtype"}, std::pair{tensor.shape.has_value(), "shape"},
            std::pair{tensor.offsets.has_value(), "data_offsets"}}) {
        if (!present) throw FormatError(path_, where(), fmt::format("has no {}", name));
      }
    }
    place_ = Place::header;
  }

 private:
  enum class Place : std::uint8_t {
    before_header,
    header,
    before_metadata,
    metadata,
    metadata_string,
    before_tensor,
    tensor,
    type,
    before_shape,
    shape,
    before_offsets,
    offsets,
  };

  std::string where() const {
    switch (place_) {
      case Place::before_header:
      case Place::header:
        return "header";
      case Place::before_metadata:
      case Place::metadata:
      case Place::metadata_string:
        return "header, __metadata__";
      default:
        return "tensor " + tensors_.back().name;
    }
  }

  std::string expected() const {
    switch (place_) {
      case Place::header:
        return fmt::format("names of tensors, of {} bytes at most", kLongestName);
      case Place::metadata:
        return fmt::format("at most {}", kMostMetadata);
      case Place::metadata_string:
        return "a string";
      case Place::tensor:
        return "dtype, shape and data_offsets alone";
      case Place::type:
        return "a dtype of the format, such as F32, BF16 or I64";
      case Place::before_shape:
        return "the list of the dimensions";
      case Place::shape:
        return fmt::format("dimensions, at most {}, each a whole number from 0", kMostDimensions);
      case Place::before_offsets:
      case Place::offsets:
        return "data_offsets of two whole numbers from 0";
      default:
        return "an object";
    }
  }

  [[noreturn]] void refuse(std::string_view found) const {
    throw FormatError(path_, where(), fmt::format("found {}, expected {}", found, expected()));
  }

  const std::filesystem::path& path_;
  Place place_ = Place::before_header;
  std::vector<RawTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::string metadata_key_;
  std::vector<std::int64_t> numbers_;
};

std::string shape_excerpt(const std::vector<std::int64_t>& shape) {
  constexpr std::size_t kLongestShape = 40;
  return shortened(fmt::format("[{}]", fmt::join(shape, ", ")), kLongestShape);
}

TensorEntry checked(RawTensor raw, const std::filesystem::path& path) {
  const std::string where = "tensor " + raw.name;
  const std::int64_t begin = (*raw.offsets)[0];
  const std::int64_t end = (*raw.offsets)[1];
  if (begin > end) throw FormatError(path, where, fmt::format("data_offsets [{}, {}] are in reverse order", begin, end));
  const std::optional<std::uint64_t> bytes = byte_count(*raw.type, *raw.shape);
  if (!bytes) {
    throw FormatError(
        path, where,
        fmt::format("{} of shape {} has no size in whole bytes below 2^60", name_of(*raw.type), shape_excerpt(*raw.shape)));
  }
  if (*bytes != static_cast<std::uint64_t>(end - begin)) {
    throw FormatError(path, where,
                      fmt::format("{} of shape {} takes {} bytes, but data_offsets [{}, {}] hold {}", name_of(*raw.type),
                                  shape_excerpt(*raw.shape), *bytes, begin, end, end - begin));
  }
  return {.name = std::move(raw.name),
          .type = *raw.type,
          .shape = std::move(*raw.shape),
          .offset = static_cast<std::uint64_t>(begin),
          .bytes = *bytes};
}

/// Each tensor must begin where the one before it ends, and the last end with the file.
void require_tiling(std::span<const TensorEntry> tensors, std::uint64_t header_bytes, std::uint64_t data_bytes,
                    const std::filesystem::path& path) {
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorEntry& tensor = tensors[i];
    if (tensor.offset != end) {
      throw FormatError(path, "tensor " + tensor.name,
                        fmt::format("begins at offset {}, but {} ends at {}: the data {}", tensor.offset,
                                    i == 0 ? "the header" : "tensor " + tensors[i - 1].name, end,
                                    tensor.offset > end ? "has a gap" : "overlaps"));
    }
    end += tensor.bytes;
  }
  const std::uint64_t data_start = 8 + header_bytes;
  if (end > data_bytes) {
    throw FormatError(path, "",
                      fmt::format("is truncated: by its header it has {} bytes, in fact {}; get the file again", data_start + end,
                                  data_start + data_bytes));
  }
  if (end < data_bytes) {
    throw FormatError(path, fmt::format("offset {}", data_start + end),
                      fmt::format("{} bytes follow the last tensor; the format allows none", data_bytes - end));
  }
}

}  // namespace

std::string_view name_of(SafetensorsType type) { return kTypes.at(static_cast<std::size_t>(type)).name; }

std::uint64_t bits_of(SafetensorsType type) { return kTypes.at(static_cast<std::size_t>(type)).bits; }

std::optional<std::uint64_t> byte_count(SafetensorsType type, std::span<const std::int64_t> shape) {
  auto bits = static_cast<std::int64_t>(bits_of(type));
  bool empty = false;
  for (const std::int64_t dimension : shape) {
    if (dimension == 0) {
      empty = true;
    } else if (dimension < 0 || __builtin_mul_overflow(bits, dimension, &bits)) {
      return std::nullopt;
    }
  }
  if (empty) return 0;
  if (bits % 8 != 0) return std::nullopt;
  return static_cast<std::uint64_t>(bits) / 8;
}

bool converts_to_f32(SafetensorsType type) {
  return type == SafetensorsType::f32 || type == SafetensorsType::f16 || type == SafetensorsType::bf16 ||
         type == SafetensorsType::f64;
}

std::int64_t TensorEntry::elements() const noexcept {
  std::int64_t product = 1;
  for (const std::int64_t dimension : shape) product *= dimension;
  return product;
}

SafetensorsHeader parse_safetensors_header(std::string_view header, std::uint64_t data_bytes, const std::filesystem::path& path) {
  if (!header.starts_with('{')) throw FormatError(path, "header", "does not start with '{': this is not a safetensors file");
  HeaderEvents events(path);
  try {
    parse_json(header, events);
  } catch (const JsonError& error) {
    const auto where = error.offset() ? fmt::format("header, byte {}", *error.offset()) : "header";
    throw FormatError(path, where, error.what());
  }
  SafetensorsHeader result;
  result.metadata = events.take_metadata();
  std::vector<RawTensor> raw = events.take_tensors();
  result.tensors.reserve(raw.size());
  for (RawTensor& tensor : raw) result.tensors.push_back(checked(std::move(tensor), path));
  // Stable, and empty tensors before the one that begins where they do.
  std::ranges::stable_sort(result.tensors, {}, [](const TensorEntry& tensor) { return std::tuple(tensor.offset, tensor.bytes); });
  require_tiling(result.tensors, header.size(), data_bytes, path);
  return result;
}

}  // namespace lathe
