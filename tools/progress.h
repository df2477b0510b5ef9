#pragma once
// A progress bar where people watch, plain lines elsewhere; on standard error.
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace lathe {

class Progress {
 public:
  explicit Progress(std::int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;

  /// On a terminal redraws the bar, at most ten times a second; elsewhere prints nothing.
  void advance(std::int64_t done, std::int64_t tokens);
  /// What the bar shows at its end, "loss 0.312"; elsewhere a line of its own, at most one in two seconds but for the last.
  void note(std::int64_t done, std::string_view text);
  /// Prints a line above the bar.
  void line(std::string_view text);
  /// Ends the bar.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void draw();
  void clear();

  bool terminal_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  std::int64_t tokens_ = 0;
  std::string note_;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point drawn_{};
  bool visible_ = false;
};

}  // namespace lathe
