#pragma once
// Models by name, where Hugging Face's tools have put them on this machine. Nothing is ever downloaded.
#include <filesystem>
#include <string>

namespace [[gnu::visibility("default")]] lathe {

/// The cache of Hugging Face's tools: $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
/// ~/.cache/huggingface/hub.
std::filesystem::path hub_cache_folder();

/// The folder of `model`: `model` itself where it exists; else, where it looks like a name ("bert-base-uncased", "org/name"), the
/// snapshot of it in `cache` that refs/main tells of, or else the newest. Throws FileError where there is neither, in a line that
/// says how to get it, or which model of the cache may be meant.
std::filesystem::path find_model(const std::filesystem::path& model, const std::filesystem::path& cache);

}  // namespace lathe
