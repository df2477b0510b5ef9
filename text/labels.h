#pragma once
// The classes of a task: their ids, which are rows of the classification head, and their names in data and configuration.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lathe/text/records.h"

namespace [[gnu::visibility("default")]] lathe {

/// Class names by id, 0 to size()-1. Of two classes one is the positive one: id 1, unless set_positive() said otherwise.
class LabelSet {
 public:
  LabelSet() = default;
  /// Class i is called names[i]. MismatchError where two classes have one name, as a configuration may.
  explicit LabelSet(std::vector<std::string> names);

  /// The classes of `records`: by value if all labels are whole numbers, else in byte order.
  ///
  /// FormatError where there is only one class, and where the labels look like regression: a number that isn't whole, or more
  /// classes than a tenth of the records (two are always welcome). Also where two labels are one number written in two ways, such
  /// as 1 and 1.0.
  static LabelSet from_data(const Records& records);

  std::int32_t size() const noexcept { return static_cast<std::int32_t>(names_.size()); }
  const std::string& name(std::int32_t id) const { return names_.at(static_cast<std::size_t>(id)); }
  const std::vector<std::string>& names() const noexcept { return names_; }

  /// Whether the names say nothing: LABEL_0, LABEL_1, ..., which is what Hugging Face writes where nobody named the classes.
  bool has_default_names() const noexcept { return has_default_names_; }

  /// The class called `name`. Where the names are the default ones, "0", "1", ... are found too.
  std::optional<std::int32_t> find(std::string_view name) const;

  /// The class that precision, recall and F1 are of where there are two.
  std::int32_t positive() const noexcept { return positive_; }
  /// Makes the class called `name` the positive one; ids stay as they are. UsageError, with the classes there are, where none is
  /// called so or there aren't two.
  void set_positive(std::string_view name);

  /// The class of each record. FormatError, with the line and the classes there are, for a label that isn't known or isn't there.
  std::vector<std::int32_t> ids_of(const Records& records) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };

  std::vector<std::string> names_;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  bool has_default_names_ = false;
  std::int32_t positive_ = 1;
};

struct LabelChoice {
  LabelSet labels;
  /// Whether the ids are the head's, so that its weights can be kept.
  bool from_head = false;
};

/// The classes to train on. Where each label of `train` names a class of `head`, the head's classes are kept, also those without
/// records, in any number. Where the head has only default names and the labels are among "0" to "size-1", its ids are kept and
/// the names become the data's: "0", "1", ... For an empty `head`, LabelSet::from_data(train) decides. MismatchError, with the
/// labels of both, in all other cases; FormatError where there is only one class in the data.
LabelChoice choose_labels(const Records& train, const LabelSet& head);

/// How many of `ids` each of the `classes` has.
std::vector<std::int64_t> class_counts(std::span<const std::int32_t> ids, std::int32_t classes);

}  // namespace lathe
