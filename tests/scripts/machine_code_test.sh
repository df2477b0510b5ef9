#!/usr/bin/env bash
# scripts/machine_code.py finds the faults that are planted in kernels, and none in sound ones. Needs nvcc.
#
# usage: machine_code_test.sh NVCC
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
nvcc=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# compile NAME: standard input as NAME.cu, to NAME.cu.o.
compile() {
  cat >"$work/$1.cu"
  "$nvcc" -std=c++20 -O3 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
    -gencode arch=compute_80,code=compute_80 -c "$work/$1.cu" -o "$work/$1.cu.o"
}
# expect STATUS TEXT OBJECT...: --check ends so and says so.
expect() {
  local status=0 wanted=$1 text=$2 said
  shift 2
  said=$(python3 "$root/scripts/machine_code.py" --check "$@") || status=$?
  if [ "$status" -ne "$wanted" ] || ! grep -qF "$text" <<<"$said"; then
    echo "expected status $wanted and '$text', got $status and: $said" >&2
    exit 1
  fi
}

compile sound <<'CUDA'
template <class T, int kWidth>
__global__ void __launch_bounds__(128) copy_kernel(float4* y, const float4* x) { y[threadIdx.x] = x[threadIdx.x]; }
template __global__ void copy_kernel<float, 4>(float4*, const float4*);
CUDA
compile local <<'CUDA'
__global__ void __launch_bounds__(128) indexed_kernel(float* y, const float* x, int n) {
  float kept[64];
  for (int i = 0; i < 64; ++i) kept[i] = x[i * n];
  for (int i = 0; i < n; ++i) y[i] = kept[(i * n) % 64];
}
CUDA
compile narrow <<'CUDA'
template <class T, int kWidth>
__global__ void __launch_bounds__(128) narrow_kernel(T* y, const T* x) { y[threadIdx.x] = x[threadIdx.x]; }
template __global__ void narrow_kernel<float, 4>(float*, const float*);
CUDA
expect 0 "2 kernels, none with local memory" "$work/sound.cu.o"
expect 1 "local.cu: indexed_kernel, sm_90a: " "$work/local.cu.o"
expect 1 "narrow.cu: narrow_kernel<float, 4>, sm_80: no LDG of 16 bytes" "$work/sound.cu.o" "$work/narrow.cu.o"
expect 1 "narrow.cu: narrow_kernel<float, 4>, sm_90a: no STG of 16 bytes" "$work/narrow.cu.o"

# The loop that multiplies is found, and what it jumps over counted; the loop that doesn't is left out.
compile products <<'CUDA'
__global__ void __launch_bounds__(32) products_kernel(float* c, const unsigned* a, int n) {
  float d[4] = {};
#pragma unroll 1
  for (int i = 0; i < n; ++i) d[0] = d[0] * 0.5f + a[i];
#pragma unroll 1
  for (int i = 0; i < n; ++i) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[i]), "r"(a[i + 1]), "r"(a[i + 2]), "r"(a[i + 3]), "r"(a[i + 4]), "r"(a[i + 5]));
  }
  for (int i = 0; i < 4; ++i) c[32 * i + threadIdx.x] = d[i];
}
CUDA
loops=$(python3 "$root/scripts/machine_code.py" --loops "$work/products.cu.o" "$work/sound.cu.o")
if [ "$(grep -c 'products_kernel | sm_.* | 1 | 0 | 0 | none |$' <<<"$loops")" -ne 2 ] || [ "$(wc -l <<<"$loops")" -ne 4 ]; then
  echo "expected a loop with one HMMA for each architecture, got: $loops" >&2
  exit 1
fi

# What states no block size has no occupancy, and is refused.
compile unbounded <<'CUDA'
__global__ void unbounded_kernel(float* y) { y[threadIdx.x] = 1.0F; }
CUDA
if python3 "$root/scripts/machine_code.py" --check "$work/unbounded.cu.o" 2>"$work/said"; then exit 1; fi
grep -qF "unbounded_kernel in unbounded.cu states no __launch_bounds__" "$work/said"
echo "machine_code.py: all planted faults found"
