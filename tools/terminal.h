#pragma once
// Messages for people, on standard error; coloured where a terminal shows them and nobody objects.
#include <string>
#include <string_view>

namespace lathe {

/// Whether `file` (STDERR_FILENO) is a terminal that understands control sequences: not TERM=dumb.
bool is_terminal(int file);

/// What a message is, and so how it looks.
enum class Tone { error, warning, success };

/// `text` in the colour of `tone`: red, yellow, green; as it is where standard error is no terminal or NO_COLOR is set.
std::string coloured(std::string_view text, Tone tone);

/// Prints "lathe: `message`".
void print_error(std::string_view message);
/// Prints "warning: `message`".
void print_warning(std::string_view message);

}  // namespace lathe
