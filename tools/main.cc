// The `lathe` command.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <new>

#include "lathe/runtime/error.h"
#include "tools/commands.h"

namespace {

struct RunCommand {
  int operator()(int status) const { return status; }
  int operator()(const lathe::FinetuneOptions& options) const { return lathe::finetune_command(options); }
  int operator()(const lathe::EvaluateOptions& options) const { return lathe::evaluate_command(options); }
  int operator()(const lathe::PredictOptions& options) const { return lathe::predict_command(options); }
  int operator()(const lathe::TokenizeOptions& options) const { return lathe::tokenize_command(options); }
  int operator()(const lathe::InspectOptions& options) const { return lathe::inspect_command(options); }
  int operator()(const lathe::CheckDataOptions& options) const { return lathe::check_data_command(options); }
};

}  // namespace

int main(int argc, char** argv) {
  try {
    return std::visit(RunCommand{}, lathe::parse_command_line(argc, argv));
  } catch (const lathe::Error& failure) {
    fmt::print(stderr, "lathe: {}\n", failure.what());
    return failure.exit_status();
  } catch (const std::bad_alloc&) {
    fmt::print(stderr,
               "lathe: the system has no memory left; use a smaller --batch-size or --max-length, or a smaller data file\n");
    return 2;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "lathe: a fault of Lathe: {}\n", lathe::printable(failure.what()));
    return 1;
  }
}
