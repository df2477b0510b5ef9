// What ranks conclude from what each says of itself: reports of machines that aren't here.
#include "tools/rank_report.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Reports = std::vector<RankReport>;

std::vector<int> range(int first, int count) {
  std::vector<int> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

/// A rank with these cores, of a host that has so many.
RankReport on_cores(const std::string& host, std::vector<int> cores, int host_cores) {
  RankReport report;
  report.host = host;
  report.processors.cores = std::move(cores);
  report.host_cores = host_cores;
  return report;
}

/// A rank that sees GPUs; on host `host` it is number `local`.
RankReport on_gpus(const std::string& host, int local, std::vector<std::string> gpus) {
  RankReport report;
  report.host = host;
  report.local_rank = local;
  report.gpus = std::move(gpus);
  return report;
}

std::vector<int> threads(const Reports& reports) {
  std::vector<int> all;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) all.push_back(own_threads(reports, rank).threads);
  return all;
}

TEST(RankReport, ComesBackAsItWasSent) {
  RankReport report = on_gpus("n\xff", 3, {"GPU-1", "GPU-2"});
  report.processors = {.cores = {0, 2, 70000}, .quota = 1.5, .quota_group = "/a b", .openmp_threads = 4};
  report.host_cores = 96;
  report.avx512 = true;
  const RankReport again = parse_rank_report(to_text(report));
  EXPECT_EQ(again.local_rank, 3);
  EXPECT_EQ(again.gpus, report.gpus);
  EXPECT_EQ(again.processors.cores, report.processors.cores);
  EXPECT_EQ(again.processors.quota, 1.5);
  EXPECT_EQ(again.processors.quota_group, "/a b");
  EXPECT_EQ(again.processors.openmp_threads, 4);
  EXPECT_EQ(again.host_cores, 96);
  EXPECT_TRUE(again.avx512);
  EXPECT_FALSE(parse_rank_report(to_text({})).processors.quota.has_value());
}

TEST(RankReport, RanksThatShareAMaskShareItsCores) {
  EXPECT_EQ(threads(Reports(4, on_cores("n1", range(0, 16), 16))), std::vector<int>(4, 4));
  EXPECT_EQ(threads(Reports(3, on_cores("n1", range(0, 16), 16))), std::vector<int>(3, 5));
  EXPECT_EQ(threads(Reports(3, on_cores("n1", range(0, 3), 3))), std::vector<int>(3, 1)) << "three thirds are a core";
  EXPECT_EQ(threads(Reports(4, on_cores("n1", {7}, 8))), std::vector<int>(4, 1)) << "less than one there isn't";
  EXPECT_EQ(own_threads(Reports(4, on_cores("n1", range(0, 16), 16)), 2).reason,
            "16 physical cores in the affinity mask, shared by 4 ranks");
  // Equal masks of two hosts are other cores, and so are other masks of one.
  EXPECT_EQ(threads({on_cores("n1", range(0, 8), 8), on_cores("n2", range(0, 8), 8)}), (std::vector{8, 8}));
  EXPECT_EQ(threads({on_cores("n1", range(0, 8), 16), on_cores("n1", range(8, 8), 16)}), (std::vector{8, 8}));
  EXPECT_EQ(own_threads(Reports{on_cores("n1", range(0, 8), 8)}, 0).reason, "8 physical cores in the affinity mask");
}

TEST(RankReport, MasksThatOverlapShareWhatTheyHaveInCommon) {
  EXPECT_EQ(threads({on_cores("n1", range(0, 4), 6), on_cores("n1", range(2, 4), 6)}), (std::vector{3, 3}));
  // One that isn't bound beside one that is: no core is counted twice.
  EXPECT_EQ(threads({on_cores("n1", range(0, 8), 8), on_cores("n1", {3}, 8)}), (std::vector{7, 1}));
}

TEST(RankReport, AQuotaIsSharedByTheRanksOfItsGroupWhateverTheirMasks) {
  Reports reports = {on_cores("n1", range(0, 4), 8), on_cores("n1", range(4, 4), 8)};
  for (RankReport& report : reports) report.processors.quota = 3.5;
  EXPECT_EQ(threads(reports), (std::vector{2, 2}));
  EXPECT_EQ(own_threads(reports, 1).reason, "the control group's quota of 3.5 processors, shared by 2 ranks");
  reports[1].processors.quota_group = "/task_1";
  EXPECT_EQ(threads(reports), (std::vector{4, 4})) << "each has its own";
  reports[1].processors.quota_group = "";
  reports[1].host = "n2";
  EXPECT_EQ(threads(reports), (std::vector{4, 4})) << "so have those of other hosts";
}

TEST(RankReport, OpenMpsVariableIsARanksOwn) {
  Reports reports(2, on_cores("n1", range(0, 8), 8));
  for (RankReport& report : reports) report.processors.openmp_threads = 3;
  EXPECT_EQ(threads(reports), (std::vector{3, 3})) << "not divided: who sets it speaks of a process";
}

TEST(RankReport, AllRanksTakeAsManyThreadsAsTheLeastHas) {
  const Reports reports = {on_cores("n1", range(0, 8), 8), on_cores("n2", range(0, 2), 2), on_cores("n3", range(0, 4), 4)};
  for (std::size_t rank = 0; rank < reports.size(); ++rank) EXPECT_EQ(common_threads(reports, rank).threads, 2);
  EXPECT_EQ(common_threads(reports, 1).reason, "2 physical cores in the affinity mask");
  EXPECT_EQ(common_threads(reports, 0).reason, "as many as rank 1 (host n2) can have: 2 physical cores in the affinity mask");
}

TEST(RankReport, ABindingToLessThanAFairShareIsAFault) {
  // What Open MPI does by default with two ranks: a core each, however many there are.
  const Reports bound = {on_cores("n1", {0}, 16), on_cores("n1", {1}, 16)};
  EXPECT_EQ(binding_fault(bound, "mpirun"),
            "rank 0 (host n1) is bound to 1 of 16 cores, and its fair share would be 8; use mpirun --bind-to none, or --map-by "
            "slot:PE=8 (1 more rank is bound so)");
  EXPECT_NE(binding_fault(bound, "srun")->find("use srun --cpus-per-task=8, or --cpu-bind=none"), std::string::npos);
  EXPECT_NE(binding_fault(bound, "mpiexec")->find("use mpiexec -bind-to none"), std::string::npos);
  // All ranks on one core.
  EXPECT_NE(binding_fault(Reports(2, on_cores("n1", {0}, 2)), "mpirun")
                ->find("bound to 1 of 2 cores, which 2 ranks share, and its fair share would be 1;"),
            std::string::npos);
  // The second host's ranks alone.
  const Reports second = {on_cores("n1", range(0, 4), 4), on_cores("n2", {0}, 4)};
  EXPECT_TRUE(
      binding_fault(second, "mpirun")->starts_with("rank 1 (host n2) is bound to 1 of 4 cores, and its fair share would be 4;"));
}

TEST(RankReport, AFairShareIsNone) {
  EXPECT_EQ(binding_fault(Reports(4, on_cores("n1", range(0, 16), 16)), "mpirun"), std::nullopt) << "not bound";
  EXPECT_EQ(binding_fault(Reports{on_cores("n1", range(0, 8), 16), on_cores("n1", range(8, 8), 16)}, "mpirun"), std::nullopt);
  EXPECT_EQ(binding_fault(Reports{on_cores("n1", {0}, 2), on_cores("n1", {1}, 2)}, "mpirun"), std::nullopt);
  EXPECT_EQ(binding_fault(Reports(8, on_cores("n1", range(0, 2), 2)), "mpirun"), std::nullopt) << "more ranks than cores";
  // Two of sixteen cores are all that the group's quota lets the rank use, or that its user wants.
  Reports capped = {on_cores("n1", range(0, 2), 16), on_cores("n1", range(2, 2), 16)};
  for (RankReport& report : capped) report.processors.quota = 4.0;
  EXPECT_EQ(binding_fault(capped, "mpirun"), std::nullopt);
  for (RankReport& report : capped)
    report.processors = {.cores = report.processors.cores, .quota = {}, .quota_group = {}, .openmp_threads = 2};
  EXPECT_EQ(binding_fault(capped, "mpirun"), std::nullopt);
}

TEST(RankReport, TheLowestInstructionSetIsTaken) {
  Reports reports(3, on_cores("n1", {0}, 1));
  EXPECT_EQ(lowest_target(reports), std::nullopt);
  reports[2].avx512 = true;
  EXPECT_EQ(lowest_target(reports), CpuTarget::v3);
  for (RankReport& report : reports) report.avx512 = true;
  EXPECT_EQ(lowest_target(reports), std::nullopt);
}

std::vector<std::string> eight() { return {"GPU-0", "GPU-1", "GPU-2", "GPU-3", "GPU-4", "GPU-5", "GPU-6", "GPU-7"}; }

std::vector<int> gpus(const Reports& reports, int first = 0) {
  std::vector<int> all;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) all.push_back(choose_gpu(reports, rank, first));
  return all;
}

TEST(RankReport, EightRanksThatSeeTheSameEightGpusTakeOneEach) {
  Reports reports;
  for (int rank = 0; rank < 8; ++rank) reports.push_back(on_gpus("n1", rank, eight()));
  EXPECT_EQ(gpus(reports), range(0, 8));
  EXPECT_EQ(gpus(reports, 2), (std::vector{2, 3, 4, 5, 6, 7, 0, 1})) << "--device cuda:2";
}

TEST(RankReport, EightRanksThatSeeOneGpuEachTakeIt) {
  Reports reports;
  for (int rank = 0; rank < 8; ++rank) reports.push_back(on_gpus("n1", rank, {eight()[static_cast<std::size_t>(7 - rank)]}));
  EXPECT_EQ(gpus(reports), std::vector<int>(8, 0));
}

TEST(RankReport, RanksOfSeveralHostsCountFromTheirHostsFirst) {
  EXPECT_EQ(gpus({on_gpus("n1", 0, {"GPU-a", "GPU-b"}), on_gpus("n1", 1, {"GPU-a", "GPU-b"}),
                  on_gpus("n2", 0, {"GPU-c", "GPU-d"}), on_gpus("n2", 1, {"GPU-c", "GPU-d"})}),
            (std::vector{0, 1, 0, 1}));
}

/// What choose_gpu says to every rank.
std::string refusal(const Reports& reports) {
  std::string message;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    try {
      choose_gpu(reports, rank, 0);
      ADD_FAILURE() << "rank " << rank << " was given a GPU";
    } catch (const UsageError& failure) {
      if (rank == 0) message = failure.what();
      EXPECT_EQ(failure.what(), message) << "the same to all";
    }
  }
  return message;
}

TEST(RankReport, TwoRanksWithOneGpuAreRefusedByName) {
  const std::string same = refusal({on_gpus("n1", 0, {"GPU-a"}), on_gpus("n1", 1, {"GPU-b"}), on_gpus("n1", 2, {"GPU-a"})});
  EXPECT_EQ(
      same,
      "ranks 0 and 2 (host n1) would both use GPU-a, and a GPU takes one rank: start no more ranks on a host than it has GPUs "
      "(mpirun --map-by ppr:N:node), or let each see another one (CUDA_VISIBLE_DEVICES)");
  EXPECT_LT(same.size(), 300U);
  // More ranks than GPUs; and two containers, which are two hosts by name.
  EXPECT_TRUE(
      refusal({on_gpus("n1", 0, {"GPU-a", "GPU-b"}), on_gpus("n1", 1, {"GPU-a", "GPU-b"}), on_gpus("n1", 2, {"GPU-a", "GPU-b"})})
          .starts_with("ranks 0 and 2 (host n1) would both use GPU-a,"));
  EXPECT_TRUE(refusal({on_gpus("c1", 0, {"GPU-a"}), on_gpus("c2", 0, {"GPU-a"})})
                  .starts_with("rank 0 (host c1) and rank 1 (host c2) would both use GPU-a,"));
}

TEST(RankReport, ARankWithoutAGpuIsLeftToItsDevicesOwnWords) {
  EXPECT_EQ(gpus({on_gpus("n1", 0, {"GPU-a"}), on_gpus("n1", 1, {})}), (std::vector{0, 0}));
  EXPECT_EQ(gpus({on_gpus("n1", 0, {"GPU-a"})}, 3), std::vector{3}) << "--device cuda:3 isn't there";
}

}  // namespace
}  // namespace lathe
