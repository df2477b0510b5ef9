#include "lathe/checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "lathe/checkpoint/json.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// A new file, written from its start. `shown` is the name that errors give.
class OutputFile {
 public:
  OutputFile(const std::filesystem::path& path, const std::filesystem::path& shown)
      : shown_(shown), descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) throw FileError(shown_, fmt::format("cannot open for writing: {}", std::strerror(errno)));
  }
  ~OutputFile() { ::close(descriptor_); }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  OutputFile(OutputFile&&) = delete;
  OutputFile& operator=(OutputFile&&) = delete;

  void write(std::span<const std::byte> data) {
    while (!data.empty()) {
      const ssize_t count = ::write(descriptor_, data.data(), data.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw FileError(shown_, fmt::format("cannot write after {} bytes: {}", written_, std::strerror(errno)));
      data = data.subspan(static_cast<std::size_t>(count));
      written_ += static_cast<std::uint64_t>(count);
    }
  }

 private:
  const std::filesystem::path& shown_;
  int descriptor_;
  std::uint64_t written_ = 0;
};

void require_valid(std::span<const TensorView> tensors) {
  std::set<std::string_view> names;
  for (const TensorView& tensor : tensors) {
    if (tensor.name == "__metadata__") throw LogicError("a tensor cannot be named __metadata__");
    if (!names.insert(tensor.name).second) throw LogicError(fmt::format("two tensors are named {}", tensor.name));
    if (byte_count(tensor.type, tensor.shape) != tensor.data.size()) {
      throw LogicError(fmt::format("tensor {}: {} of shape [{}] given with {} bytes", tensor.name, name_of(tensor.type),
                                   fmt::join(tensor.shape, ", "), tensor.data.size()));
    }
  }
}

std::string header_of(std::span<const TensorView* const> sorted, const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> members;
  members.reserve(1 + sorted.size());
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    pairs.reserve(metadata.size());
    for (const auto& [key, value] : metadata) pairs.push_back(json_quoted(key) + ":" + json_quoted(value));
    members.push_back(fmt::format(R"("__metadata__":{{{}}})", fmt::join(pairs, ",")));
  }
  std::uint64_t offset = 0;
  for (const TensorView* tensor : sorted) {
    members.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_quoted(tensor->name),
                                  name_of(tensor->type), fmt::join(tensor->shape, ","), offset, offset + tensor->data.size()));
    offset += tensor->data.size();
  }
  std::string header = fmt::format("{{{}}}", fmt::join(members, ","));
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > kLongestSafetensorsHeader)
    throw LogicError(fmt::format("{} tensors need too long a header", sorted.size()));
  return header;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata, const std::function<void()>& written) {
  require_valid(tensors);
  std::vector<const TensorView*> sorted;
  sorted.reserve(tensors.size());
  for (const TensorView& tensor : tensors) sorted.push_back(&tensor);
  std::ranges::sort(sorted, [](const TensorView* a, const TensorView* b) {
    return a->type != b->type ? a->type > b->type : a->name < b->name;
  });
  const std::string header = header_of(sorted, metadata);
  write_file_atomically(path, [&](const std::filesystem::path& temporary) {
    OutputFile file(temporary, path);
    const std::uint64_t header_bytes = header.size();
    file.write(std::as_bytes(std::span(&header_bytes, 1)));
    file.write(std::as_bytes(std::span(header)));
    for (const TensorView* tensor : sorted) {
      file.write(tensor->data);
      if (written) written();
    }
  });
}

}  // namespace lathe
