#include "lathe/runtime/processors.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>

namespace lathe {
namespace {

/// Puts the process's affinity mask and OMP_NUM_THREADS back.
class ProcessorsTest : public testing::Test {
 protected:
  void SetUp() override {
    ::sched_getaffinity(0, sizeof allowed_, &allowed_);
    ::unsetenv("OMP_NUM_THREADS");
  }
  void TearDown() override {
    ::sched_setaffinity(0, sizeof allowed_, &allowed_);
    ::unsetenv("OMP_NUM_THREADS");
  }
  cpu_set_t allowed_{};
};

TEST_F(ProcessorsTest, OneProcessorInTheMaskIsOneThread) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &allowed_)) CPU_SET(i, &one);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  const ThreadChoice choice = default_threads();
  EXPECT_EQ(choice.threads, 1);
  EXPECT_EQ(choice.reason, "1 physical core in the affinity mask");
}

TEST_F(ProcessorsTest, WhatCouldBeReachedIsFoundWithoutUnbinding) {
  const auto all = available_processors().cores.size();
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &allowed_)) CPU_SET(i, &one);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_GE(reachable_cores(), static_cast<int>(all)) << "who starts this test may have bound it";
  cpu_set_t after;
  ASSERT_EQ(::sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&one, &after)) << "bound as it was";
  EXPECT_EQ(available_processors().cores.size(), 1U);
}

TEST_F(ProcessorsTest, AQuotaIsDividedAndCaps) {
  Processors processors{.cores = {0, 1, 2, 3}, .quota = 2.5, .quota_group = "/", .openmp_threads = {}};
  EXPECT_EQ(threads_on(processors, 4, "four").threads, 3);
  EXPECT_EQ(threads_on(processors, 4, "four", 2).threads, 1);
  EXPECT_EQ(threads_on(processors, 4, "four", 8).threads, 1) << "less than one there isn't";
  processors.quota = 8.0;
  EXPECT_EQ(threads_on(processors, 4, "four").reason, "four");
}

TEST_F(ProcessorsTest, OpenMpsVariableIsACap) {
  const ThreadChoice otherwise = default_threads();
  EXPECT_GE(otherwise.threads, 1);
  // What isn't a number of threads is no cap, and neither is a larger number.
  for (const char* value : {"", "0", "-1", "x", "1x", "4096"}) {
    ::setenv("OMP_NUM_THREADS", value, 1);
    EXPECT_EQ(default_threads().threads, otherwise.threads) << value;
    EXPECT_EQ(default_threads().reason, otherwise.reason) << value;
  }
  // A list has a number for each level of nesting.
  for (const char* value : {"1", "1,4"}) {
    ::setenv("OMP_NUM_THREADS", value, 1);
    EXPECT_EQ(default_threads().threads, 1) << value;
    // With one core there is nothing to cap.
    EXPECT_EQ(default_threads().reason, otherwise.threads == 1 ? otherwise.reason : "OMP_NUM_THREADS=1") << value;
  }
}

}  // namespace
}  // namespace lathe
