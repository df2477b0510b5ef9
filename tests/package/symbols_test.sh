#!/usr/bin/env bash
# The library never ends the program, prints nothing, and keeps no state in globals: seen in what its archives call and define.
# symbols_test.sh <nm> <objdump> <archive>...
set -euo pipefail
export LC_ALL=C
nm=$1
objdump=$2
shift 2
failed=0

# report WHAT PATTERN: the lines of standard input that match are an offence.
report() {
  local found
  if found=$(grep -E "$2"); then
    printf '%s:\n%s\n' "$1" "$found"
    failed=1
  fi
}
# expect NAME LINES: were the tools' output misread, what is surely there would not be found either.
expect() {
  if ! grep -qxF "$1" <<<"$2"; then
    echo "$1 is not found: are these the archives of the library?"
    failed=1
  fi
}

called=$("$nm" --undefined-only --format=posix "$@" | awk '$2 == "U" { print $1 }' | sort -u)
expect __cxa_throw "$called"
report "the library ends the program" '^(_?exit|_Exit|quick_exit|abort|raise|kill)$' <<<"$called"
report "the library prints" '^(v?f?printf|v?dprintf|f?puts|f?putc|putchar|perror|stdout|stderr|__(v?f?printf|v?dprintf)_chk|_ZSt4c(out|err)|_ZSt4clog|_ZN3fmt.*[0-9]v?print.*)$' <<<"$called"

# Variables: objects in .data, .bss and their thread-local kin. Constants that hold addresses are in .data.rel.ro, or, as g++ 12 has it
# for arrays of pairs, in .data.rel under a constant's name. Two are made at their first use and never change after: the tables of
# Unicode, and the name and version of the library that multiplies matrices.
variables=$("$objdump" --syms "$@" | awk -F '\t' '
  split($1, left, " ") {
    section = left[length(left)]
    count = split($2, right, " ")
    name = right[count]
    if (section !~ /^\.t?(data|bss)(\.|$)/ || section ~ /^\.data\.rel\.ro/ || count < 2 || right[1] ~ /^0+$/ || name ~ /^DW\.ref\./) next
    if (section ~ /^\.data\.rel/ && name ~ /L[0-9]+k[A-Z][A-Za-z]*E$/) next
    print name
  }' | sort -u)
tables=_ZZN5lathe7Unicode6tablesEvE7unicode
expect "$tables" "$variables"
report "the library keeps state in a global" . < <(
  grep -vxE "$tables|_ZGVZN5lathe7Unicode6tablesEvE7unicode|_Z(GVZ|Z)N5lathe11MatmulPlans7libraryEvE4text" <<<"$variables"
)

[ "$failed" -ne 0 ] || echo "$# archives: no exit, no output, no state"
exit "$failed"
