#!/usr/bin/env bash
# clang-tidy over the whole tree. A file that passed isn't read again until it, a header of the project that it includes,
# the checks or clang-tidy itself change: build/tidy holds a stamp for each state that passed.
#
# usage: scripts/tidy.sh [FOLDER|FILE...]   (default: every .cc that build/cpu compiles, which must be configured, and the fuzz targets)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamps=build/tidy

# state FILE: a hash of all that decides about it.
state() {
  local includes
  includes=$(clang++ -MM -MG -std=c++20 -I build/cpu/include -I . "$1" | tr -d '\\\n')
  # shellcheck disable=SC2086
  {
    clang-tidy --version
    # With -MG the list names headers outside of these folders as well, without a path.
    cat .clang-tidy ${includes#*:} 2>/dev/null || true
  } | sha256sum | cut -d ' ' -f 1
}

if [ "${1:-}" = --one ]; then
  stamp=$stamps/$(state "$2")
  [ -e "$stamp" ] && exit
  if ! findings=$(clang-tidy -p "$stamps" --quiet "$2" 2>&1); then
    grep -v 'warnings generated\.$' <<<"$findings"
    exit 1
  fi
  printf '%s\n' "$2" >"$stamp"
  exit
fi

mkdir -p "$stamps"
# Kernels are compiled for two instruction sets; what clang-tidy has to say is the same for both.
awk '
  /^{/ { entry = "" }
  { entry = entry "\n" $0 }
  /^  "file":/ { file = $0 }
  /^}/ && !seen[file]++ { sub(/,$/, "", entry); printf "%s%s", count++ ? "," : "[", entry }
  END { print "\n]" }' build/cpu/compile_commands.json >"$stamps/compile_commands.json"
# The fuzz targets aren't part of build/cpu; clang-tidy takes the command of a file that lies near.
{
  sed -n "s|^  \"file\": \"$PWD/\(.*\)\"\$|\1|p" "$stamps/compile_commands.json"
  printf '%s\n' tests/fuzz/*.cc
} | grep -E "^($(IFS='|' && printf '%s' "$*"))" | tr '\n' '\0' | xargs -0 -r -n 1 -P "$(nproc)" "$0" --one
