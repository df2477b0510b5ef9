#!/usr/bin/env bash
# ./quickstart from end to end, with stand-ins for the packages, the build, the downloads and the command.
# shellcheck source=tests/scripts/harness.sh
. "$(dirname "${BASH_SOURCE[0]}")/harness.sh"
unset CXX CUDACXX PYTHON

checkout="$scratch/a folder/checkout"
# fresh ACCURACY: a clone whose build gives a stand-in for the command that reaches this accuracy.
fresh() {
  rm -rf "$checkout"
  mkdir -p "$checkout"
  cp -r "$repository/quickstart" "$repository/scripts" "$checkout/"
  stand_in dpkg-query <<'SCRIPT'
printf installed
SCRIPT
  stand_in apt-get </dev/null
  stand_in c++ <<'SCRIPT'
echo "#define __GNUC__ 12"
SCRIPT
  stand_in lathe <<SCRIPT
note "lathe \$*"
case "\$1" in
  finetune)
    mkdir -p build/quickstart/model
    echo '{"test": {"accuracy": $1}}' >build/quickstart/model/results.json
    echo "accuracy $1"
    ;;
  predict) printf '{"line": %d, "label": "positive", "score": 0.75}\n' 1 2 3 ;;
esac
SCRIPT
  stand_in cmake <<SCRIPT
note "cmake \$*"
if [ "\$1" = --preset ]; then
  mkdir -p "build/\$2"
  : >"build/\$2/build.ninja"
  echo "-- Lathe: matrix products on the CPU by a stand-in"
else
  cp "$scratch/machine/bin/lathe" "build/\$3/lathe"
fi
SCRIPT
  cat >"$checkout/scripts/fetch.py" <<'SCRIPT'
import sys
print("/cache/" + sys.argv[1])
SCRIPT
  export PYTHON=python3
}
# The system's python3 has pip here whatever this machine has.
fake_pip() {
  stand_in python3 <<SCRIPT
[ "\$1 \$2 \$3" != "-m pip --version" ] || exit 0
exec "$python" "\$@"
SCRIPT
}

begin "from a fresh clone"
fresh 0.91
fake_pip
on_machine "$checkout/quickstart"
expect_status 0
expect_in calls "cmake --preset cpu -DLATHE_TESTS=OFF"
expect_in calls "cmake --build --preset cpu --target lathe"
expect_in calls "lathe finetune --model /cache/weights --train /cache/reviews/train.tsv --dev /cache/reviews/dev.tsv --test /cache/reviews/test.tsv --output build/quickstart/model --epochs 1 --seed 42 --overwrite"
expect_in out "Lathe: matrix products on the CPU by a stand-in"
expect_in out "accuracy 0.91"
expect_in out "positive  75.0 %  A warm, funny film"
expect_in out "s  Fine-tuning, one epoch"
expect_in out "s  in all"
expect_lines err 0

# A machine with an nvcc of this version and, with a second word, a GPU.
fake_cuda() {
  stand_in nvcc <<SCRIPT
echo "Cuda compilation tools, release $1, V$1.48"
SCRIPT
  export CUDACXX=nvcc
  [ -z "${2:-}" ] || stand_in nvidia-smi <<'SCRIPT'
echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)"
SCRIPT
}

begin "with nvcc and a GPU"
fresh 0.91
fake_pip
fake_cuda 12.4 gpu
on_machine "$checkout/quickstart"
expect_status 0
expect_in calls "cmake --preset cuda -DLATHE_TESTS=OFF"
expect_in calls "cmake --build --preset cuda --target lathe"
expect_in calls "lathe finetune --model /cache/weights"
expect_in out "for the GPU, by "
expect_in out "build/cuda/lathe predict --model build/quickstart/model"

begin "with nvcc and no driver"
fresh 0.91
fake_pip
fake_cuda 13.0
on_machine "$checkout/quickstart"
expect_status 0
expect_in calls "cmake --preset cpu -DLATHE_TESTS=OFF"
expect_in out "but no NVIDIA driver with a GPU"

begin "with a GPU and an nvcc that is too old"
fresh 0.91
fake_pip
fake_cuda 11.8 gpu
on_machine "$checkout/quickstart"
expect_status 0
expect_in calls "cmake --preset cpu -DLATHE_TESTS=OFF"
expect_in out "for the CPU: no nvcc of CUDA 12 or later was found"
unset CUDACXX

begin "again, after ./run_tests turned the tests on"
fake_pip
fresh 0.91
mkdir -p "$checkout/build/cpu"
: >"$checkout/build/cpu/build.ninja"
on_machine "$checkout/quickstart" --seed 7
expect_status 0
expect_not_in calls LATHE_TESTS
expect_in calls "--seed 7"

begin "an accuracy below the floor"
fresh 0.5
fake_pip
on_machine "$checkout/quickstart"
expect_status 1
expect_in err "the accuracy on the test tenth is 0.5"

begin "an accuracy that is not a number"
fresh NaN
fake_pip
on_machine "$checkout/quickstart"
expect_status 1

begin "the command's own error and status are passed on"
fresh 0.91
fake_pip
stand_in lathe <<'SCRIPT'
echo "lathe: model.safetensors: something" >&2
exit 2
SCRIPT
on_machine "$checkout/quickstart"
expect_status 2
expect_lines err 1
expect_in err "model.safetensors: something"

begin "a build that fails shows its end"
fresh 0.91
fake_pip
stand_in cmake <<'SCRIPT'
echo "the compiler said no"
exit 1
SCRIPT
on_machine "$checkout/quickstart"
expect_status 1
expect_in err "the compiler said no"
expect_in err "build/quickstart/configure.log"

begin "a download that fails"
fresh 0.91
fake_pip
printf 'import sys\nsys.exit("fetch: no network")\n' >"$checkout/scripts/fetch.py"
on_machine "$checkout/quickstart"
expect_status 1
expect_in err "fetch: no network"

begin "no python with pip"
fresh 0.91
PYTHON=/nowhere/python3 on_machine "$checkout/quickstart"
expect_status 2
expect_lines err 1
expect_in err "no python3 with pip"

for how in "INT 130 group" "TERM 143 script"; do
  read -r signal code whom <<<"$how"
  begin "SIG$signal to the $whom"
  fresh 0.91
  fake_pip
  stand_in lathe <<SCRIPT
trap 'note "stopped by INT"; exit 130' INT
trap 'note "stopped by TERM"; exit 143' TERM
note started
for i in {1..200}; do sleep 0.05; done
SCRIPT
  : >"$scratch/calls"
  # A session of its own, with the signals as a terminal leaves them.
  PATH="$scratch/machine/bin:$scratch/machine/tools" "$python" - "$checkout/quickstart" "$signal" "$whom" "$scratch" <<'PYTHON'
import os, pathlib, signal, subprocess, sys, time

program, name, whom, scratch = sys.argv[1:]
calls = pathlib.Path(scratch, "calls")
with open(f"{scratch}/out", "w") as out, open(f"{scratch}/err", "w") as err:
    run = subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 60
    while "started" not in calls.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    (os.killpg if whom == "group" else os.kill)(run.pid, getattr(signal, "SIG" + name))
    sys.exit(run.wait(timeout=60))
PYTHON
  status=$?
  expect_status "$code"
  expect_in calls "stopped by $signal"
  expect_in err "stopped by a signal"
  expect_not_in out "How long it took"
done

begin "options"
fresh 0.91
on_machine "$checkout/quickstart" --help
expect_status 0
expect_in out "usage: ./quickstart"
expect_lines calls 0
on_machine "$checkout/quickstart" --fast
expect_status 2
expect_lines err 1
on_machine "$checkout/quickstart" --seed
expect_status 2
on_machine "$checkout/quickstart" --seed -1
expect_status 2
[ ! -e "$checkout/build" ] || wrong "a refused call left a build folder"

finish
