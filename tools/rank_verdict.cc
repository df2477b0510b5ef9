#include "tools/rank_verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Standing = RankState::Standing;
using Clock = RankState::Clock;

/// "3", "0.5"; what a timeout is in messages.
std::string seconds(std::chrono::milliseconds time) { return fmt::format("{}", static_cast<double>(time.count()) / 1000.0); }

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A name within a message, and within a line of fields.
std::string name(std::string_view text, std::size_t most) { return shortened(printable(text), most); }

/// All that is said of ranks.
class Judgement {
 public:
  Judgement(std::span<const RankState> ranks, Clock::time_point begin, Clock::time_point now, const WatchTimeouts& timeouts)
      : ranks_(ranks), begin_(begin), now_(now), timeouts_(timeouts) {}

  std::optional<Verdict> reach() const {
    if (auto verdict = ended()) return verdict;
    if (auto verdict = silent()) return verdict;
    if (auto verdict = not_started()) return verdict;
    if (auto verdict = not_come()) return verdict;
    if (auto verdict = none_returns()) return verdict;
    return consequence();
  }

 private:
  std::string who(std::size_t rank) const { return fmt::format("rank {} (host {})", rank, name(ranks_[rank].host, 40)); }

  static std::string in_step(const Heartbeat& report) {
    return report.step == 0 ? "before the first step" : fmt::format("in step {}", report.step);
  }
  /// "computing in step 3", "in all-reduce of 512 f32, in step 3".
  static std::string doing(const Heartbeat& report) {
    if (report.waiting_in.empty()) return fmt::format("{} {}", report.work, in_step(report));
    return fmt::format("in {}, {}", report.waiting_in, in_step(report));
  }

  /// Who waits for `culprit`, where somebody does: "; rank 0 waits in all-reduce of 512 f32, in step 3".
  std::string waiting(std::size_t culprit) const {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const RankState& rank = ranks_[r];
      if (r != culprit && rank.standing == Standing::here && !rank.thrown && !rank.report.waiting_in.empty())
        return fmt::format("; rank {} waits {}", r, doing(rank.report));
    }
    return "";
  }

  std::optional<Verdict> ended() const {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const RankState& rank = ranks_[r];
      if (rank.thrown && !rank.thrown->consequence) return told_by(r);
      if (rank.standing != Standing::gone) continue;
      return Verdict{.status = 1,
                     .message = fmt::format("{} has ended without a word, killed or crashed; it was last heard of {}{}", who(r),
                                            doing(rank.report), waiting(r))};
    }
    return std::nullopt;
  }

  Verdict told_by(std::size_t r) const {
    const Thrown& thrown = *ranks_[r].thrown;
    // What all ranks say is no one's alone.
    const bool all = std::ranges::all_of(ranks_, [&](const RankState& rank) { return rank.thrown == thrown; });
    if (all) return {.status = thrown.status, .message = thrown.message};
    // The message may be as long as a line may be, and what stands around it is worth more than its middle.
    const std::string around = who(r) + waiting(r);
    const std::size_t room = kLongestMessage > around.size() + 30 ? kLongestMessage - around.size() - 30 : 30;
    const std::string place = waiting(r).empty() ? fmt::format(" ({})", in_step(ranks_[r].report)) : waiting(r);
    return {.status = thrown.status, .message = fmt::format("{}: {}{}", who(r), shortened(thrown.message, room), place)};
  }

  bool is_silent(const RankState& rank) const { return rank.standing == Standing::here && now_ - rank.heard >= timeouts_.comm; }
  std::optional<Verdict> silent() const {
    const auto found = std::ranges::find_if(ranks_, [&](const RankState& rank) { return is_silent(rank); });
    if (found == ranks_.end()) return std::nullopt;
    const auto r = static_cast<std::size_t>(found - ranks_.begin());
    return Verdict{.status = 1,
                   .message = fmt::format(
                       "{} has not been heard of for {} s (--comm-timeout): it is stopped, or cut off; it was last heard of {}{}",
                       who(r), seconds(timeouts_.comm), doing(found->report), waiting(r))};
  }

  std::optional<Verdict> not_started() const {
    if (now_ - begin_ < timeouts_.start) return std::nullopt;
    const auto found = std::ranges::find_if(
        ranks_, [](const RankState& rank) { return rank.standing == Standing::absent || !rank.report.agreed; });
    if (found == ranks_.end()) return std::nullopt;
    // Of ranks that wait for each other the one that others wait for: it has called the fewest collectives.
    const auto least = std::ranges::min_element(ranks_, [](const RankState& a, const RankState& b) {
      const auto order = [](const RankState& rank) { return rank.standing == Standing::absent ? -1 : rank.report.entered; };
      return order(a) < order(b);
    });
    const auto r = static_cast<std::size_t>(least - ranks_.begin());
    const std::string is = least->standing == Standing::absent ? "has not joined" : "is not ready: it is " + doing(least->report);
    return Verdict{.status = 1,
                   .message = fmt::format("{} s after the start (--start-timeout) {} {}{}", seconds(timeouts_.start), who(r), is,
                                          waiting(r))};
  }

  bool is_idle(const RankState& rank) const {
    return rank.standing == Standing::here && rank.report.agreed && now_ - rank.changed >= timeouts_.comm;
  }

  std::optional<Verdict> not_come() const {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      if (!is_idle(ranks_[r])) continue;
      for (std::size_t other = 0; other < ranks_.size(); ++other) {
        if (!is_idle(ranks_[other]) || ranks_[other].report.entered <= ranks_[r].report.entered) continue;
        const Heartbeat& waits = ranks_[other].report;
        return Verdict{.status = 1,
                       .message = fmt::format("{} has not come to {} for {} s (--comm-timeout), where rank {} is {}; it is {}",
                                              who(r), waits.waiting_in.empty() ? "the next collective" : waits.waiting_in,
                                              seconds(timeouts_.comm), other, in_step(waits), doing(ranks_[r].report))};
      }
    }
    return std::nullopt;
  }

  /// All are in the same function and none comes out: nobody's fault, but the network's.
  std::optional<Verdict> none_returns() const {
    const Heartbeat& first = ranks_.front().report;
    const bool stuck = std::ranges::all_of(ranks_, [&](const RankState& rank) {
      return is_idle(rank) && rank.report.entered == first.entered && !rank.report.waiting_in.empty();
    });
    if (!stuck) return std::nullopt;
    return Verdict{
        .status = 1,
        .message = fmt::format("all {} ranks, from {} on, have been {} for {} s (--comm-timeout): is the network between "
                               "them at work?",
                               ranks_.size(), who(0), doing(first), seconds(timeouts_.comm))};
  }

  std::optional<Verdict> consequence() const {
    const auto found = std::ranges::find_if(ranks_, [](const RankState& rank) { return rank.thrown.has_value(); });
    if (found == ranks_.end()) return std::nullopt;
    return told_by(static_cast<std::size_t>(found - ranks_.begin()));
  }

  std::span<const RankState> ranks_;
  Clock::time_point begin_, now_;
  const WatchTimeouts& timeouts_;
};

}  // namespace

std::string to_line(const Heartbeat& report) {
  constexpr std::size_t kLongestName = 100;
  return fmt::format("{}\t{}\t{}\t{}\t{}\t{}", report.entered, report.signs, report.step, report.agreed ? 1 : 0,
                     name(report.work, kLongestName), name(report.waiting_in, kLongestName));
}

std::optional<Heartbeat> parse_heartbeat(std::string_view line) {
  std::vector<std::string_view> fields;
  for (std::size_t end = 0; end != std::string_view::npos;) {
    end = line.find('\t');
    fields.push_back(line.substr(0, end));
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  }
  constexpr std::size_t kFields = 6;
  if (fields.size() != kFields) return std::nullopt;
  std::array<std::int64_t, 4> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto value = number(fields[i]);
    if (!value || *value < 0) return std::nullopt;
    numbers[i] = *value;
  }
  return Heartbeat{.entered = numbers[0],
                   .signs = numbers[1],
                   .step = numbers[2],
                   .agreed = numbers[3] != 0,
                   .work = std::string(fields[4]),
                   .waiting_in = std::string(fields[5])};
}

std::optional<Verdict> judge(std::span<const RankState> ranks, RankState::Clock::time_point begin,
                             RankState::Clock::time_point now, const WatchTimeouts& timeouts) {
  return Judgement(ranks, begin, now, timeouts).reach();
}

}  // namespace lathe
