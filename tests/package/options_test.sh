#!/usr/bin/env bash
# Options that can't be met end in one line that says why.
set -euo pipefail
: "${CMAKE:?}" "${GENERATOR:?}" "${CXX:?}" "${SOURCE:?}" "${WORK:?}"
failed=0
# refused OPTION TEXT
refused() {
  rm -rf "$WORK/options"
  if "$CMAKE" -S "$SOURCE" -B "$WORK/options" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" "$1" >"$WORK/options.log" 2>&1; then
    echo "$1 was accepted"
    failed=1
  elif ! grep -qF "$2" <<<"$(tr -s ' \n' '  ' <"$WORK/options.log")" || [ "$(grep -c 'CMake Error' "$WORK/options.log")" -ne 1 ]; then
    echo "$1 should have said, once: $2"
    cat "$WORK/options.log"
    failed=1
  fi
}
CUDACXX=/nowhere/nvcc refused -DLATHE_CUDA=ON "Lathe's CUDA backend was asked for, but nvcc was not found: install the CUDA toolkit, 12 or later, or set CUDACXX to its nvcc"
refused -DLATHE_CUDA=maybe "LATHE_CUDA is 'maybe'; it must be AUTO, ON, OFF or EMULATED"
refused -DLATHE_MPI=ON "LATHE_MPI=ON, but this version of Lathe has no MPI backend"
refused -DLATHE_TESTS=maybe "LATHE_TESTS is 'maybe'; it must be AUTO, ON or OFF"
refused -DLATHE_MATMUL=BLAS "LATHE_MATMUL is 'BLAS'; it must be AUTO, ONEDNN or EIGEN"
rm -rf "$WORK/options"
exit "$failed"
