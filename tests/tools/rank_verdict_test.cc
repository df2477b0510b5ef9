// Who holds up a job, by what rank 0 knows of its ranks.
#include "tools/rank_verdict.h"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

namespace lathe {
namespace {

using Standing = RankState::Standing;
using std::chrono::seconds;

class RankVerdict : public testing::Test {
 protected:
  RankVerdict() {
    for (int r = 0; r < 3; ++r) {
      ranks_.push_back({.host = "n" + std::to_string(r),
                        .standing = Standing::here,
                        .report = {.entered = 7, .signs = 20, .step = 4, .agreed = true, .work = "computing", .waiting_in = ""},
                        .thrown = std::nullopt,
                        .heard = now_,
                        .changed = now_});
    }
  }
  std::string verdict(seconds later = seconds(0)) const {
    const auto reached = judge(ranks_, begin_, now_ + later, timeouts_);
    return reached ? reached->message : "";
  }
  /// All speak at `later`, whatever they are in.
  void hear(seconds later) {
    for (RankState& rank : ranks_) rank.heard = now_ + later;
  }
  void wait_in(std::size_t rank, const char* operation, std::int64_t entered) {
    ranks_[rank].report.waiting_in = operation;
    ranks_[rank].report.entered = entered;
  }

  RankState::Clock::time_point now_ = RankState::Clock::now();
  RankState::Clock::time_point begin_ = now_ - seconds(100);
  WatchTimeouts timeouts_{.comm = seconds(10), .start = seconds(60)};
  std::vector<RankState> ranks_;
};

TEST_F(RankVerdict, NobodyIsToBlameWhileAllIsWell) {
  EXPECT_EQ(verdict(), "");
  EXPECT_EQ(verdict(seconds(9)), "");
  hear(seconds(1000));
  EXPECT_EQ(verdict(seconds(1000)), "") << "all compute: a long step, for which nobody waits";
}

TEST_F(RankVerdict, ARankThatEnded) {
  wait_in(0, "all-reduce of 512 f32", 8);
  ranks_[2].standing = Standing::gone;
  EXPECT_EQ(verdict(),
            "rank 2 (host n2) has ended without a word, killed or crashed; it was last heard of computing in step 4; rank 0 "
            "waits in all-reduce of "
            "512 f32, in step 4");
  ranks_[2].standing = Standing::left;
  EXPECT_EQ(verdict(), "") << "it said goodbye";
}

TEST_F(RankVerdict, ARankThatIsSilent) {
  wait_in(2, "gather", 8);
  ranks_[0].heard = ranks_[2].heard = now_ + seconds(10);
  EXPECT_EQ(verdict(seconds(10)),
            "rank 1 (host n1) has not been heard of for 10 s (--comm-timeout): it is stopped, or cut off; it was last heard of "
            "computing in step 4; "
            "rank 2 waits in gather, in step 4");
}

TEST_F(RankVerdict, ARankThatDoesNotCome) {
  wait_in(0, "all-reduce of 512 f32", 8);
  wait_in(2, "all-reduce of 512 f32", 8);
  hear(seconds(10));
  EXPECT_EQ(verdict(seconds(9)), "");
  EXPECT_EQ(verdict(seconds(10)),
            "rank 1 (host n1) has not come to all-reduce of 512 f32 for 10 s (--comm-timeout), where rank 0 is in step 4; it is "
            "computing "
            "in step 4");
  ranks_[1].changed = now_ + seconds(5);
  EXPECT_EQ(verdict(seconds(14)), "") << "it gave a sign of work";
  ranks_[1].changed = now_;
  ranks_[1].report.agreed = false;
  begin_ = now_;
  EXPECT_EQ(verdict(seconds(14)), "") << "until all train the timeout is another";
}

TEST_F(RankVerdict, ARankThatIsAheadIsNotToBlame) {
  // On a GPU a rank calls collectives that run later, and computes on: rank 1 did, and now waits for the device.
  ranks_[1].report.entered = 9;
  hear(seconds(10));
  const std::string message = verdict(seconds(10));
  EXPECT_TRUE(message.starts_with("rank 0 (host n0) has not come to the next collective for 10 s")) << message;
}

TEST_F(RankVerdict, NoneComesOut) {
  for (std::size_t r = 0; r < 3; ++r) wait_in(r, "all-reduce of 512 f32", 8);
  hear(seconds(10));
  EXPECT_EQ(verdict(seconds(10)),
            "all 3 ranks, from rank 0 (host n0) on, have been in all-reduce of 512 f32, in step 4 for 10 s (--comm-timeout): is "
            "the network "
            "between them at work?");
}

TEST_F(RankVerdict, WhoHasNotStarted) {
  begin_ = now_ - seconds(60);
  ranks_[1].report = {.entered = 3, .signs = 1, .step = 0, .agreed = false, .work = "starting", .waiting_in = ""};
  EXPECT_EQ(verdict(),
            "60 s after the start (--start-timeout) rank 1 (host n1) is not ready: it is starting before the first step");
  ranks_[2].standing = Standing::absent;
  wait_in(0, "gather", 8);
  EXPECT_EQ(verdict(),
            "60 s after the start (--start-timeout) rank 2 (host n2) has not joined; rank 0 waits in gather, in step 4");
  begin_ = now_ - seconds(59);
  EXPECT_EQ(verdict(), "");
}

TEST_F(RankVerdict, WhatRanksThrew) {
  const Thrown no_number{.status = 2, .consequence = false, .message = "step 4: the loss is nan"};
  ranks_[2].thrown = no_number;
  EXPECT_EQ(verdict(), "rank 2 (host n2): step 4: the loss is nan (in step 4)");
  ranks_[1].thrown = Thrown{.status = 1, .consequence = true, .message = "MPI: a rank is gone"};
  EXPECT_EQ(verdict(), "rank 2 (host n2): step 4: the loss is nan (in step 4)") << "what followed from it explains nothing";
  ranks_[0].thrown = ranks_[1].thrown = no_number;
  EXPECT_EQ(verdict(), "step 4: the loss is nan") << "what all say is no one's alone";
  EXPECT_EQ(judge(ranks_, begin_, now_, timeouts_)->status, 2);
}

TEST_F(RankVerdict, AConsequenceCountsWhereNothingElseDoes) {
  ranks_[1].thrown = Thrown{.status = 1, .consequence = true, .message = "MPI: a rank is gone"};
  EXPECT_EQ(verdict(), "rank 1 (host n1): MPI: a rank is gone (in step 4)");
  ranks_[2].standing = Standing::gone;
  EXPECT_TRUE(verdict().starts_with("rank 2 (host n2) has ended without a word")) << verdict();
}

TEST_F(RankVerdict, ALongMessageLeavesRoomForWhoAndWhere) {
  wait_in(0, "all-reduce of 512 f32", 8);
  ranks_[1].thrown = Thrown{.status = 2, .consequence = false, .message = std::string(250, 'x') + " full"};
  const std::string message = verdict();
  EXPECT_LE(message.size(), 260U);
  EXPECT_TRUE(message.starts_with("rank 1 (host n1): xxx")) << message;
  EXPECT_TRUE(message.ends_with("xxx full; rank 0 waits in all-reduce of 512 f32, in step 4")) << message;
}

TEST(Heartbeat, SurvivesItsLine) {
  const Heartbeat report{
      .entered = 3, .signs = 9, .step = 2, .agreed = true, .work = "saving", .waiting_in = "gather\tof\nlines"};
  const auto read = parse_heartbeat(to_line(report));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->entered, 3);
  EXPECT_EQ(read->step, 2);
  EXPECT_TRUE(read->agreed);
  EXPECT_EQ(read->work, "saving");
  EXPECT_EQ(read->waiting_in, "gather\\x09of\\x0Alines");
  for (const char* line : {"", "1\t2\t3\t1\tcomputing", "1\t2\t3\t1\ta\tb\tc", "x\t2\t3\t1\ta\tb", "1\t-2\t3\t1\ta\tb",
                           "9999999999999999999\t2\t3\t1\ta\tb"})
    EXPECT_FALSE(parse_heartbeat(line).has_value()) << line;
}

}  // namespace
}  // namespace lathe
