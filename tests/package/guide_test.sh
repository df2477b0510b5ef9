#!/usr/bin/env bash
# docs/writing-a-kernel.md, followed to the letter with the package that was moved: its files are built; emulated they run, and print what
# the page shows. Each file stands behind a line `<!-- file: NAME -->`, each output in a block without a language.
set -euo pipefail
: "${CMAKE:?}" "${GENERATOR:?}" "${CXX:?}" "${SOURCE:?}" "${WORK:?}" "${BACKEND:?}"
page=$SOURCE/docs/writing-a-kernel.md
project=$WORK/guide
rm -rf "$project"
mkdir -p "$project"
wrong() {
  echo "$*"
  exit 1
}
awk -v folder="$project/" '
  inside && /^```/ { inside = 0; close(file); next }
  inside { print > file; next }
  file && /^```/ { inside = 1; next }
  { file = "" }
  /^<!-- file: .* -->$/ { file = folder $3 }
' "$page"
for name in CMakeLists.txt rms_norm.h rms_norm.cu check.cc; do
  [ -s "$project/$name" ] || wrong "the page has no $name"
done
# shown: the blocks without a language.
shown=$(awk 'inside && /^```/ { inside = 0; next } inside == 1 { print } !inside && /^```/ { inside = $0 == "```" ? 1 : 2 }' "$page")

"$CMAKE" -S "$project" -B "$project/build" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror" \
  -DCMAKE_PREFIX_PATH="$WORK/moved" -DCMAKE_BUILD_TYPE=Release >"$project/configure.log" 2>&1 || wrong "$(tail -n 20 "$project/configure.log")"
build() { "$CMAKE" --build "$project/build" >"$project/build.log" 2>&1 || wrong "$(tail -n 40 "$project/build.log")"; }
# expect STATUS ARGUMENT...: check ends so, and the page shows each line of what it prints.
expect() {
  local wanted=$1 status=0 said line
  shift
  said=$("$project/build/check" "$@") || status=$?
  [ "$status" -eq "$wanted" ] || wrong "check $* ended with status $status: $said"
  while IFS= read -r line; do
    grep -qxF -- "$line" <<<"$shown" || wrong "the page doesn't show what check $* prints: $said"
  done <<<"$said"
}
build
if [ "$BACKEND" = emulated ]; then
  expect 0
  expect 0 profile
  # The faults that the page plants.
  sed -i 's/scratch\[r % 2\]/scratch[0]/' "$project/rms_norm.cu"
  build
  expect 3
  sed -i -e 's/scratch\[0\]/scratch[r % 2]/' -e 's/kRows = 32/kRows = 1/' "$project/rms_norm.cu"
  build
  said=$("$project/build/check" profile | sed -n 's/^gamma *\([0-9.]*\) % of.*/\1/p')
  grep -qF "gamma's line says
$said %" "$page" || wrong "with kRows = 1 gamma is $said % of x's bytes, and the page says something else"
fi
rm -rf "$project"
echo "the page holds ($BACKEND)"
