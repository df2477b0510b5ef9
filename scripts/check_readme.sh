#!/usr/bin/env bash
# check_readme.sh FILE: runs the shell blocks of a Markdown file that are marked to be run, in order, in the repository's
# root. A block is marked by the line before its fence:
#   <!-- run by ./run_tests --all -->
#   ```sh
# Blocks with mpirun are passed over where there is none. Exits 1 where a block fails, or where no block is marked.
set -euo pipefail
file=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What Open MPI asks for as root, in a container and with fewer cores than ranks (docs/distributed.md): a reader who has none of these types
# mpirun's line as it stands.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# Nothing that a check starts listens beyond this machine.
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_plm=isolated OMPI_MCA_oob_tcp_if_include=lo PMIX_MCA_ptl_tcp_if_include=lo

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
  if grep -qw mpirun "$script" && ! command -v mpirun >/dev/null; then
    echo "$file:$line: passed over, as there is no mpirun here"
    continue
  fi
  sed 's/^/$ /' "$script"
  if ! bash -euo pipefail "$script" </dev/null; then
    echo "$file:$line: these commands failed" >&2
    exit 1
  fi
done
