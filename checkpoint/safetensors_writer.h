#pragma once
// Writing safetensors files, as Hugging Face writes them.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lathe/checkpoint/safetensors.h"

namespace [[gnu::visibility("default")]] lathe {

/// A tensor to be written: row-major bytes that the caller keeps.
struct TensorView {
  std::string name;
  SafetensorsType type = SafetensorsType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// Writes `tensors` to `path` atomically (runtime/atomic_file.h), straight from where they lie. The layout is the one of the
/// format's own library: by element type, the widest first, then by name; header padded with spaces to 8 bytes; the same tensors
/// give the same bytes, in whatever order they come. Throws FileError where the disk is full or fails (what stood at `path` is
/// then untouched), and LogicError for two tensors of one name or data that isn't its shape's size.
/// `written`, where given, is called after each tensor.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}},
                       const std::function<void()>& written = {});

}  // namespace lathe
