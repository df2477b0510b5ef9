// What a run leaves for people, looked at in a browser as people do.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>

#include "lathe/training/curves.h"
#include "lathe/training/report_page.h"
#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

struct Look {
  int status = -1;
  std::string says;
};

/// Looks at the files in a browser; status 77 where there is none.
Look look_at(const std::vector<fs::path>& files) {
  std::string call =
      std::string(LATHE_PYTHON) + " " + LATHE_SOURCE + "/tests/tools/look_at_pages.py " + LATHE_SOURCE + "/scripts";
  for (const fs::path& file : files) call += " " + file.string();
  Look look;
  std::FILE* const pipe = ::popen((call + " 2>&1").c_str(), "re");
  if (pipe == nullptr) return look;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) look.says += part.data();
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) look.status = WEXITSTATUS(status);
  return look;
}

constexpr int kNoBrowser = 77;

void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// A page with so many classes, whose names and texts try to be markup.
std::string hostile_page(int classes) {
  const std::string evil = "</bdi></td><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>\x01\xff\"' ";
  std::vector<float> probabilities;
  std::vector<std::int32_t> labels;
  RunResults results{.labels = {}, .dev = std::nullopt, .test = std::nullopt, .train = {}, .peak_memory_bytes = 1};
  for (int c = 0; c < classes; ++c) {
    results.labels.push_back(evil + std::to_string(c));
    for (int i = 0; i < 20; ++i) {
      // Shares of all sizes, so that cells of all colours are there.
      const int predicted = (c + (i < c * 20 / classes ? 1 : 0)) % classes;
      labels.push_back(c);
      for (int p = 0; p < classes; ++p) probabilities.push_back(p == predicted ? 0.9F : 0.0F);
    }
  }
  results.dev = classification_metrics(probabilities, labels, classes, 0.5);
  results.train.interrupted = true;
  Curves curves{.f1_name = evil, .steps_per_epoch = 1000, .steps = {}, .evaluations = {}};
  for (int step = 1; step <= 5000; ++step) curves.steps.push_back({.step = step, .loss = 1.0 / step, .learning_rate = 1e-5});
  for (int step = 1000; step <= 5000; step += 1000)
    curves.evaluations.push_back({.step = step, .loss = 0.5, .accuracy = 0.5 + step * 1e-5, .f1 = 0.4, .best = true});
  PageContents contents{.title = evil, .version = evil, .curves = curves_svg(curves), .wrong = {}, .settings = {}};
  for (int i = 0; i < 20; ++i)
    contents.wrong.push_back(
        {.line = i, .text = evil + std::string(500, 'x'), .pair = evil, .label = 0, .predicted = 1, .probability = 0.9});
  contents.settings = {{.name = evil, .values = {{evil + std::string(300, 'k'), evil + std::string(300, 'v')}}}};
  return report_page(results, contents);
}

TEST(Browser, ShowsARunsPagesInLightAndDark) {
  const TemporaryFolder folder;
  write_tiny_model(folder / "model");
  write_tiny_data(folder / "train.tsv", 200, 1);
  const CommandResult trained =
      run_lathe(folder.path(), {"finetune", "--model", (folder / "model").string(), "--train", (folder / "train.tsv").string(),
                                "--dev", "0.2", "--output", (folder / "run").string(), "--lr", "2e-4", "--batch-size", "16",
                                "--log-steps", "1", "--epochs", "3"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Look look = look_at({folder / "run" / "report.html", folder / "run" / "curves.svg"});
  if (look.status == kNoBrowser) GTEST_SKIP() << look.says;
  EXPECT_EQ(look.status, 0) << look.says;
}

TEST(Browser, ShowsManyClassesAndHostileTexts) {
  const TemporaryFolder folder;
  std::vector<fs::path> files;
  for (const int classes : {2, 9, 30}) {
    files.push_back(folder / (std::to_string(classes) + ".html"));
    write(files.back(), hostile_page(classes));
  }
  const Look look = look_at(files);
  if (look.status == kNoBrowser) GTEST_SKIP() << look.says;
  EXPECT_EQ(look.status, 0) << look.says;
}

TEST(Browser, SeesWhatIsWrong) {
  // The looking itself: a page of each kind that it is to complain about.
  const TemporaryFolder folder;
  const std::string head = "<!DOCTYPE html><html><head><meta charset=\"utf-8\"/></head><body>";
  write(folder / "blank.html", head + "</body></html>");
  write(folder / "wide.html", head + "<p style=\"width: 3000px\">wide</p></body></html>");
  write(folder / "pale.html", head + "<p style=\"color: #bbbbbb\">pale</p></body></html>");
  write(folder / "script.html", head + "<p>x</p><script>window.evil = 1</script></body></html>");
  write(folder / "broken.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"><text>x</svg>");
  std::vector<fs::path> files;
  for (const char* name : {"blank.html", "wide.html", "pale.html", "script.html", "broken.svg"}) files.push_back(folder / name);
  const Look look = look_at(files);
  if (look.status == kNoBrowser) GTEST_SKIP() << look.says;
  EXPECT_EQ(look.status, 1);
  for (const char* complaint :
       {"blank.html, 1200 pixels wide, light: blank: 1 colours", "wide.html, 400 pixels wide, light: scrolls sideways to 30",
        "pale.html, 1200 pixels wide, light: 'P.: pale' has a contrast of 1.9", "pale.html, 1200 pixels wide, dark: 'P.: pale'",
        "script.html: a script ran", "script.html: a foreign element", "script.html: no section 'Settings'",
        "script.html: the ground is", "broken.svg, 1200 pixels wide, light: not well-formed"})
    EXPECT_NE(look.says.find(complaint), std::string::npos) << complaint << " isn't in\n" << look.says;
}

}  // namespace
}  // namespace lathe
