#pragma once
// The folder of a published or saved model.
#include <filesystem>

namespace [[gnu::visibility("default")]] lathe {

/// Where the files of a model lie.
struct ModelFolder {
  std::filesystem::path folder;
  std::filesystem::path config;   ///< config.json
  std::filesystem::path weights;  ///< model.safetensors

  /// Throws FileError where `folder` isn't one or lacks a file: it says which, what there is instead, and for weights in formats
  /// that Lathe doesn't read how to convert them.
  static ModelFolder open(const std::filesystem::path& folder);
};

}  // namespace lathe
