#pragma once
// How much memory this process may still have.
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

/// Bytes that this process can still make use of: what Linux calls available, with free swap, or what its control group leaves where that
/// is less. The greatest number where the system doesn't tell.
std::int64_t available_host_memory();

/// Bytes of addresses that this process can still take under its limit (ulimit -v); the greatest number where there is none.
std::int64_t available_addresses();

}  // namespace lathe
