// What becomes of a job of several ranks of which one fails: all of it ends in time, one line names the culprit, no process is left, and the model
// that was saved before is whole. Real processes under mpirun; LATHE_FAULT_REPEATS=20 runs each fault as often.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "lathe/checkpoint/safetensors.h"
#include "tests/tools/refusal.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Seconds = std::chrono::duration<double>;

/// --comm-timeout of these runs.
constexpr int kTimeout = 3;
/// What an end may take beyond that: mpirun sends SIGKILL a second after its SIGTERM, and the machine may be busy.
constexpr double kSlack = 4.0;

struct Fault {
  std::string kind;  ///< as rank_fault.cc knows it
  int rank = 1;
  int ranks = 2;
  std::vector<std::string> options = {};
};

struct JobResult {
  int status = -1;
  std::string error;
  double seconds = 0.0;  ///< from the fault to the end of mpirun
};

/// Processes whose command line has `text` in it.
std::vector<pid_t> processes_with(const std::string& text) {
  std::vector<pid_t> found;
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator("/proc", failure)) {
    const std::string name = entry.path().filename().string();
    pid_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc() || end != name.data() + name.size() || number == ::getpid()) continue;
    if (contents_of(entry.path() / "cmdline").find(text) != std::string::npos) found.push_back(number);
  }
  return found;
}

class RankFaultsTest : public RefusalTest {
 protected:
  /// mpirun with lathe and `arguments`; `during` is called with mpirun's process number.
  JobResult run_job(int ranks, const std::vector<std::string>& arguments, const std::map<std::string, std::string>& variables,
                    const std::function<void(pid_t)>& during = {}) const {
    const auto out = folder_ / "stdout";
    const auto error = folder_ / "stderr";
    std::vector<std::string> words = {LATHE_MPIRUN, "-np", std::to_string(ranks)};
    for (const auto& [name, value] : variables) words.insert(words.end(), {"-x", fmt::format("{}={}", name, value)});
    words.emplace_back(LATHE_COMMAND);
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const auto begin = std::chrono::system_clock::now();
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("cannot fork");
    if (child == 0) {
      ::dup2(::open("/dev/null", O_RDONLY), 0);
      ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      ::dup2(::open(error.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      // What Open MPI shares between processes stays where a job ends like this: here it is cleared away with the test's folder.
      ::setenv("OMPI_MCA_btl_vader_backing_directory", folder_.path().c_str(), 1);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    if (during) during(child);
    int status = 0;
    constexpr int kLongest = 60'000;  // milliseconds
    int waited = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (++waited * 10 < kLongest) continue;
      ADD_FAILURE() << "the job hangs; it printed:\n" << contents_of(error);
      for (const pid_t left : processes_with(folder_.path().string())) ::kill(left, SIGKILL);
      ::waitpid(child, &status, 0);
      break;
    }
    const auto end = std::chrono::system_clock::now();
    struct stat mark = {};
    const bool marked = ::stat((folder_ / "mark").c_str(), &mark) == 0;
    const Seconds from =
        marked ? Seconds(static_cast<double>(mark.st_mtim.tv_sec) + 1e-9 * static_cast<double>(mark.st_mtim.tv_nsec))
               : Seconds(begin.time_since_epoch());
    return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            .error = contents_of(error),
            .seconds = (Seconds(end.time_since_epoch()) - from).count()};
  }

  /// Arguments of a run that ends by a fault, or by a signal, alone.
  std::vector<std::string> endless(std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--epochs", "1000000", "--lr", "0", "--threads", "1", "--device", "cpu", "--overwrite",
                             "--comm-timeout", std::to_string(kTimeout)});
    return finetune(std::move(more));
  }

  void expect_nobody_left() const {
    const std::vector<pid_t> left = processes_with(folder_.path().string());
    EXPECT_TRUE(left.empty()) << left.size() << " processes of the job are left";
    for (const pid_t process : left) ::kill(process, SIGKILL);
  }

  /// The lines that Lathe says are errors.
  static std::vector<std::string> errors(const std::string& output) {
    std::vector<std::string> found;
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("lathe: ")) found.push_back(line);
    }
    return found;
  }

  /// Runs a job to its fault, and expects what all faults have in common. Gives the line.
  std::string run_fault(const Fault& fault, int status = 1) const {
    fs::remove_all(folder_ / "run");
    fs::remove(folder_ / "mark");
    const JobResult result = run_job(fault.ranks, endless(fault.options),
                                     {{"LD_PRELOAD", LATHE_RANK_FAULT},
                                      {"LATHE_FAULT", fault.kind},
                                      {"LATHE_FAULT_RANK", std::to_string(fault.rank)},
                                      {"LATHE_FAULT_AFTER", path("run/model.safetensors")},
                                      {"LATHE_FAULT_MARK", path("mark")}});
    EXPECT_TRUE(fs::exists(folder_ / "mark")) << "the fault has not come to pass:\n" << result.error;
    EXPECT_LE(result.seconds, kTimeout + kSlack);
    expect_nobody_left();
    const std::vector<std::string> said = errors(result.error);
    EXPECT_EQ(said.size(), 1U) << result.error;
    EXPECT_NE(result.status, 0);
    EXPECT_TRUE(status == 0 || result.status == status) << result.status << ": " << result.error;
    expect_whole_model();
    fmt::print("{} of rank {}: ended {:.2f} s later: {}\n", fault.kind, fault.rank, result.seconds, said.empty() ? "" : said[0]);
    return said.empty() ? "" : said[0];
  }

  /// The model that was saved before is there, and `lathe inspect` reads all of it.
  void expect_whole_model() const {
    const CommandResult inspected = run_lathe(folder_.path(), {"inspect", path("run")});
    EXPECT_EQ(inspected.status, 0) << inspected.error;
    EXPECT_NE(SafetensorsFile::open(folder_ / "run" / "model.safetensors").find("classifier.weight"), nullptr);
  }

  static void expect_facts(const std::string& line, const std::vector<std::string>& facts) {
    EXPECT_LT(line.size(), 300U) << line;
    for (const std::string& fact : facts)
      EXPECT_NE(line.find(fact), std::string::npos) << "\"" << fact << "\" is missing in: " << line;
  }

  static int repeats() {
    const char* text = std::getenv("LATHE_FAULT_REPEATS");  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
    return text == nullptr ? 1 : std::atoi(text);           // NOLINT(cert-err34-c): zero where it is no number
  }

  static std::string host() {
    std::array<char, 256> name{};
    ::gethostname(name.data(), name.size() - 1);
    return fmt::format("(host {})", name.data());
  }
  static std::string rank(int number) { return fmt::format("lathe: rank {} {}", number, host()); }
};

TEST_F(RankFaultsTest, ARankThatExits) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "exit", .rank = 2, .ranks = 3, .options = {"--dev", "0.2"}}, 0);
    expect_facts(line, {rank(2) + " has ended without a word", "in step ", "; rank 0 waits in "});
  }
}

TEST_F(RankFaultsTest, ARankThatIsKilled) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "kill", .options = {"--dev", "0.2"}}, 0);
    expect_facts(line, {rank(1) + " has ended without a word", "in step ", "; rank 0 waits in "});
  }
}

TEST_F(RankFaultsTest, TheFirstRankIsKilled) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "kill", .rank = 0, .ranks = 3}, 0);
    expect_facts(line, {rank(0) + " has ended without a word", "; rank 1 waits in ", "in step "});
  }
}

TEST_F(RankFaultsTest, ARankThatIsStopped) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "stop"});
    expect_facts(line, {rank(1) + " has not been heard of for 3 s (--comm-timeout)", "in step ", "; rank 0 waits in "});
  }
}

TEST_F(RankFaultsTest, TheFirstRankIsStopped) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "stop", .rank = 0, .ranks = 3});
    expect_facts(line, {rank(0) + " has not been heard of for 3 s (--comm-timeout)", "; rank 1 waits in ", "in step "});
  }
}

TEST_F(RankFaultsTest, ARankThatComputesForever) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "compute"});
    expect_facts(
        line, {rank(1) + " has not come to ", "for 3 s (--comm-timeout), where rank 0 is in step ", "it is computing in step "});
  }
}

TEST_F(RankFaultsTest, ARankThatThrows) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "throw", .rank = 2, .ranks = 3});
    expect_facts(line, {rank(2) + ": a fault of Lathe: a planted failure; rank 0 waits in ", ", in step "});
  }
}

TEST_F(RankFaultsTest, AFullDisk) {
  for (int i = 0; i < repeats(); ++i) {
    const std::string line = run_fault({.kind = "full disk", .rank = 0}, 2);
    expect_facts(line, {rank(0), "model.safetensors: cannot write after ", "File too large; rank 1 waits in ", "in step "});
  }
}

/// A TCP socket that listens.
struct Listener {
  std::string address;  ///< as /proc/net/tcp has it: "0100007F" is 127.0.0.1
  std::uint16_t port = 0;
};

/// Those of processes whose command line has `text` in it.
std::vector<Listener> listeners_of(const std::string& text) {
  std::set<std::string> sockets;
  for (const pid_t process : processes_with(text)) {
    std::error_code failure;
    for (const fs::directory_entry& file : fs::directory_iterator(fmt::format("/proc/{}/fd", process), failure)) {
      const std::string target = fs::read_symlink(file.path(), failure).string();
      if (target.starts_with("socket:[")) sockets.insert(target.substr(8, target.size() - 9));
    }
  }
  std::vector<Listener> found;
  std::istringstream lines(contents_of("/proc/net/tcp") + contents_of("/proc/net/tcp6"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::string> fields;
    for (std::string word; words >> word;) fields.push_back(word);
    constexpr std::size_t kInode = 9;
    if (fields.size() <= kInode || fields[3] != "0A" || !sockets.contains(fields[kInode])) continue;
    const auto colon = fields[1].find(':');
    found.push_back({.address = fields[1].substr(0, colon),
                     .port = static_cast<std::uint16_t>(std::stoul(fields[1].substr(colon + 1), nullptr, 16))});
  }
  return found;
}

/// A connection to a port of this machine.
int connected_to(std::uint16_t port) {
  const int file = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(file, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const timeval patience = {.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return file;
}

void wait_until_there(const fs::path& file) {
  for (int i = 0; i < 2000 && !fs::exists(file); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(fs::exists(file)) << file;
}

TEST_F(RankFaultsTest, StrangersAreTurnedAwayAndChangeNothing) {
  const auto while_a_rank_is_late = [&](pid_t) {
    wait_until_there(folder_ / "mark");
    // mpirun has the ranks' command in its own command line, and ports of its own.
    const std::vector<Listener> all = listeners_of(path("model"));
    const std::vector<Listener> of_mpirun = listeners_of("LATHE_FAULT_MARK");
    std::vector<Listener> watchdogs;
    for (const Listener& each : all) {
      if (std::ranges::find(of_mpirun, each.port, &Listener::port) == of_mpirun.end()) watchdogs.push_back(each);
    }
    EXPECT_EQ(watchdogs.size(), 1U) << "rank 0 alone listens";
    for (const Listener& each : watchdogs) {
      EXPECT_EQ(each.address, "0100007F") << "not on this machine's loopback";
      const int silent = connected_to(each.port);
      for (const std::string& said : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(32, '0') + "\t1\n", std::string("\t1\n"),
                                      std::string(5000, 'x')}) {
        const int file = connected_to(each.port);
        static_cast<void>(::send(file, said.data(), said.size(), MSG_NOSIGNAL));
        char answer = 0;
        EXPECT_LE(::recv(file, &answer, 1, 0), 0) << "an answer to " << said.substr(0, 40);
        EXPECT_NE(errno, EAGAIN) << "the connection was left open after " << said.substr(0, 40);
        ::close(file);
      }
      write("go", "");
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      ::close(silent);
    }
    write("go", "");
  };
  const JobResult result = run_job(2, finetune({"--max-steps", "3", "--device", "cpu", "--threads", "1"}),
                                   {{"LD_PRELOAD", LATHE_RANK_FAULT},
                                    {"LATHE_FAULT", "late"},
                                    {"LATHE_FAULT_RANK", "1"},
                                    {"LATHE_FAULT_AFTER", path("model")},
                                    {"LATHE_FAULT_MARK", path("mark")},
                                    {"LATHE_FAULT_UNTIL", path("go")}},
                                   while_a_rank_is_late);
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_TRUE(errors(result.error).empty()) << result.error;
  expect_whole_model();
  expect_nobody_left();
}

TEST_F(RankFaultsTest, CtrlCEndsARunInOrder) {
  const auto interrupt = [&](pid_t mpirun) {
    wait_until_there(folder_ / "run" / "model.safetensors");
    ::kill(mpirun, SIGINT);
  };
  const JobResult result = run_job(2, endless(), {}, interrupt);
  EXPECT_NE(result.status, 0);
  EXPECT_NE(result.error.find("interrupted after step "), std::string::npos) << result.error;
  EXPECT_TRUE(errors(result.error).empty()) << result.error;
  expect_whole_model();
  expect_nobody_left();
}

TEST_F(RankFaultsTest, WhoIsLateAtTheStartIsNamed) {
  const auto begin = std::chrono::steady_clock::now();
  const JobResult result = run_job(2, finetune({"--device", "cpu", "--start-timeout", "2"}),
                                   {{"LD_PRELOAD", LATHE_RANK_FAULT},
                                    {"LATHE_FAULT", "late"},
                                    {"LATHE_FAULT_RANK", "1"},
                                    {"LATHE_FAULT_AFTER", path("model")},
                                    {"LATHE_FAULT_MARK", path("mark")},
                                    {"LATHE_FAULT_UNTIL", path("never")}});
  EXPECT_LE(Seconds(std::chrono::steady_clock::now() - begin).count(), 2 + kSlack);
  EXPECT_EQ(result.status, 1);
  const std::vector<std::string> said = errors(result.error);
  ASSERT_EQ(said.size(), 1U) << result.error;
  expect_facts(said[0], {"2 s after the start (--start-timeout) rank 1 " + host() + " has not joined"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  expect_nobody_left();
}

}  // namespace
}  // namespace lathe
