#pragma once
// What rank 0 knows of the ranks of a job, and what it makes of that: whether one of them holds up the others, and which.
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lathe {

/// What a rank tells of itself, again and again.
struct Heartbeat {
  std::int64_t entered = 0;  ///< collective functions that it has called
  std::int64_t signs = 0;    ///< of work: whatever its main thread has done
  std::int64_t step = 0;     ///< from 1; 0 before the first
  bool agreed = false;       ///< whether it has begun to train
  std::string work;          ///< "evaluating"
  std::string waiting_in;    ///< the collective function that it is in; empty outside of one

  bool operator==(const Heartbeat&) const = default;
};

/// One line, without its end.
std::string to_line(const Heartbeat& report);
/// Nothing for what to_line() didn't make.
std::optional<Heartbeat> parse_heartbeat(std::string_view line);

/// How a rank ended its work by an exception.
struct Thrown {
  int status = 1;
  bool consequence = false;  ///< of another rank's end, as far as it could see
  std::string message;

  bool operator==(const Thrown&) const = default;
};

/// What rank 0 knows of a rank.
struct RankState {
  using Clock = std::chrono::steady_clock;
  enum class Standing { absent, here, gone, left };

  std::string host;
  Standing standing = Standing::absent;  ///< gone: its connection ended without a word; left: it has said goodbye
  Heartbeat report;
  std::optional<Thrown> thrown;
  Clock::time_point heard;    ///< when it spoke last
  Clock::time_point changed;  ///< when its report last became another
};

struct WatchTimeouts {
  std::chrono::milliseconds comm{600'000};
  std::chrono::milliseconds start{1'800'000};
};

/// The end of a job.
struct Verdict {
  int status = 1;
  std::string message;
};

/// Who holds up the job at `now`, which began at `begin`: nothing where all may still be well. Of several ranks it is the lowest, and first those that
/// ended, then those that are silent, that haven't come to the start, and that haven't come to what the others wait for. What a rank threw because
/// another ended counts only where nothing else explains it.
std::optional<Verdict> judge(std::span<const RankState> ranks, RankState::Clock::time_point begin,
                             RankState::Clock::time_point now, const WatchTimeouts& timeouts);

}  // namespace lathe
