#!/usr/bin/env bash
# What a header declares is exported where the header is installed, and hidden where it is internal: its namespace says which.
# visibility_test.sh <source> <folder of the public headers> <folder>...
set -euo pipefail
source=$1
public=$2
shift 2

exported='namespace [[gnu::visibility("default")]] lathe {'
count=0
failed=0
for folder in "$@"; do
  for header in "$source/$folder"/*.h; do
    name=$folder/$(basename "$header")
    count=$((count + 1))
    if [ -e "$public/$name" ]; then
      if ! grep -qxF "$exported" "$header" || grep -qx 'namespace lathe.* {' "$header"; then
        echo "$name is listed in $folder/CMakeLists.txt as public; it must open its namespace by: $exported"
        failed=1
      fi
    elif grep -qF 'gnu::visibility' "$header"; then
      echo "$name exports what it declares, but lathe_public_headers() in $folder/CMakeLists.txt does not list it"
      failed=1
    fi
  done
done
[ "$count" -gt 50 ] || { echo "only $count headers in $source: is this the tree?"; failed=1; }
[ "$failed" -ne 0 ] || echo "$count headers agree with what is installed"
exit "$failed"
