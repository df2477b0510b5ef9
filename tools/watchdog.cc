#include "tools/watchdog.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "lathe/runtime/error.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

using Clock = RankState::Clock;
using std::chrono::milliseconds;

/// What is told after a rank ended is waited for so long: a lower rank may have failed too, and others tell where they wait. A launcher that saw
/// it end kills the others, after a second by SIGKILL.
constexpr milliseconds kGrace{300};
/// Rank 0 looks whether a time is up at least so often, however seldom ranks speak.
constexpr milliseconds kLook{250};
/// Connecting, and being let in.
constexpr milliseconds kGreeting{5000};
/// A line on a connection.
constexpr std::size_t kLongestLine = 2048;
constexpr std::size_t kMostStrangers = 64;

/// A file descriptor of one's own.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      close();
      number_ = std::exchange(other.number_, -1);
    }
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  void close() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }

 private:
  int number_ = -1;
};

std::string error_text(int number) { return std::error_code(number, std::generic_category()).message(); }

/// Lines over a socket that never waits.
class Link {
 public:
  Link() = default;
  explicit Link(Descriptor socket) : socket_(std::move(socket)) {
    const int on = 1;
    ::setsockopt(socket_.number(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  int number() const { return socket_.number(); }
  explicit operator bool() const { return static_cast<bool>(socket_); }
  void close() { socket_.close(); }
  /// Nothing more is said.
  void finish() { ::shutdown(socket_.number(), SHUT_WR); }

  /// What the other side, stopped perhaps, doesn't take is kept, and of very much the rest isn't.
  void send(std::string_view line) {
    constexpr std::size_t kMostKept = 1 << 16;
    if (!socket_ || out_.size() > kMostKept) return;
    out_.append(line).push_back('\n');
    flush();
  }
  void flush() {
    while (!out_.empty()) {
      const ssize_t sent = ::send(socket_.number(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return;
      out_.erase(0, static_cast<std::size_t>(sent));
    }
  }

  /// Reads what has come. False where the other side is gone, or doesn't speak in lines.
  bool receive() {
    std::array<char, 4096> buffer{};
    for (;;) {
      const ssize_t count = ::recv(socket_.number(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
      if (count == 0) return false;
      in_.append(buffer.data(), static_cast<std::size_t>(count));
      if (in_.size() > kLongestLine && in_.find('\n') == std::string::npos) return false;
    }
  }
  std::optional<std::string> next() {
    const auto end = in_.find('\n');
    if (end == std::string::npos) return std::nullopt;
    std::string line = in_.substr(0, end);
    in_.erase(0, end + 1);
    return line;
  }

 private:
  Descriptor socket_;
  std::string in_, out_;
};

/// Waits for what `files` are asked; false where nothing came in time.
bool wait_for(std::span<pollfd> files, Clock::time_point end) {
  const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
  return ::poll(files.data(), files.size(), static_cast<int>(std::max<std::int64_t>(0, left.count()))) > 0;
}

/// Prints the line of a job's end, if that goes within a second: nobody may be kept alive by a pipe that nobody reads.
void say(int file, std::string_view message) {
  const std::string line =
      fmt::format("{}{} {}\n", is_terminal(file) ? "\r\x1b[K" : "", coloured("lathe:", Tone::error), message_line(message));
  std::array<pollfd, 1> out = {{{.fd = file, .events = POLLOUT, .revents = 0}}};
  if (!wait_for(out, Clock::now() + std::chrono::seconds(1))) return;
  static_cast<void>(::write(file, line.data(), line.size()));
}

/// Threads that are made while one lives get no signals: those stay with the main thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  SignalsBlocked(SignalsBlocked&&) = delete;
  SignalsBlocked& operator=(SignalsBlocked&&) = delete;

 private:
  sigset_t before_{};
};

/// What rank 0 tells the others by MPI: where it listens, and the secrets by which they know each other.
struct Meeting {
  std::vector<std::string> addresses;
  std::uint16_t port = 0;
  std::string token, answer;
};

std::string random_token() {
  std::array<unsigned char, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw std::system_error(errno, std::generic_category(), "getrandom");
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

/// Takes as long whatever the texts are.
bool is_same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned differs = 0;
  for (std::size_t i = 0; i < a.size(); ++i) differs |= static_cast<unsigned char>(a[i] ^ b[i]);
  return differs == 0;
}

/// This host's IPv4 addresses but for the loopback's.
std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    if ((each->ifa_flags & IFF_LOOPBACK) != 0U || (each->ifa_flags & IFF_UP) == 0U) continue;
    sockaddr_in address{};
    std::memcpy(&address, each->ifa_addr, sizeof(address));
    std::array<char, INET_ADDRSTRLEN> text{};
    if (::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size()) != nullptr) addresses.emplace_back(text.data());
  }
  ::freeifaddrs(list);
  return addresses;
}

/// A socket that listens, on the loopback alone where that is enough.
Descriptor listen_on(bool loopback, Meeting& meeting) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
  socklen_t length = sizeof(address);
  if (!socket || ::bind(socket.number(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(socket.number(), SOMAXCONN) != 0 ||
      ::getsockname(socket.number(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw std::system_error(errno, std::generic_category(), "no port to listen on for heartbeats");
  }
  meeting.port = ntohs(address.sin_port);
  meeting.addresses = loopback ? std::vector<std::string>{"127.0.0.1"} : own_addresses();
  return socket;
}

/// Rank 0's meeting to all.
Meeting share(Communicator& ranks, const Meeting& of_first) {
  std::string text;
  if (ranks.rank() == 0) {
    text = fmt::format("{}\n{}\n{}\n", of_first.port, of_first.token, of_first.answer);
    for (const std::string& address : of_first.addresses) text += address + "\n";
  }
  std::int64_t size = std::ssize(text);
  ranks.broadcast(std::as_writable_bytes(std::span(&size, 1)), 0);
  text.resize(static_cast<std::size_t>(size));
  ranks.broadcast(std::as_writable_bytes(std::span(text)), 0);
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  Meeting meeting{.addresses = {lines.begin() + 3, lines.end()}, .port = 0, .token = lines[1], .answer = lines[2]};
  std::from_chars(lines[0].data(), lines[0].data() + lines[0].size(), meeting.port);
  return meeting;
}

/// A connection on which the other side has shown that it is rank 0; else why there is none.
std::variant<Link, std::string> greet(const std::string& text, const Meeting& meeting, int rank) {
  const auto end = Clock::now() + kGreeting;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(meeting.port);
  if (::inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1) return std::string("is no address");
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return error_text(errno);
  if (::connect(socket.number(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 && errno != EINPROGRESS)
    return error_text(errno);
  std::array<pollfd, 1> file = {{{.fd = socket.number(), .events = POLLOUT, .revents = 0}}};
  if (!wait_for(file, end)) return error_text(ETIMEDOUT);
  int error = 0;
  socklen_t length = sizeof(error);
  ::getsockopt(socket.number(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return error_text(error);
  Link link(std::move(socket));
  link.send(fmt::format("{}\t{}", meeting.token, rank));
  file[0].events = POLLIN;
  while (wait_for(file, end) && link.receive()) {
    const auto line = link.next();
    if (!line) continue;
    if (is_same(*line, meeting.answer)) return link;
    break;
  }
  return std::string("does not answer as rank 0");
}

Link connect_to_first(const Meeting& meeting, const Place& place) {
  std::string tried;
  for (const std::string& address : meeting.addresses) {
    auto met = greet(address, meeting, place.rank);
    if (auto* link = std::get_if<Link>(&met)) return std::move(*link);
    tried += fmt::format("{}{}:{} {}", tried.empty() ? "" : ", ", address, meeting.port, std::get<std::string>(met));
  }
  throw CommunicationError("connecting to rank 0 for heartbeats", place.rank, place.host,
                           (tried.empty() ? "it has no address" : tried) + ": TCP between the hosts must be let through");
}

/// Rank 0 has a file for each rank, and many systems give a process 1,024 unless it asks for more.
void allow_files(int count) {
  constexpr rlim_t kOthers = 256;
  rlimit limit{};
  const auto needed = static_cast<rlim_t>(count) + kOthers;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
  limit.rlim_cur = std::min(needed, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string to_line(const Thrown& thrown) {
  return fmt::format("{}{}{}", thrown.status, thrown.consequence ? 'c' : 'o', message_line(thrown.message));
}
std::optional<Thrown> parse_thrown(std::string_view line) {
  if (line.size() < 2 || line[0] < '0' || line[0] > '9') return std::nullopt;
  return Thrown{.status = line[0] - '0', .consequence = line[1] == 'c', .message = std::string(line.substr(2))};
}

// What a line begins with. Ranks say the first three, rank 0 all but the goodbye and failures.
constexpr char kReport = 'r';
constexpr char kThrown = 'f';
constexpr char kGoodbye = 'g';
constexpr char kAsk = 'a';
constexpr char kEnd = 'e';

}  // namespace

class Watchdog::Thread {
 public:
  Thread(Communicator& ranks, std::vector<std::string> hosts, const WatchTimeouts& timeouts, int error_output)
      : place_(ranks.place()),
        timeouts_(timeouts),
        interval_(std::clamp(timeouts.comm / 20, milliseconds(50), milliseconds(5000))),
        error_output_(error_output),
        bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        states_(hosts.size()) {
    if (!bell_) throw std::system_error(errno, std::generic_category(), "eventfd");
    own_.report.work = "starting";
    for (std::size_t r = 0; r < hosts.size(); ++r) states_[r].host = std::move(hosts[r]);
    for (RankState& state : states_) state.heard = state.changed = begin_;
    const bool first = place_.rank == 0;
    if (first) {
      allow_files(place_.size);
      listener_ = listen_on(place_.local_size == place_.size, meeting_);
      meeting_.token = random_token();
      meeting_.answer = random_token();
      links_.resize(states_.size());
    }
    meeting_ = share(ranks, meeting_);
    if (!first) link_ = connect_to_first(meeting_, place_);
    const SignalsBlocked blocked;
    thread_ = std::thread([this, first] { first ? watch_all() : watch_first(); });
  }

  ~Thread() {
    if (thread_.joinable()) stop(&Own::quits);
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  Thread(Thread&&) = delete;
  Thread& operator=(Thread&&) = delete;

  void entered(std::string_view operation) {
    const std::scoped_lock lock(mutex_);
    if (depth_++ == 0) ++own_.report.entered;
    ++own_.report.signs;
    own_.report.waiting_in = operation;
  }
  void left() {
    const std::scoped_lock lock(mutex_);
    if (--depth_ == 0) own_.report.waiting_in.clear();
    ++own_.report.signs;
  }
  void working(std::string_view on, std::optional<std::int64_t> step) {
    const std::scoped_lock lock(mutex_);
    ++own_.report.signs;
    own_.report.work = on;
    if (step) own_.report.step = *step;
  }
  void agreed() {
    const std::scoped_lock lock(mutex_);
    own_.report.agreed = true;
    ++own_.report.signs;
  }

  void fail(const Thrown& thrown) {
    std::unique_lock lock(mutex_);
    own_.thrown = thrown;
    ring();
    // The thread ends the process meanwhile, unless it has ended itself.
    ended_.wait_for(lock, timeouts_.comm + std::chrono::seconds(5), [this] { return done_; });
  }

  void leave() {
    if (thread_.joinable()) stop(&Own::leaves);
  }

 private:
  /// What the main thread has to say.
  struct Own {
    Heartbeat report;
    std::optional<Thrown> thrown;
    bool leaves = false;
    bool quits = false;
  };

  void ring() {
    const std::uint64_t one = 1;
    static_cast<void>(::write(bell_.number(), &one, sizeof(one)));
  }
  void stop(bool Own::*how) {
    {
      const std::scoped_lock lock(mutex_);
      own_.*how = true;
      ring();
    }
    thread_.join();
  }

  Own own() {
    const std::scoped_lock lock(mutex_);
    return own_;
  }
  void finish() {
    const std::scoped_lock lock(mutex_);
    done_ = true;
    ended_.notify_all();
  }

  /// Waits for files or `until`, and gives the time. Where this process was stopped meanwhile, or the machine was, nobody else was silent.
  Clock::time_point wait(std::vector<pollfd>& files, Clock::time_point until) {
    static_cast<void>(wait_for(files, until));
    std::uint64_t rung = 0;
    static_cast<void>(::read(bell_.number(), &rung, sizeof(rung)));
    const auto now = Clock::now();
    const auto late = now - until;
    if (late + 2 * interval_ >= timeouts_.comm) woke_ = now;
    if (late > interval_) {
      for (RankState& state : states_) {
        state.heard += late;
        state.changed += late;
      }
    }
    return now;
  }

  static void take(RankState& state, const Heartbeat& report, Clock::time_point now) {
    state.heard = now;
    if (state.report == report) return;
    state.report = report;
    state.changed = now;
  }

  // Rank 0.

  void watch_all() {
    auto next = Clock::now() + interval_;
    auto decision = Clock::time_point::max();  // no verdict yet
    states_[0].standing = RankState::Standing::here;
    for (;;) {
      std::vector<pollfd> files = {{.fd = bell_.number(), .events = POLLIN, .revents = 0}};
      const auto add = [&](int file) {
        if (file >= 0) files.push_back({.fd = file, .events = POLLIN, .revents = 0});
      };
      add(listener_.number());
      for (const Stranger& stranger : strangers_) add(stranger.link.number());
      for (const Link& link : links_) add(link.number());
      const auto now = wait(files, std::min({next, decision, Clock::now() + kLook}));
      if (listener_) receive_strangers(now);
      for (std::size_t r = 1; r < links_.size(); ++r) receive(r, now);
      const Own mine = own();
      take(states_[0], mine.report, now);
      states_[0].thrown = mine.thrown;
      if (mine.quits || (mine.leaves && all_left())) break;
      if (now >= next) {
        next = now + interval_;
        tell_all(kReport + to_line(mine.report));
      }
      const auto verdict = judge(states_, begin_, now, timeouts_);
      if (!verdict) {
        decision = Clock::time_point::max();
        continue;
      }
      if (decision == Clock::time_point::max()) {
        decision = now + kGrace;
        tell_all(std::string(1, kAsk));
      }
      if (now >= decision || all_failed()) end(*verdict);
    }
    finish();
  }

  bool all_left() const {
    return std::ranges::all_of(states_.begin() + 1, states_.end(),
                               [](const RankState& state) { return state.standing == RankState::Standing::left; });
  }
  bool all_failed() const {
    return std::ranges::all_of(states_, [](const RankState& state) { return state.thrown.has_value(); });
  }
  void tell_all(const std::string& line) {
    for (Link& link : links_) link.send(line);
  }

  /// Those who haven't shown yet that they are ranks of this job.
  struct Stranger {
    Link link;
    Clock::time_point came;
  };

  void receive_strangers(Clock::time_point now) {
    for (;;) {
      Descriptor socket(::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!socket) break;
      strangers_.push_back({.link = Link(std::move(socket)), .came = now});
      // A rank says who it is at once: who has waited longest is none.
      if (strangers_.size() > states_.size() + kMostStrangers) strangers_.erase(strangers_.begin());
    }
    for (Stranger& stranger : strangers_) {
      const bool there = stranger.link.receive();
      const auto line = stranger.link.next();
      if (line && let_in(stranger, *line, now)) continue;
      if (line || !there || now - stranger.came > kGreeting) stranger.link.close();
    }
    std::erase_if(strangers_, [](const Stranger& stranger) { return !stranger.link; });
    const bool complete =
        std::ranges::none_of(states_, [](const RankState& state) { return state.standing == RankState::Standing::absent; });
    if (!complete) return;
    listener_.close();
    strangers_.clear();
  }

  /// Whether a first line is that of a rank that isn't here yet.
  bool let_in(Stranger& stranger, std::string_view line, Clock::time_point now) {
    const auto tab = line.find('\t');
    if (tab == std::string_view::npos || !is_same(line.substr(0, tab), meeting_.token)) return false;
    line.remove_prefix(tab + 1);
    std::size_t rank = 0;
    std::from_chars(line.data(), line.data() + line.size(), rank);
    if (rank == 0 || rank >= states_.size() || states_[rank].standing != RankState::Standing::absent) return false;
    links_[rank] = std::move(stranger.link);
    links_[rank].send(meeting_.answer);
    states_[rank].standing = RankState::Standing::here;
    states_[rank].heard = states_[rank].changed = now;
    return true;
  }

  void receive(std::size_t rank, Clock::time_point now) {
    Link& link = links_[rank];
    if (!link) return;
    link.flush();
    const bool there = link.receive();
    RankState& state = states_[rank];
    while (const auto line = link.next()) {
      const std::string_view rest = std::string_view(*line).substr(std::min<std::size_t>(1, line->size()));
      state.heard = now;
      if (line->starts_with(kReport)) {
        if (const auto report = parse_heartbeat(rest)) take(state, *report, now);
      } else if (line->starts_with(kThrown)) {
        state.thrown = parse_thrown(rest);
      } else if (line->starts_with(kGoodbye)) {
        state.standing = RankState::Standing::left;
      }
    }
    if (there) return;
    if (state.standing != RankState::Standing::left) state.standing = RankState::Standing::gone;
    // Who has said goodbye waits for this end to be closed, which is when all have.
    if (state.standing == RankState::Standing::gone) {
      link.close();
    } else {
      parted_.push_back(std::exchange(link, Link()));
    }
  }

  [[noreturn]] void end(const Verdict& verdict) {
    // Where rank 0 itself was silent for so long, rank 1 has told of that, and a launcher that ended the job may be what woke it.
    if (!woke_ || Clock::now() - *woke_ >= timeouts_.comm) say(error_output_, verdict.message);
    const std::string line = kEnd + std::to_string(verdict.status);
    // What hasn't been read when a connection is closed makes the other side lose what it hasn't read: so both are given a moment.
    for (Link& link : links_) {
      if (!link) continue;
      link.send(line);
      link.finish();
    }
    const auto last = Clock::now() + kGrace;
    for (;;) {
      std::vector<pollfd> files;
      for (Link& link : links_) {
        if (link && !link.receive()) link.close();
        if (link) files.push_back({.fd = link.number(), .events = POLLIN, .revents = 0});
      }
      if (files.empty() || Clock::now() >= last) break;
      static_cast<void>(wait_for(files, last));
    }
    ::_exit(verdict.status);
  }

  // All others.

  void watch_first() {
    auto next = Clock::now();
    RankState& first = states_[0];
    first.standing = RankState::Standing::here;
    bool sent = false;
    bool parting = false;
    for (;;) {
      std::vector<pollfd> files = {{.fd = bell_.number(), .events = POLLIN, .revents = 0},
                                   {.fd = link_.number(), .events = POLLIN, .revents = 0}};
      const auto now = wait(files, next);
      link_.flush();
      const bool there = link_.receive();
      const Own mine = own();
      if (mine.quits) break;
      bool asked = now >= next;
      while (const auto line = link_.next()) {
        const std::string_view rest = std::string_view(*line).substr(std::min<std::size_t>(1, line->size()));
        first.heard = now;
        if (line->starts_with(kEnd)) end_as_told(rest);
        if (line->starts_with(kAsk)) asked = true;
        if (line->starts_with(kReport)) {
          if (const auto report = parse_heartbeat(rest)) take(first, *report, now);
        }
      }
      if (parting && (!there || now - first.heard >= timeouts_.comm)) break;
      if (!there) first.standing = RankState::Standing::gone;
      if (!there || now - first.heard >= timeouts_.comm) end_alone();
      if (mine.thrown && !std::exchange(sent, true)) link_.send(kThrown + to_line(*mine.thrown));
      if (mine.leaves && !std::exchange(parting, true)) {
        link_.send(std::string(1, kGoodbye));
        link_.finish();
      }
      if (asked && !parting) link_.send(kReport + to_line(mine.report));
      if (now >= next) next = now + interval_;
    }
    finish();
  }

  [[noreturn]] static void end_as_told(std::string_view status) {
    int number = 1;
    std::from_chars(status.data(), status.data() + status.size(), number);
    ::_exit(number);
  }

  /// Rank 0 is gone or silent. Ranks know of each other by it alone, so that rank 1 is the lowest that can speak.
  [[noreturn]] void end_alone() {
    std::this_thread::sleep_for(kGrace);  // until the main thread has come to where it has to wait
    if (place_.rank == 1) {
      const Own mine = own();
      const auto now = Clock::now();
      std::array<RankState, 2> two = {states_[0], states_[1]};
      two[1].standing = RankState::Standing::here;
      two[1].report = mine.report;
      two[1].heard = two[1].changed = now;
      if (const auto verdict = judge(two, begin_, now, timeouts_)) say(error_output_, verdict->message);
    } else {
      std::this_thread::sleep_for(kGrace);  // a launcher ends all when it sees one end
    }
    ::_exit(1);
  }

  const Place place_;
  const WatchTimeouts timeouts_;
  const milliseconds interval_;  // from one word to the next
  const int error_output_;
  const Clock::time_point begin_ = Clock::now();
  Descriptor bell_;                        // rung by the main thread
  std::optional<Clock::time_point> woke_;  // from a pause of this process, or its machine, that was as long as the timeout

  std::mutex mutex_;  // of the next four
  Own own_;
  int depth_ = 0;  // of functions within functions
  bool done_ = false;
  std::condition_variable ended_;

  Meeting meeting_;
  std::vector<RankState> states_;  // by rank; of another rank than 0 rank 0's alone is kept
  Descriptor listener_;            // rank 0's, until all are here
  std::vector<Stranger> strangers_;
  std::vector<Link> links_;   // rank 0's, by rank
  std::vector<Link> parted_;  // of those who have left
  Link link_;                 // another rank's

  std::thread thread_;
};

Watchdog::Watchdog(Communicator& ranks, std::vector<std::string> hosts, const WatchTimeouts& timeouts, int error_output)
    : thread_(std::make_unique<Thread>(ranks, std::move(hosts), timeouts, error_output)) {}

Watchdog::~Watchdog() = default;

void Watchdog::entered(std::string_view operation) { thread_->entered(operation); }
void Watchdog::left() { thread_->left(); }
void Watchdog::working(std::string_view on, std::optional<std::int64_t> step) { thread_->working(on, step); }
void Watchdog::agreed() { thread_->agreed(); }
void Watchdog::fail(const Thrown& thrown) { thread_->fail(thrown); }
void Watchdog::leave() { thread_->leave(); }

class StartTimer::Thread {
 public:
  Thread(milliseconds timeout, std::string message) {
    const SignalsBlocked blocked;
    thread_ = std::thread([this, timeout, message = std::move(message)] {
      std::unique_lock lock(mutex_);
      // Who has nothing to say leaves the first word, and the first end, to who has.
      const milliseconds more(message.empty() ? 2000 : 0);
      if (over_.wait_for(lock, timeout + more, [this] { return started_; })) return;
      if (!message.empty()) say(STDERR_FILENO, message);
      ::_exit(1);
    });
  }
  ~Thread() {
    {
      const std::scoped_lock lock(mutex_);
      started_ = true;
      over_.notify_all();
    }
    thread_.join();
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  Thread(Thread&&) = delete;
  Thread& operator=(Thread&&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  bool started_ = false;
  std::thread thread_;
};

StartTimer::StartTimer(milliseconds timeout, std::string message)
    : thread_(std::make_unique<Thread>(timeout, std::move(message))) {}

StartTimer::~StartTimer() = default;

}  // namespace lathe
