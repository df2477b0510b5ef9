#include "tools/command_line/config_file.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"
#include "tools/command_line/description.h"
#include "tools/command_line/suggestions.h"
#include "tools/run_file.h"

namespace lathe {
namespace {

/// What a file can't decide for a call: where it writes, and what it replaces. --output is in every run.toml, and is passed over.
constexpr std::array<std::string_view, 4> kOfTheCall = {"config", "dry-run", "help", "overwrite"};
constexpr std::array<std::string_view, 2> kForReaders = {"chosen", "inputs"};

std::string_view kind_of(const RunValue& value) {
  constexpr std::array<std::string_view, 5> kKinds = {"an integer", "a number", "true or false", "text", "a list of texts"};
  return kKinds.at(value.index());
}

std::string_view name_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::flag:
      return "true or false";
    case ValueKind::text:
      return "text in quotes";
    case ValueKind::number:
      return "a number";
    case ValueKind::text_or_number:
      return "a number or text in quotes";
  }
  return "";
}

bool fits(ValueKind kind, const RunValue& value) {
  const bool text = std::holds_alternative<std::string>(value);
  if (std::holds_alternative<std::vector<std::string>>(value)) return false;
  const bool truth = std::holds_alternative<bool>(value);
  switch (kind) {
    case ValueKind::flag:
      return truth;
    case ValueKind::text:
      return text;
    case ValueKind::number:
      return !text && !truth;
    case ValueKind::text_or_number:
      return !truth;
  }
  return false;
}

class ConfigFile {
 public:
  ConfigFile(CLI::App& command, const std::filesystem::path& path)
      : command_(command), path_(path), settings_(read_run_file(path)) {
    for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) program_ = app;
    description_ = *describe(*program_).find(command.get_name());
    names_ = option_names(description_, Dashes::without);
  }

  void apply() {
    for (const RunSetting& setting : settings_) {
      if (std::ranges::find(kForReaders, setting.section) != kForReaders.end()) continue;
      check_section(setting);
      const auto found = std::ranges::find(description_.options, "--" + setting.key, &OptionDescription::name);
      if (found == description_.options.end()) refuse(setting, unknown(setting.key));
      if (std::ranges::find(kOfTheCall, setting.key) != kOfTheCall.end()) {
        refuse(setting, fmt::format("'{}' is said on the command line, not in a file", setting.key));
      }
      set(setting, *found);
    }
  }

 private:
  [[noreturn]] void refuse(const RunSetting& setting, std::string_view message) const {
    throw FormatError(path_, fmt::format("line {}", setting.line), message);
  }

  void check_section(const RunSetting& setting) const {
    if (setting.section.empty() || setting.section == command_.get_name()) return;
    std::vector<std::string> sections(kForReaders.begin(), kForReaders.end());
    sections.push_back(command_.get_name());
    const auto meant = nearest(setting.section, sections);
    refuse(setting, fmt::format("no section is called [{}]; {}", shortened(setting.section),
                                meant ? fmt::format("did you mean [{}]?", *meant)
                                      : fmt::format("the settings are in [{}]", command_.get_name())));
  }

  std::string unknown(const std::string& key) const {
    const auto meant = nearest_setting(key, names_);
    return fmt::format(
        "no setting is called '{}'; {}", shortened(key),
        meant ? fmt::format("did you mean '{}'?", *meant) : fmt::format("`lathe {} --help` lists them", command_.get_name()));
  }

  static std::string shortened(const std::string& name) {
    constexpr std::size_t kLongest = 40;
    return name.size() > kLongest ? name.substr(0, kLongest) + "..." : name;
  }

  void set(const RunSetting& setting, const OptionDescription& description) {
    const auto same = [&](const RunSetting& other) { return &other != &setting && is_ours(other) && other.key == setting.key; };
    if (std::ranges::any_of(settings_, same)) refuse(setting, fmt::format("'{}' is there twice", setting.key));
    CLI::Option* option = command_.get_option("--" + setting.key);
    const auto* list = std::get_if<std::vector<std::string>>(&setting.value);
    const bool takes_list = option->get_items_expected_max() > 1;
    if (list != nullptr ? !takes_list : !fits(description.kind, setting.value)) {
      refuse(setting, fmt::format("'{}' is {}; it must be {}", setting.key, kind_of(setting.value), name_of(description.kind)));
    }
    if (setting.key == "output") return;
    for (CLI::Option* other : option->get_excludes()) {
      if (std::ranges::find(given_here_, other) != given_here_.end()) {
        refuse(setting, fmt::format("'{}' and '{}' exclude each other", setting.key, other->get_lnames().front()));
      }
      if (other->count() > 0) return;  // the call chose the other of the two
    }
    if (option->count() > 0) return;
    given_here_.push_back(option);
    try {
      if (list != nullptr) {
        option->add_result(*list);
      } else {
        option->add_result(to_text(setting.value));
      }
      option->run_callback();
    } catch (const CLI::ParseError& failure) {
      refuse(setting, failure.what());
    }
  }

  bool is_ours(const RunSetting& setting) const { return setting.section.empty() || setting.section == command_.get_name(); }

  CLI::App& command_;
  const std::filesystem::path& path_;
  std::vector<RunSetting> settings_;
  const CLI::App* program_ = nullptr;
  CommandDescription description_;
  std::vector<std::string> names_;
  std::vector<const CLI::Option*> given_here_;
};

}  // namespace

void apply_config_file(CLI::App& command, const std::filesystem::path& path) { ConfigFile(command, path).apply(); }

}  // namespace lathe
