// The `lathe` command.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <system_error>

#include "lathe/runtime/error.h"
#include "lathe/runtime/host_memory.h"
#include "lathe/training/results.h"
#include "tools/commands.h"
#include "tools/ranks.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"

namespace {

struct RunCommand {
  int operator()(int status) const { return status; }
  int operator()(const lathe::FinetuneOptions& options) const { return lathe::finetune_command(options); }
  int operator()(const lathe::PretrainOptions& options) const { return lathe::pretrain_command(options); }
  int operator()(const lathe::EvaluateOptions& options) const { return lathe::evaluate_command(options); }
  int operator()(const lathe::PredictOptions& options) const { return lathe::predict_command(options); }
  int operator()(const lathe::TokenizeOptions& options) const { return lathe::tokenize_command(options); }
  int operator()(const lathe::InspectOptions& options) const { return lathe::inspect_command(options); }
  int operator()(const lathe::CheckDataOptions& options) const { return lathe::check_data_command(options); }
  int operator()(const lathe::BenchOptions& options) const { return lathe::bench_command(options); }
};

}  // namespace

int main(int argc, char** argv) {
  lathe::open_standard_streams();
  try {
    const int status = std::visit(RunCommand{}, lathe::parse_command_line(argc, argv));
    lathe::flush_output();
    return status;
  } catch (const lathe::SaidElsewhere& end) {
    return end.status();
  } catch (const lathe::Error& failure) {
    lathe::print_error(failure.what());
    return failure.exit_status();
  } catch (const std::bad_alloc&) {
    constexpr double kMebibyte = 1 << 20;
    lathe::print_error(
        fmt::format("no memory left: {:.1f} MiB were used at most and {:.1f} MiB are free; use smaller batches "
                    "(--batch-size, --batch-tokens), a smaller --max-length or a smaller data file",
                    static_cast<double>(lathe::peak_memory_bytes()) / kMebibyte,
                    static_cast<double>(std::min(lathe::available_host_memory(), lathe::available_addresses())) / kMebibyte));
    return 2;
  } catch (const std::system_error& failure) {
    // A disk that is full, a folder that has gone: nothing that is wrong with Lathe.
    lathe::print_error(lathe::message_line(failure.what()));
    return 2;
  } catch (const std::exception& failure) {
    lathe::print_error("a fault of Lathe: " + lathe::message_line(failure.what()));
    return 1;
  }
}
