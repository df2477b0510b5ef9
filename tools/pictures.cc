#include "tools/pictures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>

#include "lathe/runtime/atomic_file.h"
#include "lathe/training/page_text.h"
#include "lathe/training/report_page.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::vector<WrongRow> wrong_rows(const ClassificationMetrics& metrics, const SplitTexts& texts) {
  // A text may have megabytes, and a page is for reading.
  constexpr std::size_t kMostText = 600;
  std::vector<WrongRow> rows;
  for (const ConfidentError& error : metrics.errors) {
    const std::int64_t record = texts.members.empty() ? error.sample : texts.members.at(static_cast<std::size_t>(error.sample));
    rows.push_back({.line = texts.records->line(record),
                    .text = beginning(texts.records->text(record), kMostText),
                    .pair = beginning(texts.records->pair(record), kMostText),
                    .label = error.label,
                    .predicted = error.predicted,
                    .probability = error.probability});
  }
  return rows;
}

}  // namespace

void collect(Curves& curves, const StepLog& log) {
  curves.steps.push_back({.step = log.step, .loss = log.loss, .learning_rate = log.learning_rate});
}

void collect(Curves& curves, const EvaluationLog& log) {
  const ClassificationMetrics& m = log.metrics;
  curves.evaluations.push_back({.step = log.step,
                                .loss = m.loss,
                                .accuracy = m.accuracy,
                                .f1 = m.binary() ? m.positive().f1 : m.macro.f1,
                                .best = log.best});
}

void collect(Curves& curves, const MaskedLmEvaluation& log) {
  // What isn't finite is not drawn: there is no accuracy here.
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  curves.evaluations.push_back({.step = log.step, .loss = log.score.loss, .accuracy = kNone, .f1 = kNone, .best = false});
}

void write_curves(const fs::path& folder, const Curves& curves) {
  write_file_atomically(folder / "curves.svg", curves_svg(curves));
}

void write_pictures(const fs::path& folder, const RunResults& results, const Curves& curves, const SplitTexts& dev,
                    const SplitTexts& test, std::span<const RunSection> settings) {
  PageContents page{.title = fs::absolute(folder / "").lexically_normal().parent_path().filename().string(),
                    .version = LATHE_VERSION,
                    .curves = curves_svg(curves),
                    .wrong = {},
                    .settings = {}};
  if (results.dev) {
    page.wrong = wrong_rows(*results.dev, dev);
  } else if (results.test) {
    page.wrong = wrong_rows(*results.test, test);
  }
  for (const RunSection& section : settings) {
    SettingsSection& shown = page.settings.emplace_back(SettingsSection{.name = section.name, .values = {}});
    for (const auto& [key, value] : section.values) {
      // A key that is a path is quoted for TOML.
      const bool quoted = key.size() >= 2 && key.front() == '"' && key.back() == '"';
      shown.values.emplace_back(quoted ? key.substr(1, key.size() - 2) : key,
                                std::visit([](const auto& x) { return fmt::format("{}", x); }, value));
    }
  }
  write_file_atomically(folder / "curves.svg", page.curves);
  write_file_atomically(folder / "report.html", report_page(results, page));
}

}  // namespace lathe
