#!/usr/bin/env bash
# The CPU kernels are compiled twice, and the linker keeps one of two weak symbols of the same name: were there one in common,
# AVX-512 code could end up where AVX2 was chosen. So no global symbol may be defined in objects of both instruction sets, and no
# instruction of AVX-512 may stand in those of v3.
# targets_test.sh <nm> <objdump> <object of v3>... -- <object of v4>...
set -euo pipefail
export LC_ALL=C
nm=$1
objdump=$2
shift 2

v3=()
while (($#)) && [[ $1 != -- ]]; do
  v3+=("$1")
  shift
done
shift
v4=("$@")
if ((${#v3[@]} == 0 || ${#v3[@]} != ${#v4[@]})); then
  echo "found ${#v3[@]} objects of v3 and ${#v4[@]} of v4; expected as many of each" >&2
  exit 1
fi

failed=0

# DW.ref.* are pointers to the personality routine, data that is the same for every instruction set; __clang_call_terminate, to which
# clang goes where an exception leaves a noexcept function, is two calls.
defined() { "$nm" --defined-only --extern-only --format=posix "$@" | awk 'NF > 1 && $1 !~ /^DW\.ref\./ && $1 != "__clang_call_terminate" {print $1}' | sort -u; }
common=$(comm -12 <(defined "${v3[@]}") <(defined "${v4[@]}"))
if [[ -n $common ]]; then
  echo "defined in objects of v3 and of v4:" >&2
  c++filt <<<"$common" >&2
  failed=1
fi

# Registers that only AVX-512 has: zmm, the upper sixteen of xmm and ymm, and the masks. The first three uses are shown.
wide_registers() {
  "$objdump" --disassemble --no-show-raw-insn "$@" | awk '/%(zmm|[xy]mm(1[6-9]|2[0-9]|3[01])|k[0-7])/ && ++n <= 3'
}
for object in "${v3[@]}"; do
  uses=$(wide_registers "$object")
  if [[ -n $uses ]]; then
    printf 'AVX-512 in %s:\n%s\n' "$object" "$uses" >&2
    failed=1
  fi
done

# Were the pattern or the disassembly at fault, nothing would be found in v4 either.
if [[ -z $(wide_registers "${v4[@]}") ]]; then
  echo "no AVX-512 in the objects of v4" >&2
  failed=1
fi

((failed == 0)) && echo "${#v3[@]} objects each: nothing in common, no AVX-512 in v3"
exit $failed
