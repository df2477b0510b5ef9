// Which problems share a plan, what tuning chooses, and the table in which choices travel: with a library that only counts.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lathe/kernels/device/error.h"
#include "lathe/kernels/matmul_cuda_plans.h"

namespace lathe::test {
namespace {

MatmulAlgorithm numbered(std::uint64_t number) { return {number, 0, 0, 0, 0, 0, 0, 0xFEDCBA9876543210U}; }

/// What was asked of the library, and what it answers.
struct Script {
  std::string name = "counting library 1.0 on paper";
  std::vector<MatmulAlgorithm> candidates{numbered(1), numbered(2), numbered(3)};
  std::vector<MatmulAlgorithm> refused;
  std::map<MatmulProblem, int> queries;
  std::vector<std::pair<MatmulProblem, MatmulAlgorithm>> runs;
};

class CountingLibrary final : public MatmulLibrary {
 public:
  explicit CountingLibrary(Script& script) : script_(script) {}
  std::string name() const override { return script_.name; }
  std::int64_t workspace_bytes() const override { return 0; }
  std::vector<MatmulAlgorithm> candidates(const MatmulProblem& problem) override {
    ++script_.queries[problem];
    if (script_.candidates.empty()) throw CudaError(15, "nothing computes the " + to_string(problem));
    return script_.candidates;
  }
  bool accepts(const MatmulProblem& /*problem*/, const MatmulAlgorithm& algorithm) override {
    return std::ranges::find(script_.refused, algorithm) == script_.refused.end();
  }
  void enqueue(CudaStreamHandle /*stream*/, const MatmulProblem& problem, const MatmulAlgorithm& algorithm,
               const MatmulOperands& /*operands*/) override {
    script_.runs.emplace_back(problem, algorithm);
  }

 private:
  Script& script_;
};

CudaMatmulPlans plans_of(Script& script) { return CudaMatmulPlans(std::make_unique<CountingLibrary>(script)); }

constexpr MatmulProblem kProblem{.factors = MatmulElement::bf16,
                                 .result = MatmulElement::bf16,
                                 .transpose_a = Transpose::yes,
                                 .transpose_b = Transpose::no,
                                 .has_bias = false,
                                 .adds = false,
                                 .m = 3072,
                                 .n = 512,
                                 .k = 768,
                                 .lda = 4096,
                                 .ldb = 4096,
                                 .ldd = 4096,
                                 .alignment_a = 16,
                                 .alignment_b = 16,
                                 .alignment_d = 16,
                                 .alignment_bias = 16};

/// kProblem, changed in one field each.
std::vector<MatmulProblem> neighbours() {
  const std::vector<std::function<void(MatmulProblem&)>> changes{
      [](MatmulProblem& p) { p.factors = MatmulElement::f32; },
      [](MatmulProblem& p) { p.result = MatmulElement::f32; },
      [](MatmulProblem& p) { p.transpose_a = Transpose::no; },
      [](MatmulProblem& p) { p.transpose_b = Transpose::yes; },
      [](MatmulProblem& p) { p.has_bias = true; },
      [](MatmulProblem& p) { p.adds = true; },
      [](MatmulProblem& p) { p.m = 3071; },
      [](MatmulProblem& p) { p.n = 513; },
      [](MatmulProblem& p) { p.k = 769; },
      [](MatmulProblem& p) { p.lda = 4097; },
      [](MatmulProblem& p) { p.ldb = 4097; },
      [](MatmulProblem& p) { p.ldd = 4097; },
      [](MatmulProblem& p) { p.alignment_a = 8; },
      [](MatmulProblem& p) { p.alignment_b = 8; },
      [](MatmulProblem& p) { p.alignment_d = 8; },
      [](MatmulProblem& p) { p.alignment_bias = 8; },
  };
  std::vector<MatmulProblem> problems;
  for (const auto& change : changes) {
    problems.push_back(kProblem);
    change(problems.back());
  }
  return problems;
}

TEST(CudaMatmulPlans, AskTheLibraryOnceForEachProblem) {
  Script script;
  CudaMatmulPlans plans = plans_of(script);
  std::vector<MatmulProblem> problems = neighbours();
  problems.push_back(kProblem);
  for (int round = 0; round < 3; ++round) {
    for (const MatmulProblem& problem : problems) plans.enqueue(nullptr, problem, {});
  }
  plans.prepare(kProblem);
  EXPECT_EQ(script.queries.size(), problems.size()) << "two problems that differ in a field share a plan";
  for (const auto& [problem, count] : script.queries) EXPECT_EQ(count, 1) << to_string(problem);
  ASSERT_EQ(script.runs.size(), 3 * problems.size());
  for (const auto& [problem, algorithm] : script.runs) EXPECT_EQ(algorithm, numbered(1)) << "not the library's first";
}

TEST(CudaMatmulPlans, LetTheLibrarysRefusalThroughAndAskAgain) {
  Script script;
  script.candidates.clear();
  CudaMatmulPlans plans = plans_of(script);
  EXPECT_THROW(plans.prepare(kProblem), CudaError);
  EXPECT_THROW(plans.enqueue(nullptr, kProblem, {}), CudaError);
  EXPECT_EQ(script.queries.at(kProblem), 2);
  EXPECT_TRUE(script.runs.empty());
  EXPECT_EQ(plans.table(), "{\"matrix products\":\"counting library 1.0 on paper\"}\n");
}

TEST(CudaMatmulPlans, TunedTakeTheFastestAndOfEqualsTheFirst) {
  Script script;
  CudaMatmulPlans plans = plans_of(script);
  const MatmulProblem slow_first = kProblem;
  MatmulProblem equal = kProblem;
  equal.m = 1;
  plans.prepare(slow_first);
  plans.prepare(equal);
  const MatmulTimer timer = [&](const MatmulProblem& problem, const MatmulAlgorithm& algorithm) {
    if (problem == equal) return 2e-3;
    return std::map<std::uint64_t, double>{{1, 3e-3}, {2, 1e-3}, {3, 2e-3}}.at(algorithm[0]);
  };
  const std::vector<TunedMatmul> report = plans.tune(timer);
  ASSERT_EQ(report.size(), 2U);
  for (const TunedMatmul& tuned : report) {
    EXPECT_EQ(tuned.candidates, 3U);
    EXPECT_EQ(tuned.first_seconds, tuned.problem == equal ? 2e-3 : 3e-3);
    EXPECT_EQ(tuned.best_seconds, tuned.problem == equal ? 2e-3 : 1e-3);
  }
  plans.enqueue(nullptr, slow_first, {});
  plans.enqueue(nullptr, equal, {});
  EXPECT_EQ(script.runs.at(0).second, numbered(2));
  EXPECT_EQ(script.runs.at(1).second, numbered(1));
}

TEST(CudaMatmulPlans, TuneWhatIsNewAlone) {
  Script script;
  CudaMatmulPlans plans = plans_of(script);
  std::vector<MatmulProblem> timed;
  const MatmulTimer timer = [&](const MatmulProblem& problem, const MatmulAlgorithm& algorithm) {
    timed.push_back(problem);
    return static_cast<double>(algorithm[0]);
  };
  plans.prepare(kProblem);
  EXPECT_EQ(plans.tune(timer).size(), 1U);
  EXPECT_TRUE(plans.tune(timer).empty());
  EXPECT_EQ(timed.size(), 3U);
  MatmulProblem other = kProblem;
  other.n = 1024;
  plans.prepare(other);
  timed.clear();
  EXPECT_EQ(plans.tune(timer).size(), 1U);
  EXPECT_EQ(timed, std::vector<MatmulProblem>(3, other));
}

TEST(CudaMatmulPlans, TuningLeavesOutWhatDoesNotRun) {
  Script script;
  CudaMatmulPlans plans = plans_of(script);
  plans.prepare(kProblem);
  const std::vector<TunedMatmul> some = plans.tune([](const MatmulProblem&, const MatmulAlgorithm& algorithm) -> double {
    if (algorithm == numbered(1)) throw CudaError(15, "refused");
    return static_cast<double>(algorithm[0]);
  });
  ASSERT_EQ(some.size(), 1U);
  EXPECT_EQ(some[0].first_seconds, std::numeric_limits<double>::infinity());
  EXPECT_EQ(some[0].best_seconds, 2.0);
  plans.enqueue(nullptr, kProblem, {});
  EXPECT_EQ(script.runs.at(0).second, numbered(2));

  CudaMatmulPlans none = plans_of(script);
  none.prepare(kProblem);
  const std::vector<TunedMatmul> nothing =
      none.tune([](const MatmulProblem&, const MatmulAlgorithm&) -> double { throw CudaError(2, "no memory"); });
  EXPECT_EQ(nothing.at(0).best_seconds, std::numeric_limits<double>::infinity());
  none.enqueue(nullptr, kProblem, {});
  EXPECT_EQ(script.runs.at(1).second, numbered(1));
  // What isn't a refusal is an error of ours, and must not be taken for one.
  CudaMatmulPlans broken = plans_of(script);
  broken.prepare(kProblem);
  EXPECT_THROW(broken.tune([](const MatmulProblem&, const MatmulAlgorithm&) -> double { throw std::logic_error("ours"); }),
               std::logic_error);
}

/// Rank 0 tunes, the table travels, and every rank computes by it without a question to its library; so does a resumed run.
TEST(CudaMatmulPlans, ATableCarriesTheChoicesToAnotherProcess) {
  Script script;
  CudaMatmulPlans tuned = plans_of(script);
  std::vector<MatmulProblem> problems = neighbours();
  problems.push_back(kProblem);
  for (const MatmulProblem& problem : problems) tuned.prepare(problem);
  tuned.tune([](const MatmulProblem& problem, const MatmulAlgorithm& algorithm) {
    return static_cast<double>((static_cast<std::uint64_t>(problem.m + problem.lda) + algorithm[0]) % 3);
  });
  const std::string table = tuned.table();

  Script elsewhere;
  CudaMatmulPlans other = plans_of(elsewhere);
  other.use_table(table);
  EXPECT_EQ(other.table(), table);
  for (const MatmulProblem& problem : problems) {
    tuned.enqueue(nullptr, problem, {});
    other.enqueue(nullptr, problem, {});
  }
  EXPECT_EQ(elsewhere.runs, script.runs);
  EXPECT_TRUE(elsewhere.queries.empty());
  EXPECT_TRUE(other.tune([](const MatmulProblem&, const MatmulAlgorithm&) { return 1.0; }).empty()) << "tuned again";

  // In the place of choices that are there already.
  CudaMatmulPlans before = plans_of(elsewhere);
  for (const MatmulProblem& problem : problems) before.prepare(problem);
  EXPECT_NE(before.table(), table);
  before.use_table(table);
  EXPECT_EQ(before.table(), table);
}

std::string refusal(CudaMatmulPlans& plans, const std::string& table) {
  const std::string before = plans.table();
  try {
    plans.use_table(table);
    return "";
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(plans.table(), before) << "something was taken";
    return error.what();
  }
}

TEST(CudaMatmulPlans, RefuseATableFromElsewhere) {
  Script script;
  CudaMatmulPlans here = plans_of(script);
  here.prepare(kProblem);
  const std::string table = here.table();
  script.refused = {numbered(1)};
  EXPECT_EQ(refusal(here, table),
            "the table of matrix products has an algorithm that counting library 1.0 on paper refuses for the matrix product "
            "[512, 768] x [768, 3072], b transposed, bf16 to bf16: tune anew, or go on without the table");
  script.name = "counting library 1.1 on paper";
  EXPECT_EQ(
      refusal(here, table),
      "the table of matrix products is of counting library 1.0 on paper; this is counting library 1.1 on paper: tune anew, or "
      "go on without the table");
}

TEST(CudaMatmulPlans, RefuseATableThatIsNone) {
  Script script;
  CudaMatmulPlans plans = plans_of(script);
  plans.prepare(kProblem);
  const std::string good = plans.table();
  EXPECT_EQ(refusal(plans, good), "");
  const std::string line = good.substr(good.find('\n') + 1);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = good;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  const std::string second = "the table of matrix products, line 2: ";
  EXPECT_TRUE(refusal(plans, "").starts_with("the table of matrix products, line 1: "));
  EXPECT_TRUE(refusal(plans, "[]").starts_with("the table of matrix products, line 1: "));
  EXPECT_TRUE(refusal(plans, line).starts_with("the table of matrix products, line 1: "));
  EXPECT_TRUE(refusal(plans, good + "\n").starts_with("the table of matrix products, line 3: "));
  EXPECT_TRUE(refusal(plans, good.substr(0, good.size() / 2)).starts_with(second));
  EXPECT_TRUE(refusal(plans, with("\"m\":3072,", "")).starts_with(second));
  EXPECT_EQ(refusal(plans, good + line), "the table of matrix products, line 3: a problem stands there for the second time");
  const std::string no_product = second + "its sizes, strides and options are no product's";
  EXPECT_EQ(refusal(plans, with("\"m\":3072", "\"m\":0")), no_product);
  EXPECT_EQ(refusal(plans, with("\"m\":3072", "\"m\":18446744073709551615")), no_product);
  EXPECT_EQ(refusal(plans, with("\"lda\":4096", "\"lda\":767")), no_product);
  EXPECT_EQ(refusal(plans, with("\"m\":3072", "\"m\":3e30")), second + "'m' must be a whole number");
  EXPECT_EQ(refusal(plans, with("\"alignment d\":16", "\"alignment d\":12")),
            second + "'alignment d' is 12; it must be a power of two up to 16");
  EXPECT_EQ(refusal(plans, with("\"alignment d\":16", "\"alignment d\":32")),
            second + "'alignment d' is 32; it must be a power of two up to 16");
  EXPECT_EQ(refusal(plans, with("\"factors\":\"bf16\"", "\"factors\":\"f16\"")),
            second + "an element type is 'f16'; f32 and bf16 are known");
  EXPECT_EQ(refusal(plans, with("0001", "000g")), second + "'algorithm' must be 128 hexadecimal digits");
  EXPECT_EQ(refusal(plans, with("0001", "001")), second + "'algorithm' must be 128 hexadecimal digits");
}

}  // namespace
}  // namespace lathe::test
