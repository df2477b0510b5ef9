#pragma once
// The folder that a run writes, and what it must not be.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "lathe/runtime/file_lock.h"

namespace [[gnu::visibility("default")]] lathe {

/// What to do with a folder that holds an earlier run.
enum class Existing : std::uint8_t { refuse, overwrite };

/// Names of the files that a run writes into its folder, the tokenizer's among them; ".lathe.lock" is there while it runs.
std::span<const std::string_view> run_file_names();

/// Checks that a run may write `output`: absent, empty, or an earlier run of Lathe's (with Existing::overwrite), writable, neither equal to
/// nor inside `model` (where there is one), not holding one of `inputs`, and not in use by another run. Changes nothing. Throws UsageError or
/// FileError.
void check_output_folder(const std::filesystem::path& output, const std::optional<std::filesystem::path>& model,
                         std::span<const std::filesystem::path> inputs, Existing existing);

/// Creates `output` and locks it, or locks it and removes the files that Lathe writes, what a killed run left unfinished among them; others
/// stay. The folder is this run's as long as the lock lives. Throws UsageError where another run has it or has been there since
/// check_output_folder, and FileError.
FileLock prepare_output_folder(const std::filesystem::path& output, Existing existing);

}  // namespace lathe
