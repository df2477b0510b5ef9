#pragma once
// The folder that a run writes, and what it must not be.
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// What to do with a folder that holds an earlier run.
enum class Existing : std::uint8_t { refuse, overwrite };

/// Names of the files that a run writes into its folder, beside the tokenizer's.
std::span<const std::string_view> run_file_names();

/// Checks that a run may write `output`: absent, empty, or an earlier run of Lathe's (with Existing::overwrite), writable, neither equal to
/// nor inside `model`, and not holding one of `inputs`. Changes nothing. Throws UsageError or
/// FileError.
void check_output_folder(const std::filesystem::path& output, const std::filesystem::path& model,
                         std::span<const std::filesystem::path> inputs, Existing existing);

/// Creates `output`, or removes from it the files that Lathe writes; others stay.
void prepare_output_folder(const std::filesystem::path& output);

}  // namespace lathe
