#!/usr/bin/env bash
# Somebody else's project with a kernel of its own (tests/kernel_consumer): lathe_add_kernel from the package that was moved, or with
# "subdirectory" from Lathe as a part of that project ("configure" only asks CMake). For CUDA it is compiled and linked; emulated, it runs.
# kernel_test.sh [subdirectory | configure]
set -euo pipefail
: "${CMAKE:?}" "${GENERATOR:?}" "${CXX:?}" "${SOURCE:?}" "${WORK:?}" "${BACKEND:?}"
mode=${1:-package}
project=$WORK/kernel_$mode
rm -rf "$project"
mkdir -p "$project"
wrong() {
  echo "$*"
  exit 1
}

options=()
if [ "$mode" = package ]; then
  # Each device header that is installed compiles alone.
  headers=
  for path in "$WORK"/moved/include/lathe/kernels/device/*; do
    name=$(basename "$path")
    printf '#include <lathe/kernels/device/%s>\n' "$name" >"$project/${name//./_}.cu"
    headers="$headers$project/${name//./_}.cu;"
  done
  [ "$(tr -cd ';' <<<"$headers" | wc -c)" -gt 10 ] || wrong "few device headers are installed: $headers"
  options=(-DCMAKE_PREFIX_PATH="$WORK/moved" -DHEADERS="${headers%;}")
else
  cuda=ON
  [ "$BACKEND" = cuda ] || cuda=EMULATED
  options=(-DLATHE_SOURCE="$SOURCE" -DLATHE_CUDA="$cuda" -DCMAKE_BUILD_TYPE=Release)
fi
"$CMAKE" -S "$SOURCE/tests/kernel_consumer" -B "$project" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror" \
  "${options[@]}" >"$project/configure.log" 2>&1 || wrong "$(tail -n 20 "$project/configure.log")"
[ "$mode" != configure ] || exit 0
if [ "$mode" = package ]; then
  grep -qF "$WORK/moved/" <<<"$(grep '^lathe_DIR:' "$project/CMakeCache.txt")" || wrong "another lathe was found"
fi
targets=(scale)
[ "$mode" != package ] || targets+=(headers)
"$CMAKE" --build "$project" --target "${targets[@]}" >"$project/build.log" 2>&1 || wrong "$(tail -n 40 "$project/build.log")"

status=0
said=$("$project/scale") || status=$?
case "$BACKEND/$status" in
  emulated/0) grep -qF 'scaled on emulated' <<<"$said" || wrong "it says: $said" ;;
  cuda/0 | cuda/77) echo "$said" ;;
  *) wrong "scale ended with status $status: $said" ;;
esac
if [ "$BACKEND" = emulated ]; then
  status=0
  said=$("$project/scale" fault) || status=$?
  [ "$status" -eq 3 ] || wrong "a host pointer in the kernel went unseen: status $status, $said"
  for name in 'scale_kernel' 'scale\.cu:[0-9]'; do
    grep -q "$name" <<<"$said" || wrong "the fault does not name $name: $said"
  done
fi
rm -rf "$project"
echo "built from the $mode"
