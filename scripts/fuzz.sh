#!/usr/bin/env bash
# Gives each fuzz target its corpus and RUNS further inputs, one target after the other, and prints a line for each.
#
# usage: scripts/fuzz.sh RUNS [TARGET...]   (default: all; build them first: cmake --preset fuzz && cmake --build --preset fuzz)
#
# build/fuzz/logs has what libFuzzer printed; build/fuzz/grown the inputs that reached new code, from which the next call goes
# on; build/fuzz/findings the inputs that broke something. The same RUNS from the same state are the same inputs.
# Exit status: 0; 1 where a target broke; 2 for a misuse.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-}
if ! [[ $runs =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: scripts/fuzz.sh RUNS [TARGET...]" >&2
  exit 2
fi
shift
build=build/fuzz
[ $# -gt 0 ] || mapfile -t names < <(cd tests/fuzz/corpus && printf '%s\n' *)
[ $# -eq 0 ] || names=("$@")
mkdir -p "$build/logs" "$build/findings"
# Inputs are small: 16 MB of freed memory are many of them, and stay in the cache.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

status=0
for name in "${names[@]}"; do
  program=$build/tests/fuzz/fuzz_$name
  if [ ! -x "$program" ]; then
    echo "scripts/fuzz.sh: $program is not there; cmake --build --preset fuzz builds it, if tests/fuzz has it" >&2
    exit 2
  fi
  log=$build/logs/$name.log
  # Tokenizing takes time with each character, and nothing in it depends on many.
  longest=2048
  case "$name" in documents | wordpiece) longest=512 ;; esac
  mkdir -p "$build/grown/$name"
  verdict="no findings"
  started=$SECONDS
  "$program" -runs="$runs" -seed=1 -max_len=$longest -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -dict="tests/fuzz/dictionaries/$name.dict" -artifact_prefix="$build/findings/$name-" \
    "$build/grown/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1 || verdict="FOUND something, see $log"
  [ "$verdict" = "no findings" ] || status=1
  awk -v name="$name" -v seconds="$((SECONDS - started))" -v verdict="$verdict" '
    match($0, /cov: [0-9]+/) { edges = substr($0, RSTART + 5, RLENGTH - 5) }
    /^stat::number_of_executed_units:/ { inputs = $2 }
    /^stat::peak_rss_mb:/ { memory = $2 }
    END {
      printf "%-16s %9d inputs %6d s %7d/s %6d edges %5d MB  %s\n", name, inputs, seconds, seconds ? inputs / seconds : inputs, edges,
        memory, verdict
    }' "$log"
  [ "$verdict" = "no findings" ] || grep -v -e ' pulse ' -e ' NEW ' -e ' REDUCE ' "$log" | tail -n 40 >&2
done
exit "$status"
