#include "lathe/training/report_page.h"

#include <gtest/gtest.h>

#include "tests/training/markup.h"

namespace lathe {
namespace {

/// Metrics of `rows` rows a class, of which each class loses its share to the next one.
ClassificationMetrics metrics_of(int classes, int rows) {
  std::vector<float> probabilities;
  std::vector<std::int32_t> labels;
  for (int c = 0; c < classes; ++c) {
    for (int i = 0; i < rows; ++i) {
      labels.push_back(c);
      const int predicted = i % 4 == 0 ? (c + 1) % classes : c;
      for (int p = 0; p < classes; ++p) probabilities.push_back(p == predicted ? 0.7F : 0.3F / static_cast<float>(classes));
    }
  }
  return classification_metrics(probabilities, labels, classes, 0.4321);
}

std::vector<std::string> names_of(int classes) {
  std::vector<std::string> names;
  names.reserve(static_cast<std::size_t>(classes));
  for (int c = 0; c < classes; ++c) names.push_back("class-" + std::to_string(c));
  return names;
}

RunResults results_of(int classes, int rows) {
  RunResults results{.labels = names_of(classes),
                     .dev = metrics_of(classes, rows),
                     .test = std::nullopt,
                     .train = {},
                     .peak_memory_bytes = 490'000'000};
  results.train.steps = results.train.total_steps = 265;
  results.train.epochs = 1.0;
  results.train.tokens = 217'500;
  results.train.seconds = 65.25;
  results.train.best = EvaluationLog{.step = 265, .epoch = 1.0, .metrics = *results.dev, .best = true};
  return results;
}

PageContents contents_of_run() {
  return {.title = "sentiment",
          .version = "0.1.0",
          .curves = "<svg xmlns=\"http://www.w3.org/2000/svg\"><title>the curves</title></svg>",
          .wrong = {{.line = 1234, .text = "a film", .pair = "", .label = 0, .predicted = 1, .probability = 0.98765}},
          .settings = {{.name = "finetune", .values = {{"lr", "5e-05"}, {"train", "/data/train.tsv"}}},
                       {.name = "chosen", .values = {{"total-steps", "265"}}}}};
}

/// Well-formed, alone, and with a name for everything that needs one.
void expect_sound(const std::string& page) {
  EXPECT_EQ(markup_fault(page), "");
  for (const char* text : {"<script", "javascript:", " src=", " href=", "@import", "url(", "<iframe", "<img", ">nan", "nan %"})
    EXPECT_EQ(page.find(text), std::string::npos) << text;
  EXPECT_EQ(page.rfind("<!DOCTYPE html>", 0), 0U);
  EXPECT_NE(page.find("<html lang=\"en\""), std::string::npos);
  EXPECT_LT(page.find("<meta charset=\"utf-8\"/>"), 1024U) << "browsers look no further";
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  EXPECT_EQ(count_of(page, "<h1>"), 1U);
  EXPECT_EQ(count_of(page, "<th>") + count_of(page, "<th class"), 0U) << "a header without a scope";
  EXPECT_GT(count_of(page, "<th scope="), 0U);
}

TEST(ReportPage, ShowsTheRun) {
  const std::string page = report_page(results_of(2, 400), contents_of_run());
  expect_sound(page);
  for (const char* text : {"<title>sentiment - Lathe</title>",
                           "<h1><bdi>sentiment</bdi></h1>",
                           "<strong>75.0 %</strong> of 800 dev rows",
                           "would be right on 50.0 %",
                           "between 71.9 % and 77.9 % (95 % interval)",
                           "<title>the curves</title>",
                           "Accuracy, dev",
                           "0.7500",
                           "0.4321",
                           "1 min 5 s",
                           "3,333",
                           "0.49 GB",
                           "step 265",
                           ">By class<",
                           ">Confusion matrix<",
                           "title=\"300 of 400 rows, 75.0 %\">300<small>75.0 %</small>",
                           ">Most confidently wrong<",
                           "1,234",
                           "a film",
                           "0.9877",
                           "The first 1 of the 200 dev rows",
                           ">Settings<",
                           ">finetune<",
                           ">5e-05<",
                           ">/data/train.tsv<",
                           ">total-steps<",
                           "Lathe 0.1.0",
                           "the positive one"})
    EXPECT_NE(page.find(text), std::string::npos) << text;
  EXPECT_EQ(page.find("Interrupted"), std::string::npos);
  EXPECT_EQ(page.find("Test split"), std::string::npos);
  EXPECT_EQ(page, report_page(results_of(2, 400), contents_of_run()));
}

TEST(ReportPage, ThePositiveClassIsTheOneThatTheMetricsName) {
  RunResults results = results_of(2, 8);
  results.dev->positive_class = 0;
  const std::string page = report_page(results, contents_of_run());
  expect_sound(page);
  EXPECT_NE(page.find("class-0</bdi> <span class=\"tag\">the positive one"), std::string::npos);
  EXPECT_EQ(page.find("class-1</bdi> <span class=\"tag\">the positive one"), std::string::npos);
}

TEST(ReportPage, ATestSplitHasTheFirstWord) {
  RunResults results = results_of(2, 400);
  results.test = metrics_of(2, 4);
  const std::string page = report_page(results, contents_of_run());
  expect_sound(page);
  EXPECT_NE(page.find("75.0 %</strong> of 8 test rows"), std::string::npos);
  EXPECT_LT(page.find("Dev split"), page.find("Test split"));
  EXPECT_EQ(page.find("flatter"), std::string::npos) << "it had no part in choosing the model";
}

TEST(ReportPage, WithoutADevSplitTheTestSplitsRowsAreShown) {
  RunResults results = results_of(3, 8);
  results.test = std::move(results.dev);
  results.dev.reset();
  results.train.best.reset();
  const std::string page = report_page(results, contents_of_run());
  expect_sound(page);
  EXPECT_NE(page.find("The first 1 of the 6 test rows"), std::string::npos);
  EXPECT_NE(page.find("Macro F1, test"), std::string::npos);
  EXPECT_EQ(page.find("Dev split"), std::string::npos);
}

TEST(ReportPage, NothingEvaluatedIsSaid) {
  RunResults results = results_of(2, 4);
  results.dev.reset();
  results.train.best.reset();
  PageContents contents = contents_of_run();
  contents.wrong.clear();
  const std::string page = report_page(results, contents);
  expect_sound(page);
  EXPECT_NE(page.find("Nothing was evaluated: how well the model does isn’t known"), std::string::npos);
  EXPECT_NE(page.find("<title>the curves</title>"), std::string::npos);
  EXPECT_EQ(page.find("Confusion matrix"), std::string::npos);
}

TEST(ReportPage, AnInterruptedRunSaysHowFarItGot) {
  RunResults results;
  results.labels = {"a", "b"};
  results.train.interrupted = true;
  results.train.steps = 1;
  results.train.total_steps = 12000;
  const std::string page = report_page(
      results,
      {.title = "x", .version = "", .curves = "", .wrong = {}, .settings = {{.name = "finetune", .values = {{"lr", "1"}}}}});
  expect_sound(page);
  EXPECT_NE(page.find("Interrupted after step 1 of 12,000"), std::string::npos);
  EXPECT_NE(page.find("1 step<"), std::string::npos);
}

TEST(ReportPage, APerfectModelHasNoWrongRows) {
  RunResults results = results_of(2, 1);
  const std::vector<float> probabilities = {1.0F, 0.0F, 0.0F, 1.0F};
  const std::vector<std::int32_t> labels = {0, 1};
  results.dev = classification_metrics(probabilities, labels, 2, 0.0);
  PageContents contents = contents_of_run();
  contents.wrong.clear();
  const std::string page = report_page(results, contents);
  expect_sound(page);
  EXPECT_NE(page.find("The model is right on all of the dev split."), std::string::npos);
  EXPECT_NE(page.find("between 34.2 % and 100.0 %"), std::string::npos) << "two rows say little";
}

TEST(ReportPage, TheMatrixIsDrawnForUpTo30Classes) {
  for (const int classes : {2, 3, 8, 9, 30, 31, 200}) {
    const std::string page = report_page(results_of(classes, 4), contents_of_run());
    expect_sound(page);
    const auto cells = static_cast<std::size_t>(classes <= 30 ? classes * classes : 0);
    EXPECT_EQ(count_of(page, "<td class=\"hit") + count_of(page, "<td class=\"miss"), cells) << classes;
    EXPECT_EQ(page.find("too wide for a page: <code>results.json</code>") != std::string::npos, classes > 30) << classes;
    EXPECT_EQ(count_of(page, "<td class=\"number\">4</td></tr>"), static_cast<std::size_t>(classes)) << "a line a class";
  }
}

TEST(ReportPage, AClassWithoutRowsHasNoShare) {
  RunResults results = results_of(2, 1);
  const std::vector<float> probabilities = {1.0F, 0.0F};
  const std::vector<std::int32_t> labels = {0};
  results.dev = classification_metrics(probabilities, labels, 2, 0.0);
  expect_sound(report_page(results, contents_of_run()));
  results.dev = classification_metrics({}, {}, 2, 0.0);
  const std::string page = report_page(results, contents_of_run());
  expect_sound(page);
  EXPECT_NE(page.find("The dev split has no rows"), std::string::npos);
}

TEST(ReportPage, TextsLabelsAndSettingsMayHoldAnything) {
  // NOLINTNEXTLINE(misc-misleading-bidirectional): what misleads is what must not come through
  const std::string evil = "</td></bdi><script>alert('x')</script>\"'&<!--\x01\x1b[2J\xff\xfe\xC0\xAF\xE2\x80\xAE\xEF\xBF\xBF";
  RunResults results = results_of(2, 4);
  results.labels = {evil, ""};
  PageContents contents = contents_of_run();
  contents.title = contents.version = evil;
  contents.wrong = {{.line = 1, .text = evil, .pair = evil, .label = 0, .predicted = 1, .probability = 0.9},
                    {.line = 2, .text = "", .pair = "", .label = 1, .predicted = 0, .probability = 0.8}};
  contents.settings = {{.name = evil, .values = {{evil, evil}}}};
  const std::string page = report_page(results, contents);
  expect_sound(page);
  EXPECT_EQ(page.find("alert('x')"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&#39;&amp;&lt;!--\\x01\\x1B[2J\\xFF\\xFE\\xC0\\xAF"),
            std::string::npos);
  EXPECT_NE(page.find("(empty)"), std::string::npos) << "a label without letters";
}

}  // namespace
}  // namespace lathe
