#include "lathe/training/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "lathe/runtime/error.h"
#include "lathe/training/axis.h"
#include "lathe/training/number_text.h"
#include "lathe/training/page_text.h"

namespace lathe {
namespace {

constexpr double kWidth = 760.0;
constexpr double kLeft = 60.0;
constexpr double kRight = kWidth - 18.0;
/// Height of a panel's line of names above the drawing, and of the space below it.
constexpr double kHead = 34.0;
constexpr double kFoot = 18.0;
constexpr double kStepAxis = 34.0;
/// More points than these can't be told apart.
constexpr std::size_t kMostPoints = 700;
constexpr std::size_t kMostMarkers = 60;

/// Everything is under the one class, so that a page which holds the picture keeps its own rules.
constexpr std::string_view kStyle = R"(
.lathe-curves { --paper: #ffffff; --ink: #1b1f27; --soft: #596173; --grid: #e3e6ec; --epoch: #b4bac7; --train: #2563eb; --dev: #c2410c;
  --accuracy: #0f766e; --f1: #8b2fc9; --rate: #596173; font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif; }
@media (prefers-color-scheme: dark) {
  .lathe-curves { --paper: #14171c; --ink: #e8eaee; --soft: #a3abba; --grid: #2b303a; --epoch: #59606e; --train: #7aa7ff; --dev: #ff9d66;
    --accuracy: #4fd1b8; --f1: #d6a2ff; --rate: #a3abba; }
}
.lathe-curves .paper { fill: var(--paper); }
.lathe-curves text { fill: var(--soft); font-variant-numeric: tabular-nums; }
.lathe-curves .name { fill: var(--ink); font-weight: 600; font-size: 13px; }
.lathe-curves .grid { stroke: var(--grid); }
.lathe-curves .epoch { stroke: var(--epoch); stroke-dasharray: 2 4; }
.lathe-curves polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.lathe-curves .faint { stroke-width: 1; opacity: .5; }
.lathe-curves .dashed { stroke-dasharray: 6 4; }
.lathe-curves .train { stroke: var(--train); }
.lathe-curves .dev { stroke: var(--dev); }
.lathe-curves .accuracy { stroke: var(--accuracy); }
.lathe-curves .f1 { stroke: var(--f1); }
.lathe-curves .rate { stroke: var(--rate); }
.lathe-curves circle { fill: var(--paper); stroke-width: 2; }
.lathe-curves .best { fill: none; stroke: var(--ink); stroke-width: 1.5; }
)";

struct Point {
  double x = 0.0;
  double y = 0.0;
};
using Points = std::vector<Point>;

/// The points of `samples` whose value can be drawn.
template <class Sample, class Value>
Points points_of(const std::vector<Sample>& samples, Value value) {
  // Beyond this, not even the width of an axis is a number.
  constexpr double kLargest = 1e300;
  Points points;
  for (const Sample& sample : samples) {
    const double y = value(sample);
    if (std::isfinite(y) && std::abs(y) <= kLargest) points.push_back({static_cast<double>(sample.step), y});
  }
  return points;
}

/// At most about kMostPoints of `points`: of neighbours the least and the largest, in their order, so that no peak is lost.
Points thinned(const Points& points) {
  if (points.size() <= kMostPoints) return points;
  constexpr std::size_t kBuckets = kMostPoints / 2;
  const auto lower = [](const Point& a, const Point& b) { return a.y < b.y; };
  Points kept;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(i * points.size() / kBuckets);
    const auto end = points.begin() + static_cast<std::ptrdiff_t>((i + 1) * points.size() / kBuckets);
    const auto [least, largest] = std::minmax_element(begin, end, lower);
    kept.push_back(*std::min(least, largest));
    if (least != largest) kept.push_back(*std::max(least, largest));
  }
  return kept;
}

/// How many values the running mean takes: an odd number, 1 where there are too few for a mean to show more than they do.
std::size_t mean_width(std::size_t count) {
  constexpr std::size_t kFewest = 10;
  constexpr std::size_t kShare = 15;
  return count < kFewest ? 1 : std::max<std::size_t>(5, count / kShare) | 1U;
}

/// The mean of the `width` values around each point, of those there are at the ends.
Points running_mean(const Points& points, std::size_t width) {
  std::vector<double> sums(points.size() + 1);
  for (std::size_t i = 0; i < points.size(); ++i) sums[i + 1] = sums[i] + points[i].y;
  Points means = points;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t begin = i - std::min(i, width / 2);
    const std::size_t end = std::min(i + width / 2 + 1, points.size());
    means[i].y = (sums[end] - sums[begin]) / static_cast<double>(end - begin);
  }
  return means;
}

/// How wide a text is at the picture's size, about: fonts differ.
double text_width(std::string_view text) {
  constexpr double kLetter = 6.8;
  constexpr double kIdeograph = 12.0;  // of East Asia, and all beyond
  double width = 0.0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0U) != 0x80U) width += byte >= 0xE3 ? kIdeograph : kLetter;
  }
  return width;
}

/// As much of `text` as `width` has room for.
std::string fitted(std::string_view text, double width) {
  std::string shown = printable(beginning(text, 200));  // before it is cut: \x00 takes the room of four letters
  if (text_width(shown) <= width) return shown;
  std::size_t bytes = shown.size();
  while (bytes > 0 && text_width(beginning(shown, bytes)) > width) --bytes;
  return beginning(shown, bytes);
}

/// Writes the picture from top to bottom, a panel at a time.
class Picture {
 public:
  Picture(std::int64_t last_step, std::int64_t steps_per_epoch)
      : last_step_(static_cast<double>(last_step)), steps_per_epoch_(steps_per_epoch) {}

  /// Begins a panel: its name and the grid. What is drawn next belongs to it.
  void begin_panel(std::string_view name, double height, const Axis& values) {
    top_ = bottom_ + kHead;
    bottom_ = top_ + height;
    values_ = values;
    legend_ = kLeft + text_width(name) + 30.0;
    put(R"(<text class="name" x="{:.1f}" y="{:.1f}">{}</text>)", kLeft, top_ - 13.0, name);
    for (const double tick : values.ticks()) {
      put(R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", kLeft, kRight, y(tick), y(tick));
      put(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)", kLeft - 8.0, y(tick) + 4.0, values.text(tick));
    }
    for (const auto& [epoch, at] : epochs()) {
      put(R"(<line class="epoch" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", at, at, top_, bottom_);
    }
  }
  void end_panel() { bottom_ += kFoot; }

  void line(const Points& points, std::string_view kind) {
    if (points.size() == 1) return marker(points.front(), kind, {});
    if (points.empty()) return;
    std::string list;
    for (const Point& p : points)
      fmt::format_to(std::back_inserter(list), "{}{:.1f},{:.1f}", list.empty() ? "" : " ", x(p.x), y(p.y));
    put(R"(<polyline class="{}" points="{}"/>)", kind, list);
  }

  /// A point that says its value when pointed at.
  void marker(const Point& point, std::string_view kind, std::string_view says) {
    put(R"(<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5">{}</circle>)", kind, x(point.x), y(point.y),
        says.empty() ? "" : fmt::format("<title>{}</title>", says));
  }

  /// Points with a line through them; many have the line alone.
  void marked_line(const Points& points, std::string_view kind, std::string_view says) {
    line(thinned(points), kind);
    if (points.size() > kMostMarkers) return;
    const std::string_view colour = kind.substr(0, kind.find(' '));
    for (const Point& p : points) marker(p, colour, fmt::format("{} {:.4g} at step {}", says, p.y, grouped(std::llround(p.x))));
  }

  void ring(const Point& point) { put(R"(<circle class="best" cx="{:.1f}" cy="{:.1f}" r="7.5"/>)", x(point.x), y(point.y)); }

  /// Adds a line of this kind to the panel's legend.
  void legend(std::string_view kind, std::string_view text) {
    put(R"(<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" stroke-width="2"/>)", kind, legend_, legend_ + 20.0,
        top_ - 17.0, top_ - 17.0);
    legend_text(text, 26.0);
  }
  void legend_ring(std::string_view text) {
    put(R"(<circle class="best" cx="{:.1f}" cy="{:.1f}" r="5"/>)", legend_ + 6.0, top_ - 17.0);
    legend_text(text, 17.0);
  }

  /// The axis of steps below the last panel; ends the picture.
  std::string finish(std::string_view title, std::string_view description) {
    const Axis steps = round_axis(0.0, last_step_, 10, Scale::whole);
    for (const double tick : steps.ticks()) {
      if (tick > last_step_) break;  // the last step ends the picture, round or not
      put(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)", x(tick), bottom_ + 2.0, steps.text(tick));
    }
    put(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">step</text>)", kRight, bottom_ + 20.0);
    if (!epochs().empty()) {
      put(R"(<line class="epoch" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", kLeft, kLeft + 24.0, bottom_ + 16.0,
          bottom_ + 16.0);
      const auto epoch = epochs().front().first;
      put(R"(<text x="{:.1f}" y="{:.1f}">end of {}</text>)", kLeft + 30.0, bottom_ + 20.0,
          epoch == 1 ? "an epoch" : fmt::format("every {} epochs", grouped(epoch)));
    }
    const double height = bottom_ + kStepAxis;
    return fmt::format(
        R"(<svg xmlns="http://www.w3.org/2000/svg" class="lathe-curves" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" )"
        R"(height="{:.0f}" role="img" aria-labelledby="curves-title curves-description">)"
        "\n<title id=\"curves-title\">{}</title>\n<desc id=\"curves-description\">{}</desc>\n<style>{}</style>\n"
        R"(<rect class="paper" width="{:.0f}" height="{:.0f}" rx="8"/>)"
        "\n{}</svg>\n",
        kWidth, height, kWidth, height, title, description, kStyle, kWidth, height, body_);
  }

 private:
  double x(double step) const { return kLeft + (kRight - kLeft) * step / last_step_; }
  double y(double value) const { return bottom_ - (bottom_ - top_) * (value - values_.low) / (values_.high - values_.low); }

  /// Epochs whose ends are marked, with their place; of many epochs every second, fifth, tenth, ...
  std::vector<std::pair<std::int64_t, double>> epochs() const {
    constexpr int kMostMarks = 12;
    std::vector<std::pair<std::int64_t, double>> marks;
    if (steps_per_epoch_ <= 0) return marks;
    const auto epoch_steps = static_cast<double>(steps_per_epoch_);
    const auto every =
        std::max<std::int64_t>(1, std::llround(round_axis(0.0, last_step_ / epoch_steps, kMostMarks, Scale::whole).step));
    for (std::int64_t epoch = every; static_cast<double>(epoch) * epoch_steps <= last_step_; epoch += every)
      marks.emplace_back(epoch, x(static_cast<double>(epoch) * epoch_steps));
    return marks;
  }

  void legend_text(std::string_view text, double indent) {
    const std::string shown = fitted(text, kRight - legend_ - indent);
    put(R"(<text x="{:.1f}" y="{:.1f}">{}</text>)", legend_ + indent, top_ - 13.0, escaped(shown));
    legend_ += indent + text_width(shown) + 18.0;
  }

  template <class... Values>
  void put(fmt::format_string<Values...> format, Values&&... values) {
    fmt::format_to(std::back_inserter(body_), format, std::forward<Values>(values)...);
    body_ += '\n';
  }

  double last_step_;
  std::int64_t steps_per_epoch_;
  Axis values_;
  std::string body_;
  double top_ = 0.0;
  double bottom_ = 6.0;
  double legend_ = 0.0;
};

struct Range {
  double low = 0.0;
  double high = 0.0;
};
Range range_of(std::initializer_list<const Points*> lists) {
  Range range;
  bool any = false;
  for (const Points* points : lists) {
    for (const Point& p : *points) {
      range.low = any ? std::min(range.low, p.y) : p.y;
      range.high = any ? std::max(range.high, p.y) : p.y;
      any = true;
    }
  }
  return range;
}

/// An axis that starts at zero unless that would waste most of it.
Axis amount_axis(Range range, int most_steps) {
  if (range.low > 0.0 && (range.low == range.high || range.low < 0.6 * range.high)) range.low = 0.0;
  return round_axis(range.low, range.high, most_steps);
}

/// An axis for shares of one, wide enough that a hair's breadth looks like one.
Axis share_axis(Range range, int most_steps) {
  constexpr double kNarrowest = 0.1;
  const double missing = std::max(0.0, kNarrowest - (range.high - range.low));
  const double high = std::min(1.0, range.high + missing / 2.0);
  return round_axis(std::max(0.0, std::min(range.low, high - kNarrowest)), high, most_steps);
}

}  // namespace

std::string curves_svg(const Curves& curves) {
  const Points losses = points_of(curves.steps, [](const StepPoint& p) { return p.loss; });
  const Points rates = points_of(curves.steps, [](const StepPoint& p) { return p.learning_rate; });
  const Points dev_losses = points_of(curves.evaluations, [](const EvaluationPoint& p) { return p.loss; });
  const Points accuracies = points_of(curves.evaluations, [](const EvaluationPoint& p) { return p.accuracy; });
  const Points f1s = points_of(curves.evaluations, [](const EvaluationPoint& p) { return p.f1; });
  std::int64_t last = 1;
  if (!curves.steps.empty()) last = std::max(last, curves.steps.back().step);
  if (!curves.evaluations.empty()) last = std::max(last, curves.evaluations.back().step);

  Picture picture(last, curves.steps_per_epoch);
  picture.begin_panel("Loss", 200.0, amount_axis(range_of({&losses, &dev_losses}), 6));
  const std::size_t width = mean_width(losses.size());
  const Points means = running_mean(losses, width);
  if (width > 1) {
    picture.legend("train faint", "training, a batch");
    picture.legend("train", fmt::format("its mean over {} logged steps", width));
    picture.line(thinned(losses), "train faint");
  } else {
    picture.legend("train", "training, a batch");
  }
  picture.line(thinned(means), "train");
  if (!dev_losses.empty()) {
    picture.legend("dev", "dev");
    picture.marked_line(dev_losses, "dev", "dev loss");
  }
  picture.end_panel();

  std::string description = dev_losses.empty() ? "Training loss and learning rate over steps."
                                               : "Training loss, dev loss and learning rate over steps.";
  if (!accuracies.empty()) {
    picture.begin_panel("Dev split", 150.0, share_axis(range_of({&accuracies, &f1s}), 6));
    picture.legend("accuracy", "accuracy");
    picture.marked_line(f1s, "f1 dashed", escaped(beginning(curves.f1_name, 100)));
    picture.marked_line(accuracies, "accuracy", "accuracy");
    const auto best =
        std::find_if(curves.evaluations.rbegin(), curves.evaluations.rend(), [](const EvaluationPoint& p) { return p.best; });
    if (best != curves.evaluations.rend() && std::isfinite(best->accuracy)) {
      picture.ring({static_cast<double>(best->step), best->accuracy});
      picture.legend_ring(fmt::format("the best, {:.4f} at step {}", best->accuracy, grouped(best->step)));
      description = fmt::format(
          "Training loss, dev loss, dev accuracy and learning rate over steps; the best dev accuracy is {:.4f} at step {}.",
          best->accuracy, grouped(best->step));
    }
    // The last, as nobody knows how long a name is.
    picture.legend("f1 dashed", curves.f1_name);
    picture.end_panel();
  }

  picture.begin_panel("Learning rate", 80.0, amount_axis(range_of({&rates}), 3));
  picture.line(thinned(rates), "rate");
  picture.end_panel();
  return picture.finish("The course of the training", description);
}

}  // namespace lathe
