# shellcheck shell=bash
# For the tests of the shell side: a machine made of stand-ins. Commands run with a PATH that holds the basic tools and the
# stand-ins alone, so that nothing is installed, built or downloaded.
set -uo pipefail

# shellcheck disable=SC2034  # for the tests
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0
# The interpreter itself: what is called python3 may be a script that needs more of its machine.
python=$(python3 -c 'import sys; print(sys.executable)')

# new_machine: an empty folder of stand-ins, beside the tools that any Linux has.
new_machine() {
  local tool path
  rm -rf "$scratch/machine"
  mkdir -p "$scratch/machine/bin" "$scratch/machine/tools"
  for tool in awk basename bash cat chmod cp cut date dirname env false grep head id kill ls mkdir mktemp mv realpath rm \
    script sed sh sleep sort tail tr true uname; do
    if path=$(type -P "$tool"); then
      ln -s "$path" "$scratch/machine/tools/$tool"
    fi
  done
  ln -s "$python" "$scratch/machine/tools/python3"
}

# stand_in NAME: its script is read from standard input. It can note its call by `note ...`.
stand_in() {
  {
    printf '#!/usr/bin/env bash\nnote() { printf "%%s\\n" "$*" >>"%s/calls"; }\n' "$scratch"
    cat
  } >"$scratch/machine/bin/$1"
  chmod +x "$scratch/machine/bin/$1"
}

# on_machine COMMAND...: runs it there; $status, $scratch/out (standard output), $scratch/err and $scratch/calls.
on_machine() {
  : >"$scratch/calls"
  status=0
  PATH="$scratch/machine/bin:$scratch/machine/tools" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
}

wrong() {
  printf 'FAILED %s: %s\n' "$case_name" "$*"
  sed 's/^/    /' "$scratch/out" "$scratch/err" 2>/dev/null
  failures=$((failures + 1))
}
expect_status() { [ "$status" -eq "$1" ] || wrong "status $status, expected $1"; }
# expect_in FILE TEXT: FILE is out, err or calls.
expect_in() { grep -qF -- "$2" "$scratch/$1" || wrong "'$2' is not in $1"; }
expect_not_in() { ! grep -qF -- "$2" "$scratch/$1" || wrong "'$2' is in $1"; }
expect_lines() { [ "$(wc -l <"$scratch/$1")" -eq "$2" ] || wrong "$1 has $(wc -l <"$scratch/$1") lines, expected $2"; }

# begin NAME: what follows belongs to this case.
begin() {
  case_name=$1
  new_machine
}
finish() {
  [ "$failures" -eq 0 ] || exit 1
  echo "all cases passed"
}
