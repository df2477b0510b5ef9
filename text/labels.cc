#include "lathe/text/labels.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/text/quoted_list.h"

namespace lathe {
namespace {

/// A label that is a number. Digits are compared as text, so that no length overflows.
struct Number {
  bool whole = true;  // no exponent, nothing but zeros behind the point
  bool negative = false;
  std::string_view digits;  // before the point, without leading zeros; empty for zero
};

std::string_view take_digits(std::string_view& text) {
  const std::size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string_view digits = text.substr(0, count);
  text.remove_prefix(count);
  return digits;
}

bool take_any(std::string_view& text, std::string_view of) {
  if (text.empty() || of.find(text.front()) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<Number> parse_number(std::string_view text) {
  Number number;
  number.negative = text.starts_with('-');
  take_any(text, "+-");
  const std::string_view before = take_digits(text);
  const std::string_view after = take_any(text, ".") ? take_digits(text) : std::string_view();
  if (before.empty() && after.empty()) return std::nullopt;
  number.whole = after.find_first_not_of('0') == std::string_view::npos;
  if (take_any(text, "eE")) {
    number.whole = false;
    take_any(text, "+-");
    if (take_digits(text).empty()) return std::nullopt;
  }
  if (!text.empty()) return std::nullopt;
  number.digits = before.substr(std::min(before.find_first_not_of('0'), before.size()));
  if (number.digits.empty()) number.negative = false;
  return number;
}

/// Labels of each side that a message about two sides lists.
constexpr std::size_t kListed = 8;

/// Whether a is below b, both whole.
bool is_less(const Number& a, const Number& b) {
  if (a.negative != b.negative) return a.negative;
  const Number& smaller = a.negative ? b : a;
  const Number& larger = a.negative ? a : b;
  return std::pair(smaller.digits.size(), smaller.digits) < std::pair(larger.digits.size(), larger.digits);
}

[[noreturn]] void fail(const Records& records, std::int64_t line, std::string_view message) {
  throw FormatError(records.source(), line > 0 ? fmt::format("line {}", line) : "", message);
}

void require_two_classes(const Records& records) {
  const std::vector<Records::LabelName>& labels = records.label_names();
  if (labels.empty()) fail(records, 0, "no labels");
  if (labels.size() == 1) {
    fail(records, 0,
         fmt::format("all {} labels are {}; two classes or more are needed", records.size(),
                     quoted_list(std::vector{labels.front().name})));
  }
}

std::string default_name(std::int32_t id) { return fmt::format("LABEL_{}", id); }

std::vector<std::string_view> names_of(const std::vector<Records::LabelName>& labels) {
  std::vector<std::string_view> names;
  names.reserve(labels.size());
  for (const Records::LabelName& label : labels) names.emplace_back(label.name);
  return names;
}

}  // namespace

LabelSet::LabelSet(std::vector<std::string> names) : names_(std::move(names)), has_default_names_(!names_.empty()) {
  for (std::int32_t id = 0; id < size(); ++id) {
    const auto [place, added] = ids_.emplace(name(id), id);
    if (!added) throw MismatchError(fmt::format("classes {} and {} are both called '{}'", place->second, id, name(id)));
    has_default_names_ = has_default_names_ && name(id) == default_name(id);
  }
}

LabelSet LabelSet::from_data(const Records& records) {
  require_two_classes(records);
  const std::vector<Records::LabelName>& labels = records.label_names();
  struct Value {
    Number number;
    std::string_view name;
  };
  std::vector<Value> values;
  for (const Records::LabelName& label : labels) {
    const std::optional<Number> number = parse_number(label.name);
    if (!number) continue;
    if (!number->whole) {
      fail(records, label.first_line,
           fmt::format("the label {} isn't a whole number: this looks like regression, which needs no classes; the labels are {}",
                       quoted_list(std::vector{label.name}), quoted_list(names_of(labels))));
    }
    values.push_back({*number, label.name});
  }
  const auto classes = static_cast<std::int64_t>(labels.size());
  if (classes > 2 && 10 * classes > records.size()) {
    fail(
        records, 0,
        fmt::format(
            "{} different labels in {} records, more than one in ten: this looks like regression or like the wrong label column; "
            "the labels are {}",
            classes, records.size(), quoted_list(names_of(labels))));
  }
  if (values.size() < labels.size()) {
    std::vector<std::string_view> names = names_of(labels);
    std::ranges::sort(names);
    return LabelSet({names.begin(), names.end()});
  }
  std::ranges::stable_sort(values, [](const Value& a, const Value& b) { return is_less(a.number, b.number); });
  // Of neighbours in order, the first is below the second or the same.
  const auto same =
      std::ranges::adjacent_find(values, [](const Value& a, const Value& b) { return !is_less(a.number, b.number); });
  if (same != values.end()) {
    fail(records, 0,
         fmt::format("the labels {} are the same number; write it in one way",
                     quoted_list(std::vector{same->name, std::next(same)->name})));
  }
  std::vector<std::string> names;
  names.reserve(values.size());
  for (const Value& value : values) names.emplace_back(value.name);
  return LabelSet(std::move(names));
}

std::optional<std::int32_t> LabelSet::find(std::string_view name) const {
  if (const auto found = ids_.find(name); found != ids_.end()) return found->second;
  if (!has_default_names_) return std::nullopt;
  std::int32_t id = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  // Only as the id is usually written: not 01, not -0.
  const bool plain = error == std::errc() && end == name.data() + name.size() && name == std::to_string(id);
  return plain && id >= 0 && id < size() ? std::optional(id) : std::nullopt;
}

void LabelSet::set_positive(std::string_view name) {
  if (size() != 2) {
    throw UsageError(fmt::format("the positive label can't be {}: there are {} classes, and only of two one is the positive one",
                                 quoted_list(std::vector{name}), size()));
  }
  const std::optional<std::int32_t> id = find(name);
  if (!id) {
    throw UsageError(fmt::format("no class is called {}, which was to be the positive one; the classes are {}",
                                 quoted_list(std::vector{name}), quoted_list(names_)));
  }
  positive_ = *id;
}

std::vector<std::int32_t> LabelSet::ids_of(const Records& records) const {
  std::vector<std::int32_t> ids_by_index;
  for (const Records::LabelName& label : records.label_names()) {
    const std::optional<std::int32_t> id = find(label.name);
    if (!id) {
      fail(records, label.first_line,
           fmt::format("unknown label {}; the classes are {}", quoted_list(std::vector{label.name}), quoted_list(names_)));
    }
    ids_by_index.push_back(*id);
  }
  std::vector<std::int32_t> ids(static_cast<std::size_t>(records.size()));
  for (std::int64_t i = 0; i < records.size(); ++i) {
    const std::int32_t index = records.label_index(i);
    if (index < 0) fail(records, records.line(i), fmt::format("no label; the classes are {}", quoted_list(names_)));
    ids[static_cast<std::size_t>(i)] = ids_by_index[static_cast<std::size_t>(index)];
  }
  return ids;
}

LabelChoice choose_labels(const Records& train, const LabelSet& head) {
  require_two_classes(train);
  const std::vector<std::string_view> names = names_of(train.label_names());
  if (head.size() == 0) return {.labels = LabelSet::from_data(train), .from_head = false};
  if (!std::ranges::all_of(names, [&](std::string_view name) { return head.find(name).has_value(); })) {
    throw MismatchError(fmt::format("{} has the labels {}, but the model's head is for {}; --new-head trains a new one",
                                    train.source().string(), quoted_list(names, kListed), quoted_list(head.names(), kListed)));
  }
  const bool by_number =
      head.has_default_names() && std::ranges::none_of(names, [](std::string_view name) { return name.starts_with("LABEL_"); });
  if (!by_number) return {.labels = head, .from_head = true};
  std::vector<std::string> numbers;
  numbers.reserve(head.names().size());
  for (std::int32_t id = 0; id < head.size(); ++id) numbers.push_back(std::to_string(id));
  return {.labels = LabelSet(std::move(numbers)), .from_head = true};
}

std::vector<std::int64_t> class_counts(std::span<const std::int32_t> ids, std::int32_t classes) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(classes));
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= classes) throw LogicError(fmt::format("class_counts: the id {} isn't one of {} classes", id, classes));
    ++counts[static_cast<std::size_t>(id)];
  }
  return counts;
}

}  // namespace lathe
