// The `lathe` command.
#include <exception>
#include <span>
#include <string_view>
#include <variant>

#include "tools/commands.h"
#include "tools/failure.h"
#include "tools/ranks.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"
#include "tools/training_setup.h"

namespace {

/// Several processes train together; what only looks at something does so in each of them, and other commands are one's.
struct RunCommand {
  lathe::Ranks* ranks = nullptr;  ///< where the command trains

  int operator()(int status) const { return status; }
  int operator()(const lathe::FinetuneOptions& options) const { return lathe::finetune_command(options, *ranks); }
  int operator()(const lathe::PretrainOptions& options) const { return lathe::pretrain_command(options, *ranks); }
  int operator()(const lathe::EvaluateOptions& options) const {
    lathe::Ranks::refuse_several("evaluate");
    return lathe::evaluate_command(options);
  }
  int operator()(const lathe::PredictOptions& options) const {
    lathe::Ranks::refuse_several("predict");
    return lathe::predict_command(options);
  }
  int operator()(const lathe::TokenizeOptions& options) const { return lathe::tokenize_command(options); }
  int operator()(const lathe::InspectOptions& options) const { return lathe::inspect_command(options); }
  int operator()(const lathe::CheckDataOptions& options) const { return lathe::check_data_command(options); }
  int operator()(const lathe::BenchOptions& options) const {
    lathe::Ranks::refuse_several("bench");
    return lathe::bench_command(options);
  }
};

bool trains(const lathe::CommandLine& command) {
  return std::holds_alternative<lathe::FinetuneOptions>(command) || std::holds_alternative<lathe::PretrainOptions>(command);
}

lathe::WatchTimeouts timeouts_of(const lathe::CommandLine& command) {
  if (const auto* finetune = std::get_if<lathe::FinetuneOptions>(&command)) return lathe::watch_timeouts(*finetune);
  if (const auto* pretrain = std::get_if<lathe::PretrainOptions>(&command)) return lathe::watch_timeouts(*pretrain);
  return {};
}

/// A call that can't be parsed is refused by the ranks together, where it would have trained: it may be one rank's alone.
int run(std::span<char*> words) {
  lathe::CommandLine command;
  std::exception_ptr refused;
  try {
    command = lathe::parse_command_line(static_cast<int>(words.size()), words.data());
  } catch (...) {
    refused = std::current_exception();
  }
  const std::string_view name = words.size() > 1 ? words[1] : "";
  if (refused ? name != "finetune" && name != "pretrain" : !trains(command)) {
    if (refused) std::rethrow_exception(refused);
    return std::visit(RunCommand{}, command);
  }
  lathe::Ranks ranks(timeouts_of(command));
  return ranks.run([&] {
    if (refused) std::rethrow_exception(refused);
    return std::visit(RunCommand{.ranks = &ranks}, command);
  });
}

}  // namespace

int main(int argc, char** argv) {
  lathe::open_standard_streams();
  try {
    const int status = run({argv, static_cast<std::size_t>(argc)});
    lathe::flush_output();
    return status;
  } catch (const lathe::SaidElsewhere& end) {
    return end.status();
  } catch (...) {
    const lathe::Failure failure = lathe::failure_of(std::current_exception());
    lathe::print_error(failure.message);
    return failure.status;
  }
}
