#include "tools/command_line/man_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <sstream>

#include "tools/command_line/help.h"

namespace lathe {
namespace {

/// Text that roff takes as it stands.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else if (c == '\'') {
      result += "\\(aq";
    } else {
      result.push_back(c);
    }
  }
  return result.starts_with('.') ? "\\&" + result : result;
}

/// Text to be filled, in lines of a length that an editor likes.
std::string filled(const std::string& text) {
  constexpr std::size_t kLongest = 78;
  std::string result;
  std::string line;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!line.empty() && escaped(fmt::format("{} {}", line, word)).size() > kLongest) {
      result += escaped(line) + "\n";
      line.clear();
    }
    line.append(line.empty() ? "" : " ").append(word);
  }
  return result + escaped(line) + "\n";
}

std::string option_entry(const OptionDescription& option) {
  std::string text = option.text;
  if (const std::string note = option_note(option); !note.empty()) text += " " + note;
  std::string value = option.value.empty() ? "" : fmt::format("\\fI{}\\fR", escaped(option.value));
  const std::string name = option.positional ? "" : fmt::format("\\fB{}\\fR", escaped(option.name));
  if (!name.empty() && !value.empty()) value = " " + value;
  return fmt::format(".TP\n{}{}\n{}", name, value, filled(text));
}

/// Running text is filled, indented lines are kept as they are.
std::string paragraphs(const std::string& text) {
  enum class Kind { none, filled, literal };
  std::string result;
  std::istringstream lines(text);
  Kind before = Kind::none;
  for (std::string line; std::getline(lines, line);) {
    const Kind kind = line.empty() ? Kind::none : line.starts_with("  ") ? Kind::literal : Kind::filled;
    if (before == Kind::literal && kind != Kind::literal) result += ".fi\n";
    if (kind != Kind::none && kind != before) result += kind == Kind::literal ? ".PP\n.nf\n" : ".PP\n";
    if (kind != Kind::none) result += escaped(line) + "\n";
    before = kind;
  }
  return result + (before == Kind::literal ? ".fi\n" : "");
}

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

}  // namespace

std::string man_page(const ProgramDescription& program) {
  std::string text = fmt::format(
      ".\\\" Made by `lathe man` from the text of `lathe --help`.\n"
      ".TH LATHE 1 \"\" \"Lathe {}\" \"User Commands\"\n"
      ".SH NAME\nlathe \\- fine\\-tune published transformers, evaluate them, predict with them\n"
      ".SH SYNOPSIS\n\\fBlathe\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]\n"
      ".SH DESCRIPTION\n{}",
      LATHE_VERSION, filled(program.program.text));
  for (const OptionDescription& option : program.program.options) text += option_entry(option);
  for (const CommandDescription& command : program.commands) {
    text += fmt::format(".SH {}\n{}", upper("LATHE " + command.name), filled(command.text));
    for (const OptionDescription& option : command.options) text += option_entry(option);
    text += paragraphs(command.footer);
  }
  text += ".SH EXIT STATUS\nOf every command:\n" + paragraphs(exit_statuses());
  text +=
      ".SH ENVIRONMENT\n"
      ".TP\n\\fBHF_HUB_CACHE\\fR, \\fBHF_HOME\\fR, \\fBXDG_CACHE_HOME\\fR\n"
      "Where models are looked for by name: $HF_HUB_CACHE, else $HF_HOME/hub, else\n"
      "$XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.\n"
      ".TP\n\\fBOMP_NUM_THREADS\\fR\nThe most threads that are used without \\-\\-threads.\n"
      ".TP\n\\fBNO_COLOR\\fR\nSet and not empty: no colour. TERM=dumb has none either, nor has a file.\n";
  return text;
}

}  // namespace lathe
