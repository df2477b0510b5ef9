#pragma once
// Nothing half-written: a file or a folder appears under its name only when it is complete and on the disk.
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {

/// Writes `contents` beside `path`, fsyncs, renames over `path`, fsyncs the folder. Throws FileError and leaves no temporary
/// file.
void write_file_atomically(const std::filesystem::path& path, std::string_view contents);
/// The same with `pieces`, one behind the other.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces);

/// Calls `write(temporary)`, which must create the file `temporary` and write all of it; then fsyncs and renames it to `path`, as
/// above. The temporary file is in `path`'s own folder and is removed where `write` throws.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& write);

}  // namespace lathe
