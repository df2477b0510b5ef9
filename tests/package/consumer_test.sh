#!/usr/bin/env bash
# Somebody else's project (tests/consumer) finds the package that was moved, builds with it and runs.
set -euo pipefail
: "${CMAKE:?}" "${GENERATOR:?}" "${CXX:?}" "${SOURCE:?}" "${WORK:?}" "${KIND:?}" "${READELF:?}"
project=$WORK/consumer
rm -rf "$project"
"$CMAKE" -S "$SOURCE/tests/consumer" -B "$project" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror" \
  -DCMAKE_PREFIX_PATH="$WORK/moved" >"$WORK/consumer.log"
found=$(grep "^lathe_DIR:" "$project/CMakeCache.txt")
grep -qF "$WORK/moved/" <<<"$found" || { echo "another lathe was found: $found"; exit 1; }
"$CMAKE" --build "$project" --verbose >"$WORK/consumer-build.log" || { cat "$WORK/consumer-build.log"; exit 1; }

cd "$project"
for program in kernels runtime layers optim checkpoint text training lathe; do
  "./uses_$program" || { echo "uses_$program ended with status $?"; exit 1; }
done

# What a program links: with the shared library that one alone; private libraries stay private.
if [ "$KIND" = shared ]; then
  links=$(grep -E -- ' -o uses_training( |$)' "$WORK/consumer-build.log")
  grep -q 'liblathe\.so' <<<"$links" || { echo "no command that links liblathe.so: $links"; exit 1; }
  if grep -E 'fmt|dnnl|utf8proc|gomp|openmp|Eigen|json' <<<"$links"; then
    echo "a private library is on the consumer's link line"
    exit 1
  fi
  needed=$("$READELF" -d uses_training | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  if grep -vE '^(liblathe|libstdc\+\+|libgcc_s|libm|libc)\.so\.[0-9.]+$' <<<"$needed"; then
    echo "a consumer asks for these libraries itself"
    exit 1
  fi
fi

# A component that doesn't exist, and a version that isn't compatible, are refused.
mkdir -p "$project/refused"
refuse() { # ARGUMENTS-OF-FIND_PACKAGE TEXT
  printf 'cmake_minimum_required(VERSION 3.22)\nproject(refused LANGUAGES CXX)\nfind_package(lathe %s REQUIRED)\n' "$1" >"$project/refused/CMakeLists.txt"
  if "$CMAKE" -S "$project/refused" -B "$project/refused/build" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_PREFIX_PATH="$WORK/moved" >"$WORK/refused.log" 2>&1; then
    echo "find_package(lathe $1 REQUIRED) was accepted"
    exit 1
  fi
  grep -qF "$2" "$WORK/refused.log" || { cat "$WORK/refused.log"; exit 1; }
}
refuse "0.1 COMPONENTS juggling" "juggling"
refuse "0.2" 'requested version "0.2"'
echo "built and run"
