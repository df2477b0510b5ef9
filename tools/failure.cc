#include "tools/failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <system_error>

#include "lathe/runtime/error.h"
#include "lathe/runtime/host_memory.h"
#include "lathe/training/results.h"

namespace lathe {

Failure failure_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& failure) {
    return {.status = failure.exit_status(), .message = failure.what()};
  } catch (const std::bad_alloc&) {
    constexpr double kMebibyte = 1 << 20;
    return {.status = 2,
            .message = fmt::format("no memory left: {:.1f} MiB were used at most and {:.1f} MiB are free; use smaller batches "
                                   "(--batch-size, --batch-tokens), a smaller --max-length or a smaller data file",
                                   static_cast<double>(peak_memory_bytes()) / kMebibyte,
                                   static_cast<double>(std::min(available_host_memory(), available_addresses())) / kMebibyte)};
  } catch (const std::system_error& failure) {
    // A disk that is full, a folder that has gone: nothing that is wrong with Lathe.
    return {.status = 2, .message = message_line(failure.what())};
  } catch (const std::exception& failure) {
    return {.status = 1, .message = "a fault of Lathe: " + message_line(failure.what())};
  }
}

}  // namespace lathe
