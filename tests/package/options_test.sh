#!/usr/bin/env bash
# Options that can't be met end in one line that says why.
set -euo pipefail
: "${CMAKE:?}" "${GENERATOR:?}" "${CXX:?}" "${SOURCE:?}" "${WORK:?}"
failed=0
# refused OPTION TEXT [OPTION...]
refused() {
  rm -rf "$WORK/options"
  if "$CMAKE" -S "$SOURCE" -B "$WORK/options" -G "$GENERATOR" -DCMAKE_CXX_COMPILER="$CXX" "$1" "${@:3}" >"$WORK/options.log" 2>&1; then
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
refused -DLATHE_MPI=maybe "LATHE_MPI is 'maybe'; it must be AUTO, ON or OFF"
refused -DLATHE_MPI=ON "LATHE_MPI=ON, but no MPI 3 was found: install libopenmpi-dev, or set MPI_CXX_COMPILER to an MPI's mpicxx" -DMPI_CXX_COMPILER=/nowhere/mpicxx
refused -DLATHE_TESTS=maybe "LATHE_TESTS is 'maybe'; it must be AUTO, ON or OFF"
refused -DLATHE_MATMUL=BLAS "LATHE_MATMUL is 'BLAS'; it must be AUTO, ONEDNN or EIGEN"

# An nvcc that is too old, which isn't here to be called: what is looked at is the version that CMake found.
cat >"$WORK/old_nvcc.cmake" <<EOF
set(CMAKE_CUDA_COMPILE_OBJECT found)
set(CMAKE_CUDA_COMPILER /usr/local/cuda-11.8/bin/nvcc)
set(CMAKE_CUDA_COMPILER_VERSION 11.8.89)
include("$SOURCE/cmake/LatheKernel.cmake")
lathe_enable_cuda()
EOF
if "$CMAKE" -P "$WORK/old_nvcc.cmake" >"$WORK/options.log" 2>&1; then
  echo "an nvcc of CUDA 11.8 was accepted"
  failed=1
elif ! grep -qF "Lathe needs nvcc 12 or later; found 11.8.89 (/usr/local/cuda-11.8/bin/nvcc): set CUDACXX to a newer one" <<<"$(tr -s ' \n' '  ' <"$WORK/options.log")"; then
  echo "an nvcc of CUDA 11.8 should have been named"
  cat "$WORK/options.log"
  failed=1
fi
rm -rf "$WORK/options" "$WORK/old_nvcc.cmake"
exit "$failed"
