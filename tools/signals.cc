#include "tools/signals.h"

#include <unistd.h>
#include <csignal>

namespace lathe {
namespace {

// A signal handler can reach nothing else.
std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int number) {
  if (received.exchange(number) != 0) ::_exit(128 + number);
}

}  // namespace

const std::atomic<int>& watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  return received;
}

}  // namespace lathe
