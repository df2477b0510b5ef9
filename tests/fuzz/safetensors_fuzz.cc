// safetensors: whatever is accepted tiles the file, and can be read.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <string>
#include <vector>

#include "lathe/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

constexpr std::size_t kPrefix = 8;

void check(const SafetensorsFile& file, Bytes bytes) {
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), kPrefix);
  std::uint64_t end = 0;
  for (const TensorEntry& entry : file.tensors()) {
    require(entry.offset == end, "each tensor begins where the one before it ends");
    require(byte_count(entry.type, entry.shape) == entry.bytes, "a tensor has the bytes of its shape");
    require(file.find(entry.name) == &entry, "a tensor is found by its name");
    require(file.bytes(entry).size() == entry.bytes, "a tensor's bytes are there");
    end += entry.bytes;
    if (!converts_to_f32(entry.type)) continue;
    std::vector<float> values(static_cast<std::size_t>(entry.elements()));
    const bool read = accepted([&] { return file.read_f32(entry, values), true; }).has_value();
    require(read || entry.type == SafetensorsType::f64, "only F64 has values beyond fp32");
    if (entry.type == SafetensorsType::f32 && entry.bytes > 0) {
      require(std::memcmp(values.data(), file.bytes(entry).data(), entry.bytes) == 0, "F32 is read as it is stored");
    }
  }
  require(kPrefix + header + end == bytes.size(), "the tensors end with the file");
}

/// A whole file, in the parts that the mutator changes one at a time.
struct Parts {
  std::string header, data;
};

Parts split(std::string_view file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kPrefix);
  file.remove_prefix(kPrefix);
  const auto header = static_cast<std::size_t>(std::min<std::uint64_t>(length, file.size()));
  return {std::string(file.substr(0, header)), std::string(file.substr(header))};
}

std::size_t join(const Parts& parts, std::uint8_t* to, std::size_t capacity) {
  const std::uint64_t length = parts.header.size();
  std::string file(kPrefix, '\0');
  std::memcpy(file.data(), &length, kPrefix);
  file += parts.header + parts.data;
  const std::size_t size = std::min(file.size(), capacity);
  std::copy_n(file.begin(), size, to);
  return size;
}

/// Puts a tensor behind the others that the header then names, with its bytes behind theirs.
void append_tensor(Parts& parts, unsigned seed) {
  if (!parts.header.starts_with('{')) return;
  const std::size_t bytes = std::size_t{8} * (seed % 17);
  const std::string type = seed / 17 % 2 == 0 ? "F64" : "I64";
  const bool only = parts.header.find('"') == std::string::npos;
  parts.header.insert(1, "\"t" + std::to_string(seed % 97) + R"(":{"dtype":")" + type + R"(","shape":[)" +
                             std::to_string(bytes / 8) + R"(],"data_offsets":[)" + std::to_string(parts.data.size()) + "," +
                             std::to_string(parts.data.size() + bytes) + "]}" + (only ? "" : ","));
  parts.data.resize(parts.data.size() + bytes, static_cast<char>(seed));
}

/// Moves a tensor by a few bytes, over its neighbour or away from it, and lets its size be.
void move_tensor(Parts& parts, unsigned seed) {
  constexpr std::string_view kKey = "\"data_offsets\":[";
  std::size_t at = parts.header.find(kKey);
  for (unsigned i = 0; i < seed % 4; ++i) {
    const std::size_t next = parts.header.find(kKey, at + 1);
    if (next != std::string::npos) at = next;
  }
  if (at == std::string::npos) return;
  const char* begin = parts.header.data() + at + kKey.size();
  const char* const header_end = parts.header.data() + parts.header.size();
  std::int64_t from = 0;
  std::int64_t to = 0;
  const auto first = std::from_chars(begin, header_end, from);
  if (first.ec != std::errc() || first.ptr == header_end) return;
  const auto second = std::from_chars(first.ptr + 1, header_end, to);
  const std::int64_t by = static_cast<std::int64_t>(seed / 4 % 17) - 8;
  if (second.ec != std::errc() || from > 4096 || to > 4096 || from + by < 0) return;
  parts.header.replace(at + kKey.size(), static_cast<std::size_t>(second.ptr - begin),
                       std::to_string(from + by) + "," + std::to_string(to + by));
}

/// Gives the data the length that the largest number before a bracket asks for, which data_offsets end with.
void fit_data(Parts& parts) {
  std::size_t largest = 0;
  for (std::size_t at = parts.header.find(']'); at != std::string::npos; at = parts.header.find(']', at + 1)) {
    std::size_t begin = at;
    while (begin > 0 && std::isdigit(static_cast<unsigned char>(parts.header[begin - 1])) != 0) --begin;
    std::size_t number = 0;
    std::from_chars(parts.header.data() + begin, parts.header.data() + at, number);
    if (number <= 4096) largest = std::max(largest, number);
  }
  parts.data.resize(largest);
}

}  // namespace
}  // namespace lathe::fuzz

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

/// A change anywhere in the header would make its length a lie nearly always, and hide all that comes after that check.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  using namespace lathe::fuzz;
  if (size < kPrefix || seed % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
  Parts parts = split(text_of({data, size}));
  if (seed % 8 == 1) {
    append_tensor(parts, seed / 8);
  } else if (seed % 8 == 2) {
    fit_data(parts);
  } else if (seed % 8 == 3) {
    move_tensor(parts, seed / 8);
  } else {
    const std::size_t before = parts.header.size();
    parts.header.resize(max_size);
    parts.header.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(parts.header.data()), before, max_size));
  }
  return join(parts, data, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  static const MemoryFile memory("model.safetensors");
  memory.hold({data, size});
  const auto file = accepted([] { return lathe::SafetensorsFile::open(memory.path()); });
  if (file) check(*file, {data, size});
  return 0;
}
