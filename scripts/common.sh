# shellcheck shell=bash
# What ./quickstart and ./run_tests share: messages, the checks of the machine, long commands that stop on a signal.
# Parses in bash 3.2, so that a Mac gets its line too.

program=$(basename "$0")

say() { printf '%s\n' "$*"; }

# fail MESSAGE: one line, exit status 2.
fail() {
  printf '%s: %s\n' "$program" "$*" >&2
  exit 2
}

# require_platform CPUINFO: Lathe's code is built for x86-64-v3 at least; a binary of it would die of SIGILL elsewhere.
require_platform() {
  local cpuinfo=$1 system machine flags flag missing=''
  system=$(uname -s)
  machine=$(uname -m)
  case "$system/$machine" in
    Linux/x86_64 | Linux/amd64) ;;
    *) fail "Lathe runs on Linux with an x86-64 processor; this is $system on $machine" ;;
  esac
  flags=$(grep -m 1 '^flags' "$cpuinfo" || true)
  for flag in avx2 fma f16c bmi1 bmi2 movbe abm; do
    case " ${flags#*:} " in
      *" $flag "*) ;;
      *) missing="$missing $flag" ;;
    esac
  done
  [ -z "$missing" ] || fail "Lathe needs a processor with AVX2 (x86-64-v3: Intel Haswell, AMD Zen or later); this one lacks:$missing"
}

# compiler_version COMMAND: "gcc 12" or "clang 14", or nothing where it is no C++ compiler.
compiler_version() {
  local defines
  defines=$("$1" -x c++ -dM -E /dev/null 2>/dev/null) || return 0
  printf '%s\n' "$defines" | awk '
    $2 == "__clang_major__" { clang = $3 }
    $2 == "__GNUC__" { gcc = $3 }
    END { if (clang) print "clang " clang; else if (gcc) print "gcc " gcc }'
}

# find_compiler: prints a compiler that is new enough, else nothing. $CXX alone counts where it is set.
find_compiler() {
  local candidate version
  # shellcheck disable=SC2086
  for candidate in ${CXX:-c++ g++ g++-15 g++-14 g++-13 g++-12 clang++}; do
    version=$(compiler_version "$candidate")
    case "$version" in
      "gcc "*) [ "${version#* }" -lt 12 ] || { say "$candidate" && return; } ;;
      "clang "*) [ "${version#* }" -lt 14 ] || { say "$candidate" && return; } ;;
    esac
  done
}

# require_compiler: exports CXX, or says in one line why none will do.
require_compiler() {
  local candidate version
  candidate=$(find_compiler)
  if [ -n "$candidate" ]; then
    export CXX=$candidate
    return
  fi
  candidate=${CXX:-c++}
  version=$(compiler_version "$candidate")
  [ -n "$version" ] || fail "no C++ compiler: '$candidate' does not run; install g++ 12 or later, or set CXX to one"
  fail "Lathe needs g++ 12 (or clang 14) or later; '$candidate' is $version: install g++-12, or set CXX to a newer one"
}

# find_nvcc: prints an nvcc of CUDA 12 or later, else nothing. $CUDACXX alone counts where it is set.
find_nvcc() {
  local candidate version
  # shellcheck disable=SC2086
  for candidate in ${CUDACXX:-nvcc /usr/local/cuda/bin/nvcc}; do
    version=$("$candidate" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\).*/\1/p') || true
    if [ -n "$version" ] && [ "$version" -ge 12 ]; then
      type -P "$candidate" && return
    fi
  done
}

# choose_preset: sets $preset to cuda where nvcc (exported as CUDACXX) and a driver with a GPU are found, else to cpu, and says why.
choose_preset() {
  local nvcc gpus
  preset=cpu
  nvcc=$(find_nvcc)
  gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ') || true
  if [ -z "$nvcc" ]; then
    say "for the CPU: no nvcc of CUDA 12 or later was found"
  elif [ "${gpus:-0}" -eq 0 ]; then
    say "for the CPU: $nvcc is there, but no NVIDIA driver with a GPU (nvidia-smi -L shows none)"
  else
    # shellcheck disable=SC2034  # ./quickstart reads it
    preset=cuda
    export CUDACXX=$nvcc
    say "for the GPU, by $nvcc: some minutes more"
  fi
}

# find_python: prints a python3 that has pip, the system's first; else nothing. $PYTHON alone counts where it is set.
find_python() {
  local candidate
  # shellcheck disable=SC2086
  for candidate in ${PYTHON:-/usr/bin/python3 python3}; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
      say "$candidate" && return
    fi
  done
}

# Signals. A long command runs in the background while bash waits, so that SIGTERM reaches it at once; Ctrl-C reaches it
# from the terminal. The script then goes on to its end_of_run trap with 130 or 143, once the command has finished.
child=
stopped=
trap 'stopped=130' INT
trap 'stopped=143; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM

# run COMMAND...: its exit status; exits where a signal came.
run() {
  local status
  (
    trap - INT TERM
    exec "$@"
  ) <&0 &
  child=$!
  while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  child=
  [ -z "$stopped" ] || exit "$stopped"
  return "$status"
}

# run_logged LOG COMMAND...: quiet where it goes well; where it doesn't, the end of its output and where the rest is.
run_logged() {
  local log=$1 status=0
  shift
  mkdir -p "$(dirname "$log")"
  run "$@" >"$log" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    say "($* ended with status $status; all of its output is in $log)" >&2
  fi
  return "$status"
}

# phase NAME: names what begins now, and ends what ran before. Times are printed by phase_times.
phase_names=()
phase_seconds=()
phase_started=0
phase_current=
phase() {
  end_phase
  phase_current=$1
  phase_started=$SECONDS
  printf '\n== %s\n' "$1"
}
end_phase() {
  if [ -n "$phase_current" ]; then
    phase_names+=("$phase_current")
    phase_seconds+=($((SECONDS - phase_started)))
    phase_current=
  fi
}
phase_times() {
  local i
  end_phase
  printf '\n== How long it took\n'
  for i in "${!phase_names[@]}"; do
    printf '%6d s  %s\n' "${phase_seconds[i]}" "${phase_names[i]}"
  done
  printf '%6d s  in all\n' "$SECONDS"
}

# stop_note: for a trap on EXIT, the line that follows a signal.
stop_note() {
  [ -z "$stopped" ] || printf '\n%s: stopped by a signal\n' "$program" >&2
}
