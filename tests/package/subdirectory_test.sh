#!/usr/bin/env bash
# Lathe as a part of another project (tests/consumer with LATHE_SOURCE): it brings its targets, and changes nothing else there.
# subdirectory_test.sh [build]: "build" compiles Lathe there, and builds and runs the programs.
set -euo pipefail
: "${CMAKE:?}" "${GENERATOR:?}" "${CXX:?}" "${SOURCE:?}" "${WORK:?}"
project=$WORK/parent
rm -rf "$project"
"$CMAKE" -S "$SOURCE/tests/consumer" -B "$project" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" -DLATHE_SOURCE="$SOURCE" \
  -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >"$WORK/parent.log"

wrong() {
  echo "$*"
  exit 1
}
value() { sed -n "s/^$1:[A-Z]*=//p" "$project/CMakeCache.txt"; }
[ -z "$(value CMAKE_BUILD_TYPE)" ] || wrong "the parent's build type became $(value CMAKE_BUILD_TYPE)"
[ -z "$(value BUILD_SHARED_LIBS)$(value BUILD_TESTING)" ] || wrong "the parent's BUILD_SHARED_LIBS or BUILD_TESTING was set"
commands=$(sed -n 's/.*"command": "\(.*\)",/\1/p' "$project/compile_commands.json")
own=$(grep -F "$SOURCE/tests/consumer/kernels.cc" <<<"$commands")
if grep -E -- '-W|-O|-march|-fvisibility|-fopenmp' <<<"$own"; then
  wrong "the parent's sources are compiled with Lathe's options"
fi
if grep -F "$SOURCE/tools/" <<<"$commands" || grep -F "$SOURCE/tests/runtime/" <<<"$commands"; then
  wrong "the command or the tests are built, which nobody asked for"
fi
grep -qF "$SOURCE/runtime/tape.cc" <<<"$commands" || wrong "Lathe is not built"
"$CMAKE" --install "$project" --prefix "$WORK/parent-installed" >"$WORK/parent-install.log"
[ ! -e "$WORK/parent-installed" ] || wrong "the parent installs Lathe, which nobody asked for"

if [ "${1:-}" = build ]; then
  "$CMAKE" "$project" -DCMAKE_BUILD_TYPE=Release >"$WORK/parent.log"
  "$CMAKE" --build "$project" >"$WORK/parent-build.log" || wrong "$(tail -n 40 "$WORK/parent-build.log")"
  cd "$project"
  for program in kernels runtime layers optim checkpoint text training lathe; do
    "./uses_$program" || wrong "uses_$program ended with status $?"
  done
fi
rm -rf "$project"
