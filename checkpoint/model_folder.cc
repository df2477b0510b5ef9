#include "lathe/checkpoint/model_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

constexpr std::size_t kMostShown = 8;

bool has_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

std::string contents_of(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code failure;
  for (auto at = std::filesystem::directory_iterator(folder, failure); !failure && at != std::filesystem::directory_iterator();
       at.increment(failure)) {
    names.push_back(at->path().filename().string());
  }
  if (failure) throw FileError(folder, fmt::format("cannot list the folder: {}", failure.message()));
  if (names.empty()) return "it is empty";
  std::ranges::sort(names);
  const std::string rest = names.size() > kMostShown ? fmt::format(" and {} more", names.size() - kMostShown) : "";
  names.resize(std::min(names.size(), kMostShown));
  return fmt::format("it holds {}{}", fmt::join(names, ", "), rest);
}

struct OtherWeights {
  std::string_view name;
  std::string_view advice;
};

/// What other tools leave in the place of model.safetensors.
constexpr std::array kOtherWeights = {
    OtherWeights{"model.safetensors.index.json",
                 "weights in several files are not read yet: load the model with transformers and save it with "
                 "save_pretrained(NEW_FOLDER, max_shard_size=\"100GB\")"},
    OtherWeights{
        "pytorch_model.bin",
        "PyTorch's own format is not read yet: load the model with transformers and save it with save_pretrained(NEW_FOLDER)"},
    OtherWeights{"tf_model.h5",
                 "TensorFlow's formats are not read yet: convert it with transformers 4, by from_pretrained(FOLDER, "
                 "from_tf=True) and save_pretrained(NEW_FOLDER)"},
    OtherWeights{
        "bert_model.ckpt.index",
        "TensorFlow's formats are not read yet: convert it with transformers 4, by from_pretrained(FOLDER, from_tf=True) and "
        "save_pretrained(NEW_FOLDER)"},
};

[[noreturn]] void refuse_weights(const std::filesystem::path& folder) {
  for (const OtherWeights& other : kOtherWeights) {
    if (has_file(folder / other.name))
      throw FileError(folder, fmt::format("has {}, but no model.safetensors; {}", other.name, other.advice));
  }
  throw FileError(folder, fmt::format("has no model.safetensors; {}", contents_of(folder)));
}

}  // namespace

ModelFolder ModelFolder::open(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored)) {
    throw FileError(folder, "does not exist; a model is a folder with config.json and model.safetensors");
  }
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw FileError(folder, "is not a folder; give the folder that holds config.json and model.safetensors");
  }
  ModelFolder model{.folder = folder, .config = folder / "config.json", .weights = folder / "model.safetensors"};
  if (!has_file(model.config)) throw FileError(folder, fmt::format("has no config.json; {}", contents_of(folder)));
  if (!has_file(model.weights)) refuse_weights(folder);
  return model;
}

}  // namespace lathe
