#!/usr/bin/env bash
# check_readme.sh FILE: runs the shell blocks of a Markdown file that are marked to be run, in order, in the repository's
# root. A block is marked by the line before its fence:
#   <!-- run by ./run_tests --all -->
#   ```sh
# Exits 1 where a block fails, or where no block is marked.
set -euo pipefail
file=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Each marked block becomes a script named after its line.
awk -v folder="$work" '
  inside && /^```/ { inside = 0; close(script); next }
  inside { print >> script; next }
  marked && /^```sh$/ { inside = 1; script = sprintf("%s/%06d", folder, FNR); printf "" > script; marked = 0; next }
  { marked = /^<!-- run by \.\/run_tests --all -->$/ }
' "$file"

shopt -s nullglob
scripts=("$work"/*)
if [ ${#scripts[@]} -eq 0 ]; then
  echo "$file: no block is marked '<!-- run by ./run_tests --all -->'" >&2
  exit 1
fi
for script in "${scripts[@]}"; do
  line=$((10#$(basename "$script")))
  sed 's/^/$ /' "$script"
  if ! bash -euo pipefail "$script" </dev/null; then
    echo "$file:$line: these commands failed" >&2
    exit 1
  fi
done
