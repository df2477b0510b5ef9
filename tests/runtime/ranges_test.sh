#!/usr/bin/env bash
# Kernels and the tape's entries are ranges to a profiler, each begun and ended: seen by a library in a profiler's place, without a GPU.
# ranges_test.sh <listener> <test_runtime> <test_kernels_elementwise>
set -euo pipefail
export NVTX_INJECTION64_PATH=$1
# names PROGRAM FILTER: the ranges of these tests, sorted.
names() {
  local said
  said=$("$1" --gtest_filter="$2")
  [ "$(grep -c '^range begins' <<<"$said")" -eq "$(grep -c '^range ends' <<<"$said")" ] || { echo "ranges are begun and not ended: $said" >&2; exit 1; }
  sed -n 's/^range begins: //p' <<<"$said" | sort -u
}
entries=$(names "$2" 'TapeTest.*')
[ "$(wc -l <<<"$entries")" -ge 2 ] || { echo "the tape's entries are no ranges: $entries"; exit 1; }
kernels=$(names "$3" 'LayerNormRows.*')
[ "$kernels" = layernorm_forward ] || { echo "the kernel that is refused is the range: $kernels"; exit 1; }
echo "ranges: $(tr '\n' ' ' <<<"$entries") and $kernels"
