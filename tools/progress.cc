#include "tools/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "tools/standard_streams.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

int terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string duration(double seconds) {
  const auto whole = std::llround(seconds);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

Progress::Progress(std::int64_t total) : terminal_(is_terminal(STDERR_FILENO)), total_(total) {}

Progress::~Progress() { finish(); }

void Progress::advance(std::int64_t done, std::int64_t tokens) {
  done_ = done;
  tokens_ += tokens;
  if (terminal_ && Clock::now() - drawn_ >= std::chrono::milliseconds(100)) draw();
}

void Progress::note(std::int64_t done, std::string_view text) {
  note_ = text;
  if (terminal_ || (done < total_ && Clock::now() - drawn_ < std::chrono::seconds(2))) return;
  drawn_ = Clock::now();
  write_message(fmt::format("step {}/{}  {}\n", done, total_, text));
}

void Progress::line(std::string_view text) {
  clear();
  write_message(fmt::format("{}\n", text));
}

void Progress::draw() {
  constexpr int kBar = 20;
  drawn_ = Clock::now();
  const double seconds = std::chrono::duration<double>(drawn_ - begin_).count();
  const double share = total_ > 0 ? static_cast<double>(done_) / static_cast<double>(total_) : 1.0;
  const auto filled = static_cast<std::size_t>(share * kBar);
  const double remaining = done_ > 0 ? seconds / static_cast<double>(done_) * static_cast<double>(total_ - done_) : 0.0;
  std::string text =
      fmt::format("[{}{}] {}/{}  {:.0f} tokens/s  {} left  {}", std::string(filled, '='), std::string(kBar - filled, ' '), done_,
                  total_, seconds > 0.0 ? static_cast<double>(tokens_) / seconds : 0.0, duration(remaining), note_);
  text.resize(std::min(text.size(), static_cast<std::size_t>(terminal_width() - 1)));
  write_message(fmt::format("\r\x1b[K{}", text));
  std::fflush(stderr);
  visible_ = true;
}

void Progress::clear() {
  if (!visible_) return;
  write_message("\r\x1b[K");
  std::fflush(stderr);
  visible_ = false;
}

void Progress::finish() {
  if (terminal_ && done_ > 0 && visible_) {
    draw();
    write_message("\n");
    visible_ = false;
  }
}

}  // namespace lathe
