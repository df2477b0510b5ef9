#include "lathe/training/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "lathe/training/number_text.h"
#include "lathe/training/page_text.h"
#include "lathe/training/report_style.h"

namespace lathe {
namespace {

/// More classes than these make no matrix that a page is wide enough for.
constexpr std::size_t kWidestMatrix = 30;
/// Up to here the cells are large and also say percentages.
constexpr std::size_t kRoomyMatrix = 8;
/// Up to here the matrix stands beside the scores.
constexpr std::size_t kSmallMatrix = 3;

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

/// "83.7 %".
std::string percent(double share) { return fmt::format("{:.1f} %", 100.0 * share); }

std::string duration(double seconds) {
  if (seconds < 60.0) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::llround(seconds);
  return whole < 3600 ? fmt::format("{} min {} s", whole / 60, whole % 60)
                      : fmt::format("{} h {} min", grouped(whole / 3600), whole / 60 % 60);
}

/// A label where there is room for a line of it; the whole is its title.
std::string label_of(std::string_view name) {
  const std::string whole = escaped(beginning(name, 1000));
  return fmt::format(R"(<bdi class="label" title="{}">{}</bdi>)", whole, name.empty() ? "(empty)" : whole);
}

/// A share of hits and what it may be on other rows: Wilson's score interval, 95 %.
std::pair<double, double> wilson_interval(double share, std::int64_t samples) {
  constexpr double kQuantile = 1.959964;
  const auto n = static_cast<double>(samples);
  const double square = kQuantile * kQuantile / n;
  const double centre = (share + square / 2.0) / (1.0 + square);
  const double half = kQuantile / (1.0 + square) * std::sqrt(share * (1.0 - share) / n + square / (4.0 * n));
  return {centre - half, centre + half};
}

class Page {
 public:
  Page(const RunResults& results, const PageContents& contents) : results_(results), contents_(contents) {}

  std::string write() {
    head();
    put("<body>\n<main>\n<header>\n<p class=\"kicker\">Fine-tuning report</p>\n<h1><bdi>{}</bdi></h1>\n",
        escaped(contents_.title));
    verdict();
    put("</header>\n");
    figures();
    put("<section aria-labelledby=\"curves\">\n<h2 id=\"curves\">Course of the training</h2>\n"
        "<figure class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"curves\">\n{}</figure>\n</section>\n",
        contents_.curves);
    if (results_.dev) split("dev", *results_.dev);
    if (results_.test) split("test", *results_.test);
    wrong_rows();
    settings();
    put("<footer>Written by Lathe {}. The same figures for programs: <code>results.json</code>, <code>metrics.jsonl</code> and "
        "<code>run.toml</code> beside this page.</footer>\n</main>\n</body>\n</html>\n",
        escaped(contents_.version));
    return std::move(text_);
  }

 private:
  void head() {
    put("<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
        "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
        // Even if a text got through as markup, it could neither run nor load anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
        "<title>{} - Lathe</title>\n<style>{}</style>\n</head>\n",
        escaped(contents_.title), kReportStyle);
  }

  void verdict() {
    const FinetuneResult& train = results_.train;
    if (train.interrupted) {
      put("<p class=\"notice\" role=\"note\">Interrupted after step {} of {}: what follows is what there was until then.</p>\n",
          grouped(train.steps), grouped(train.total_steps));
    }
    // A test split had no part in choosing the model, so it has the first word.
    if (results_.test) return sentence("test", *results_.test);
    if (results_.dev) return sentence("dev", *results_.dev);
    put("<p class=\"lead\">Nothing was evaluated: how well the model does isn’t known.</p>\n");
  }

  void sentence(std::string_view split, const ClassificationMetrics& metrics) {
    if (metrics.samples == 0) return put("<p class=\"lead\">The {} split has no rows.</p>\n", split);
    const auto commonest = std::max_element(metrics.support.begin(), metrics.support.end());
    const auto [low, high] = wilson_interval(metrics.accuracy, metrics.samples);
    put("<p class=\"lead\">The model is right on <strong>{}</strong> of {}. "
        "Always answering “{}”, their commonest label, would be right on {}.</p>\n",
        percent(metrics.accuracy), counted(metrics.samples, fmt::format("{} row", split)),
        label_of(results_.labels.at(static_cast<std::size_t>(commonest - metrics.support.begin()))),
        percent(ratio(*commonest, metrics.samples)));
    put("<p class=\"soft\">On rows like these, its accuracy lies between {} and {} (95 % interval).{}</p>\n", percent(low),
        percent(high),
        split == "dev" ? " The dev split also chose which epoch’s model was kept, so its figures flatter a little." : "");
  }

  void figure(std::string_view name, std::string_view value, std::string_view detail) {
    put("<div><dt>{}</dt><dd>{}{}</dd></div>\n", name, value, detail.empty() ? "" : fmt::format("<small>{}</small>", detail));
  }

  void figures() {
    put("<dl aria-label=\"Figures of the run\">\n");
    const auto scores = [&](std::string_view split, const ClassificationMetrics& m) {
      figure(fmt::format("Accuracy, {}", split), fmt::format("{:.4f}", m.accuracy), counted(m.samples, "row"));
      if (m.binary()) {
        figure(fmt::format("F1, {}", split), fmt::format("{:.4f}", m.positive().f1),
               fmt::format("of {}", label_of(results_.labels.at(static_cast<std::size_t>(m.positive_class)))));
      } else {
        figure(fmt::format("Macro F1, {}", split), fmt::format("{:.4f}", m.macro.f1),
               grouped(static_cast<std::int64_t>(m.classes.size())) + " classes");
      }
      figure(fmt::format("Loss, {}", split), fmt::format("{:.4f}", m.loss), "mean cross-entropy");
    };
    if (results_.test) scores("test", *results_.test);
    if (results_.dev) scores("dev", *results_.dev);
    const FinetuneResult& train = results_.train;
    if (train.best)
      figure("Model kept", fmt::format("step {}", grouped(train.best->step)), fmt::format("epoch {:.4g}", train.best->epoch));
    figure("Trained", counted(train.steps, "step"), fmt::format("{:.4g} epoch{}", train.epochs, train.epochs == 1.0 ? "" : "s"));
    figure("Training time", duration(train.seconds), "without evaluations");
    if (train.seconds > 0.0) {
      figure("Speed", grouped(std::llround(static_cast<double>(train.tokens) / train.seconds)), "tokens/s");
    }
    figure("Memory", fmt::format("{:.2f} GB", static_cast<double>(results_.peak_memory_bytes) / 1e9), "at most");
    put("</dl>\n");
  }

  void split(std::string_view name, const ClassificationMetrics& metrics) {
    put("<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1} split</h2>\n", name, name == "dev" ? "Dev" : "Test");
    put("<div{}>\n<div>\n", metrics.classes.size() <= kSmallMatrix ? " class=\"beside\"" : "");
    per_class(name, metrics);
    put("</div>\n<div>\n<h3 id=\"{}-matrix\">Confusion matrix</h3>\n", name);
    if (metrics.classes.size() <= kWidestMatrix) {
      matrix(name, metrics);
    } else {
      put("<p>A matrix of {} classes is too wide for a page: <code>results.json</code> has it, under "
          "<code>{}.confusion</code>.</p>\n",
          grouped(static_cast<std::int64_t>(metrics.classes.size())), name);
    }
    put("</div>\n</div>\n</section>\n");
  }

  void per_class(std::string_view name, const ClassificationMetrics& metrics) {
    const bool tall = metrics.classes.size() > kWidestMatrix;
    put("<h3 id=\"{0}-classes\">By class</h3>\n"
        "<div class=\"scroll{1}\" tabindex=\"0\" role=\"group\" aria-labelledby=\"{0}-classes\">\n"
        "<table class=\"scores\">\n<thead><tr><th scope=\"col\">Label</th><th scope=\"col\" class=\"number\">Precision</th>"
        "<th scope=\"col\" class=\"number\">Recall</th><th scope=\"col\" class=\"number\">F1</th>"
        "<th scope=\"col\" class=\"number\">Rows</th></tr></thead>\n<tbody>\n",
        name, tall ? " tall" : "");
    const auto row = [&](std::string_view kind, const std::string& label, const ClassScores& s, std::int64_t rows) {
      put("<tr{}><th scope=\"row\">{}</th><td class=\"number\">{:.4f}</td><td class=\"number\">{:.4f}</td>"
          "<td class=\"number\">{:.4f}</td><td class=\"number\">{}</td></tr>\n",
          kind, label, s.precision, s.recall, s.f1, grouped(rows));
    };
    for (std::size_t c = 0; c < metrics.classes.size(); ++c) {
      const bool positive = metrics.binary() && c == static_cast<std::size_t>(metrics.positive_class);
      row("", label_of(results_.labels.at(c)) + (positive ? " <span class=\"tag\">the positive one</span>" : ""),
          metrics.classes[c], metrics.support[c]);
    }
    put("</tbody>\n<tbody>\n");
    row(" class=\"mean\"", "macro mean", metrics.macro, metrics.samples);
    row(" class=\"mean\"", "weighted mean", metrics.weighted, metrics.samples);
    put("</tbody>\n</table>\n</div>\n");
  }

  void matrix(std::string_view name, const ClassificationMetrics& metrics) {
    const std::size_t classes = metrics.classes.size();
    const bool roomy = classes <= kRoomyMatrix;
    put("<p class=\"soft\">Rows of each true label by what was predicted. Colours are shares of the true label’s rows: "
        "blue is right, red is wrong.</p>\n"
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"{0}-matrix\">\n"
        "<table class=\"heat{1}\" aria-labelledby=\"{0}-matrix\">\n<thead><tr><th scope=\"col\" class=\"corner\">true \\ "
        "predicted</th>",
        name, roomy ? "" : " dense");
    for (const std::string& label : results_.labels) put("<th scope=\"col\">{}</th>", label_of(label));
    put("</tr></thead>\n<tbody>\n");
    for (std::size_t c = 0; c < classes; ++c) {
      put("<tr><th scope=\"row\">{}</th>", label_of(results_.labels.at(c)));
      for (std::size_t p = 0; p < classes; ++p) cell(metrics, c, p, roomy);
      put("</tr>\n");
    }
    put("</tbody>\n</table>\n</div>\n");
  }

  void cell(const ClassificationMetrics& metrics, std::size_t actual, std::size_t predicted, bool roomy) {
    const std::int64_t count = metrics.confusion[actual * metrics.classes.size() + predicted];
    const double share = ratio(count, metrics.support[actual]);
    // By its root, so that a share of a few percent is seen.
    const double shade = std::sqrt(share);
    put(R"(<td class="{}{}" style="--share:{:.3f}" title="{} of {} rows, {}">{}{}</td>)", actual == predicted ? "hit" : "miss",
        count == 0 ? " zero" : "", shade, grouped(count), grouped(metrics.support[actual]), percent(share), grouped(count),
        roomy && metrics.support[actual] > 0 ? fmt::format("<small>{}</small>", percent(share)) : "");
  }

  void wrong_rows() {
    put("<section aria-labelledby=\"wrong\">\n<h2 id=\"wrong\">Most confidently wrong</h2>\n");
    if (!results_.dev && !results_.test) return put("<p>Nothing was evaluated.</p>\n</section>\n");
    const std::string_view split = results_.dev ? "dev" : "test";
    const ClassificationMetrics& metrics = results_.dev ? *results_.dev : *results_.test;
    std::int64_t right = 0;
    for (std::size_t c = 0; c < metrics.classes.size(); ++c) right += metrics.confusion[c * (metrics.classes.size() + 1)];
    const std::int64_t wrong = metrics.samples - right;
    if (wrong == 0) return put("<p>The model is right on all of the {} split.</p>\n</section>\n", split);
    put("<p class=\"soft\">{} of the {} {} that the kept model gets wrong, the surest first. "
        "Look here for labels that are wrong in the data.</p>\n",
        contents_.wrong.size() == static_cast<std::size_t>(wrong) ? "All" : fmt::format("The first {}", contents_.wrong.size()),
        grouped(wrong), fmt::format("{} row{}", split, wrong == 1 ? "" : "s"));
    put("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"wrong\">\n<table class=\"wrong\">\n<thead><tr>"
        "<th scope=\"col\" class=\"number\">Line</th><th scope=\"col\">Text</th><th scope=\"col\">True label</th>"
        "<th scope=\"col\">Predicted</th><th scope=\"col\" class=\"number\">Probability</th></tr></thead>\n<tbody>\n");
    for (const WrongRow& row : contents_.wrong) {
      put("<tr><th scope=\"row\" class=\"number\">{}</th><td class=\"text\"><bdi>{}</bdi>{}</td><td class=\"true\">{}</td>"
          "<td class=\"predicted\">{}</td><td class=\"number\">{:.4f}</td></tr>\n",
          grouped(row.line), escaped(row.text),
          row.pair.empty() ? "" : fmt::format("<bdi class=\"pair\">{}</bdi>", escaped(row.pair)),
          label_of(results_.labels.at(static_cast<std::size_t>(row.label))),
          label_of(results_.labels.at(static_cast<std::size_t>(row.predicted))), row.probability);
    }
    put("</tbody>\n</table>\n</div>\n</section>\n");
  }

  void settings() {
    put("<section aria-labelledby=\"settings\">\n<h2 id=\"settings\">Settings</h2>\n"
        "<p class=\"soft\">As <code>run.toml</code> has them.</p>\n");
    for (const SettingsSection& section : contents_.settings) {
      const auto longer = [](const auto& a, const auto& b) { return a.first.size() < b.first.size(); };
      const auto longest = std::max_element(section.values.begin(), section.values.end(), longer);
      constexpr std::size_t kOption = 24;  // options are shorter, files are not
      put("<table class=\"settings{}\">\n<caption>{}</caption>\n<tbody>\n",
          longest != section.values.end() && longest->first.size() > kOption ? " wide" : "", escaped(section.name));
      for (const auto& [key, value] : section.values) {
        put("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escaped(key),
            value.empty() ? "<span class=\"soft\">none</span>" : escaped(value));
      }
      put("</tbody>\n</table>\n");
    }
    put("</section>\n");
  }

  template <class... Values>
  void put(fmt::format_string<Values...> format, Values&&... values) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
  }

  const RunResults& results_;
  const PageContents& contents_;
  std::string text_;
};

}  // namespace

std::string report_page(const RunResults& results, const PageContents& contents) { return Page(results, contents).write(); }

}  // namespace lathe
