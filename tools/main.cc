// The `lathe` command.
#include <exception>
#include <new>
#include <string>

#include "lathe/runtime/error.h"
#include "tools/commands.h"
#include "tools/terminal.h"

namespace {

struct RunCommand {
  int operator()(int status) const { return status; }
  int operator()(const lathe::FinetuneOptions& options) const { return lathe::finetune_command(options); }
  int operator()(const lathe::EvaluateOptions& options) const { return lathe::evaluate_command(options); }
  int operator()(const lathe::PredictOptions& options) const { return lathe::predict_command(options); }
};

}  // namespace

int main(int argc, char** argv) {
  try {
    return std::visit(RunCommand{}, lathe::parse_command_line(argc, argv));
  } catch (const lathe::Error& failure) {
    lathe::print_error(failure.what());
    return failure.exit_status();
  } catch (const std::bad_alloc&) {
    lathe::print_error("the system has no memory left; use a smaller --batch-size or --max-length, or a smaller data file");
    return 2;
  } catch (const std::exception& failure) {
    lathe::print_error("a fault of Lathe: " + lathe::printable(failure.what()));
    return 1;
  }
}
