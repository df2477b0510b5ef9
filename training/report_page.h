#pragma once
// A run as one page for people: report.html.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lathe/training/results.h"

namespace [[gnu::visibility("default")]] lathe {

/// A row that the model got wrong, as the data has it.
struct WrongRow {
  std::int64_t line = 0;   ///< of the file
  std::string text, pair;  ///< pair is empty where the task has single texts
  std::int32_t label = 0;
  std::int32_t predicted = 0;
  double probability = 0.0;  ///< of the predicted label
};

/// A section of run.toml.
struct SettingsSection {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;
};

/// What the page shows beside the results.
struct PageContents {
  std::string title;            ///< the run's name
  std::string version;          ///< Lathe's
  std::string curves;           ///< an <svg> element, taken as it is
  std::vector<WrongRow> wrong;  ///< of the dev split, or where there is none of the test split; the most confident first
  std::vector<SettingsSection> settings;
};

/// One self-contained page in HTML that is well-formed XML too: no scripts, nothing loaded, light and dark as the reader prefers. Texts, labels
/// and settings may hold anything. Confusion matrices are drawn for up to 30 classes.
std::string report_page(const RunResults& results, const PageContents& contents);

}  // namespace lathe
