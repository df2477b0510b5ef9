#pragma once
// Standard input, output and error, whatever the caller has made of them.
#include <string_view>

namespace lathe {

/// Gives those that the caller closed something to stand for them, so that no file of a run gets their numbers, and with them what is
/// printed: input is empty, messages go nowhere, and writing results fails. Called first of all.
void open_standard_streams();

/// Writes to standard error as much as goes: that nobody can be told of a run is no reason to end it.
void write_message(std::string_view text) noexcept;

/// Passes on what was printed to standard output. Throws FileError where that fails, but not for a reader who has gone away.
void flush_output();

}  // namespace lathe
