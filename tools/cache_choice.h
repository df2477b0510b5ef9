#pragma once
// Where tokens are kept from one run to the next.
#include <memory>
#include <optional>
#include <string>

#include "lathe/training/token_cache.h"
#include "tools/options.h"

namespace lathe {

/// The cache that a command uses: the folder `asked` for (--cache-dir), else $LATHE_CACHE, where "none" is none. Where neither says, a process
/// alone has none, and the processes of a job that share a host, so many of them, have one in $XDG_CACHE_HOME/lathe/tokens, else
/// ~/.cache/lathe/tokens. Null for none. What it has to say goes to standard error. Throws UsageError for an empty name.
std::unique_ptr<TokenCache> choose_token_cache(const std::optional<std::string>& asked, int processes_of_host,
                                               TokenCacheOptions::Use use = TokenCacheOptions::Use::read_and_write);

/// A dry run writes nothing, and takes what is there.
inline TokenCacheOptions::Use cache_use(const TrainingOptions& options) {
  return options.dry_run ? TokenCacheOptions::Use::read_only : TokenCacheOptions::Use::read_and_write;
}

/// The threads that texts are tokenized with, of a process that has `own`: where there is a cache it does that for all of its host's, which wait for it
/// meanwhile, so that it takes their processors too, unless it was told how many.
int tokenizing_threads(const RunningOptions& running, int own, const TokenCache* cache);

}  // namespace lathe
