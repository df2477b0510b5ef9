#include "lathe/text/labels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/error.h"
#include "tests/text/record_tools.h"

namespace lathe {
namespace {

using test::message_of;
using Strings = std::vector<std::string>;
using Ids = std::vector<std::int32_t>;

/// Records that have the labels `labels`, over and over until there are `count`, from line 2 on.
Records records_with(const Strings& labels, std::size_t count = 0) {
  Records records("data.tsv");
  for (std::size_t i = 0; i < std::max(count, labels.size()); ++i) {
    records.append({.text = "x", .label = labels[i % labels.size()], .line = static_cast<std::int64_t>(i) + 2});
  }
  return records;
}

Strings classes_of(const Strings& labels) { return LabelSet::from_data(records_with(labels, 1000)).names(); }

std::string refusal(const Strings& labels, std::size_t count = 0) {
  return message_of<FormatError>([&] { LabelSet::from_data(records_with(labels, count)); });
}

TEST(LabelSet, WholeNumbersAreOrderedByValue) {
  EXPECT_EQ(classes_of({"10", "9", "-1", "0"}), (Strings{"-1", "0", "9", "10"}));
  EXPECT_EQ(classes_of({"-2", "-10", "+3"}), (Strings{"-10", "-2", "+3"}));
  EXPECT_EQ(classes_of({"1.0", "0.0"}), (Strings{"0.0", "1.0"}));
  EXPECT_EQ(classes_of({"123456789012345678901234567891", "123456789012345678901234567890", "-99999999999999999999"}),
            (Strings{"-99999999999999999999", "123456789012345678901234567890", "123456789012345678901234567891"}));
}

TEST(LabelSet, OthersAreOrderedByBytes) {
  EXPECT_EQ(classes_of({"pos", "neg"}), (Strings{"neg", "pos"}));
  EXPECT_EQ(classes_of({"10", "9", "x"}), (Strings{"10", "9", "x"}));
  EXPECT_EQ(classes_of({"é", "z", "Z", "中"}), (Strings{"Z", "z", "é", "中"}));
  EXPECT_EQ(classes_of({"true", "false"}), (Strings{"false", "true"}));
  EXPECT_EQ(classes_of({"v1.5", "-", ".", "1e", "1-2", "nan"}), (Strings{"-", ".", "1-2", "1e", "nan", "v1.5"}));
}

TEST(LabelSet, OneClassIsRefused) {
  EXPECT_EQ(refusal({"1"}, 50), "data.tsv: all 50 labels are '1'; two classes or more are needed");
}

TEST(LabelSet, NumbersThatAreNotWholeAreRefused) {
  EXPECT_EQ(refusal({"1", "0.5"}, 100),
            "data.tsv, line 3: the label '0.5' isn't a whole number: this looks like regression, which needs no classes; the "
            "labels are '1', '0.5'");
  for (const std::string label : {"2.26666", "-0.6", ".5", "1e3", "1.5e-3", "+0.01"}) {
    EXPECT_NE(refusal({"yes", label}, 100).find("looks like regression"), std::string::npos) << label;
  }
}

TEST(LabelSet, MoreClassesThanATenthOfTheRecordsAreRefused) {
  const Strings three = {"a", "b", "c"};
  EXPECT_EQ(LabelSet::from_data(records_with(three, 30)).size(), 3);
  EXPECT_EQ(refusal(three, 29),
            "data.tsv: 3 different labels in 29 records, more than one in ten: this looks like regression or like the wrong "
            "label column; "
            "the labels are 'a', 'b', 'c'");
}

TEST(LabelSet, TwoClassesAreAlwaysWelcome) {
  EXPECT_EQ(LabelSet::from_data(records_with({"a", "b"}, 10)).size(), 2);
  EXPECT_EQ(LabelSet::from_data(records_with({"a", "b"})).size(), 2);
}

TEST(LabelSet, OneNumberWrittenTwiceIsRefused) {
  EXPECT_EQ(refusal({"1", "0", "1.0"}, 100), "data.tsv: the labels '1', '1.0' are the same number; write it in one way");
  for (const Strings& labels : {Strings{"1", "01"}, Strings{"+1", "1"}, Strings{"0", "-0"}, Strings{"-0.0", "0"}}) {
    EXPECT_NE(refusal(labels, 100).find("are the same number"), std::string::npos) << labels[0];
  }
}

TEST(LabelSet, MapsRecordsToIds) {
  const LabelSet labels({"neg", "pos"});
  EXPECT_EQ(labels.ids_of(records_with({"pos", "neg", "pos"})), (Ids{1, 0, 1}));
  EXPECT_EQ(labels.name(1), "pos");
  EXPECT_EQ(labels.find("pos"), std::optional<std::int32_t>(1));
  EXPECT_EQ(labels.find("Pos"), std::nullopt);
  EXPECT_EQ(labels.find("1"), std::nullopt);
  EXPECT_FALSE(labels.has_default_names());
}

TEST(LabelSet, UnknownAndMissingLabelsAreRefusedWithLineAndClasses) {
  const LabelSet labels({"neg", "pos"});
  EXPECT_EQ(message_of<FormatError>([&] {
              labels.ids_of(records_with({"pos", "neutral", "other"}));
            }),
            "data.tsv, line 3: unknown label 'neutral'; the classes are 'neg', 'pos'");
  EXPECT_EQ(message_of<FormatError>([&] {
              labels.ids_of(records_with({"pos", ""}));
            }),
            "data.tsv, line 3: no label; the classes are 'neg', 'pos'");
  Strings many;
  for (int i = 0; i < 30; ++i) many.push_back("class " + std::to_string(i));
  const std::string message = message_of<FormatError>([&] { LabelSet(many).ids_of(records_with({"x"})); });
  EXPECT_NE(message.find("'class 19' and 10 more"), std::string::npos) << message;
}

TEST(LabelSet, DefaultNamesAreAlsoFoundByNumber) {
  const LabelSet labels({"LABEL_0", "LABEL_1"});
  EXPECT_TRUE(labels.has_default_names());
  EXPECT_EQ(labels.ids_of(records_with({"1", "0"})), (Ids{1, 0}));
  EXPECT_EQ(labels.ids_of(records_with({"LABEL_1", "LABEL_0"})), (Ids{1, 0}));
  for (const std::string_view name : {"2", "-1", "01", "+1", "1 ", "", "-0", "99999999999"})
    EXPECT_EQ(labels.find(name), std::nullopt) << name;
  EXPECT_FALSE(LabelSet({"LABEL_1", "LABEL_0"}).has_default_names());
  EXPECT_FALSE(LabelSet().has_default_names());
}

TEST(LabelSet, NamesMustDiffer) {
  EXPECT_EQ(message_of<MismatchError>([] { LabelSet({"a", "b", "a"}); }), "classes 0 and 2 are both called 'a'");
}

TEST(ChooseLabels, KeepsAHeadThatNamesTheLabels) {
  const LabelChoice choice = choose_labels(records_with({"pos", "neg"}, 4), LabelSet({"pos", "neutral", "neg"}));
  EXPECT_TRUE(choice.from_head);
  EXPECT_EQ(choice.labels.names(), (Strings{"pos", "neutral", "neg"}));
}

TEST(ChooseLabels, AHeadThatNamesThemAllowsManyClassesAndAnyNumbers) {
  const LabelChoice choice = choose_labels(records_with({"0.5", "1.5", "2.5"}), LabelSet({"0.5", "1.5", "2.5"}));
  EXPECT_TRUE(choice.from_head);
}

TEST(ChooseLabels, WithoutAHeadTheDataDecides) {
  const LabelChoice choice = choose_labels(records_with({"pos", "neg"}, 4), LabelSet());
  EXPECT_FALSE(choice.from_head);
  EXPECT_EQ(choice.labels.names(), (Strings{"neg", "pos"}));
}

TEST(ChooseLabels, RefusesAHeadForOtherLabels) {
  EXPECT_EQ(
      message_of<MismatchError>([] {
        choose_labels(records_with({"pos", "neg"}, 4), LabelSet({"POSITIVE", "NEGATIVE"}));
      }),
      "data.tsv has the labels 'pos', 'neg', but the model's head is for 'POSITIVE', 'NEGATIVE'; --new-head trains a new one");
  EXPECT_THROW(choose_labels(records_with({"0", "1", "2"}, 40), LabelSet({"LABEL_0", "LABEL_1"})), MismatchError);
}

TEST(LabelSet, OneOfTwoClassesIsThePositiveOne) {
  LabelSet labels({"neg", "pos"});
  EXPECT_EQ(labels.positive(), 1);
  labels.set_positive("neg");
  EXPECT_EQ(labels.positive(), 0);
  EXPECT_EQ(labels.names(), (Strings{"neg", "pos"})) << "ids stay";
  EXPECT_EQ(message_of<UsageError>([&] { labels.set_positive("good"); }),
            "no class is called 'good', which was to be the positive one; the classes are 'neg', 'pos'");
  LabelSet numbered({"LABEL_0", "LABEL_1"});
  numbered.set_positive("0");
  EXPECT_EQ(numbered.positive(), 0);
  LabelSet three({"a", "b", "c"});
  EXPECT_THROW(three.set_positive("a"), UsageError);
}

TEST(ChooseLabels, TakesNumbersForDefaultNames) {
  const LabelChoice two = choose_labels(records_with({"1", "0"}, 4), LabelSet({"LABEL_0", "LABEL_1"}));
  EXPECT_TRUE(two.from_head);
  EXPECT_EQ(two.labels.names(), (Strings{"0", "1"}));
  const LabelChoice some = choose_labels(records_with({"3", "1"}, 4), LabelSet({"LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"}));
  EXPECT_TRUE(some.from_head);
  EXPECT_EQ(some.labels.names(), (Strings{"0", "1", "2", "3"}));
  const LabelChoice named = choose_labels(records_with({"LABEL_1", "LABEL_0"}, 4), LabelSet({"LABEL_0", "LABEL_1"}));
  EXPECT_TRUE(named.from_head);
  EXPECT_EQ(named.labels.names(), (Strings{"LABEL_0", "LABEL_1"}));
}

TEST(ChooseLabels, OneClassIsRefusedWhateverTheHead) {
  EXPECT_THROW(choose_labels(records_with({"pos"}, 40), LabelSet({"neg", "pos"})), FormatError);
}

TEST(ClassCounts, CountsEachClass) {
  EXPECT_EQ(class_counts(Ids{1, 0, 1, 1}, 3), (std::vector<std::int64_t>{1, 3, 0}));
  EXPECT_EQ(class_counts(Ids{}, 2), (std::vector<std::int64_t>{0, 0}));
  EXPECT_THROW(class_counts(Ids{2}, 2), LogicError);
  EXPECT_THROW(class_counts(Ids{-1}, 2), LogicError);
}

TEST(RealLabels, Sst2) {
  const auto folder = test::test_data();
  if (!folder) GTEST_SKIP() << "LATHE_TEST_DATA isn't set";
  const DataSet train = read_records(*folder / "sst2" / "train.tsv");
  const LabelSet labels = LabelSet::from_data(train.records);
  EXPECT_EQ(labels.names(), (Strings{"0", "1"}));
  EXPECT_EQ(class_counts(labels.ids_of(train.records), 2), (std::vector<std::int64_t>{29'780, 37'569}));
  const DataSet dev = read_records(*folder / "sst2" / "dev.tsv");
  EXPECT_EQ(class_counts(labels.ids_of(dev.records), 2), (std::vector<std::int64_t>{428, 444}));
}

}  // namespace
}  // namespace lathe
