#!/usr/bin/env python3
"""The model of step times beside two CPU ranks: what their parts take is measured apart, a step of both is predicted from that, and then measured.

    benchmarks/scaling/check.py --lathe build/cpu/lathe --all-reduce build/cpu/benchmarks/lathe_all_reduce_benchmark --model FOLDER --train TEXT \\
        --output benchmarks/results/NAME.json

In each round, one after the other:
    parts      two `lathe pretrain` of one thread and --tokens tokens a step run at once and know nothing of each other. So data, compute and the optimizer are
               measured with what two processes take from each other of caches, memory and clock rate: this contention is an input of the model, not predicted
    sums       the buckets of such a run, summed by two ranks that do nothing else (lathe_all_reduce_benchmark)
    together   `mpirun -np 2 lathe pretrain` of one thread a rank, and twice the tokens a step
The prediction is step_model.py's step() without overlap, as CPU ranks have none: compute, for which a step waits until the slower rank has it (the median over
all pairs of a step of each unlinked process), then the sums (median), the optimizer and the rest (medians). It is compared with the median step together.
Sequences have 128 tokens, so that steps are alike. Nothing else should run on the machine. Nothing is fetched from the network.
"""
import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import step_model  # noqa: E402  (it lies beside this script)

WARMUP = 3
# One machine, without a network: docs/distributed.md.
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader",
       "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_plm": "isolated", "OMPI_MCA_oob_tcp_if_include": "lo",
       "PMIX_MCA_ptl_tcp_if_include": "lo"}
MPIRUN = ["mpirun", "-np", "2", "--bind-to", "none"]


def fail(message):
    sys.exit(f"check.py: {message}")


def start(command):
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **MPI})


def finish(process):
    out, error = process.communicate()
    if process.returncode != 0:
        fail(f"{' '.join(process.args)} ended with status {process.returncode}: {error.strip().splitlines()[-1:]}")
    return out


def pretrain(options, folder, tokens, seed=42, steps=None, more=()):
    return [options.lathe, "pretrain", "--task", "mlm", "--model", options.model, "--train", options.train, "--output", folder, "--max-length", 128,
            "--batch-tokens", tokens, "--max-steps", steps or options.steps + WARMUP, "--log-steps", 1, "--threads", 1, "--device", "cpu", "--seed", seed,
            *more]


def rows(folder):
    """The steps of a run that count; each was logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "seconds" in line][WARMUP:]


def bucket_bytes(options, folder):
    """Those that ranks sum, from a profile of two steps."""
    finish(start([*MPIRUN, *pretrain(options, folder, 2 * options.tokens, steps=3, more=["--profile", "--profile-steps", 1])]))
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    sums = [event["args"] for event in events if event.get("cat") == "bucket" and event["pid"] == 0]
    return [bucket["bytes"] for bucket in sorted(sums, key=lambda bucket: bucket["bucket"])]


def median_of(steps, part):
    return statistics.median(step["seconds"][part] for step in steps)


def measure(options, sizes, scratch, number):
    """A round: the parts, the prediction and what it is a prediction of."""
    alone = [scratch / f"alone-{number}-{i}" for i in range(2)]
    for process in [start(pretrain(options, folder, options.tokens, seed=42 + i)) for i, folder in enumerate(alone)]:
        finish(process)
    processes = [rows(folder) for folder in alone]
    both = [step for process in processes for step in process]
    work = [[step["seconds"]["data"] + step["seconds"]["compute"] for step in process] for process in processes]
    compute = statistics.median(max(pair) for pair in itertools.product(*work))

    sums = json.loads(finish(start([*MPIRUN, options.all_reduce, 15, *sizes])))
    total = sum(sizes)
    seconds = statistics.median(sums["seconds"])
    optimizer, other = median_of(both, "optimizer"), median_of(both, "other")
    step = step_model.step(sizes, 0, compute, optimizer, lambda size: seconds * size / total, overlap=False)
    predicted = step.seconds + other

    folder = scratch / f"together-{number}"
    finish(start([*MPIRUN, *pretrain(options, folder, 2 * options.tokens)]))
    together = rows(folder)
    steps = sorted(sum(step["seconds"].values()) for step in together)
    measured = statistics.median(steps)
    return {"parts": {"compute_of_each": [statistics.median(each) for each in work], "compute": compute, "sums": seconds, "optimizer": optimizer,
                      "other": other, "tokens": statistics.mean(step["tokens"] for step in both)},
            "sums_gigabytes_per_second": total / seconds / 1e9, "transport": sums["transport"],
            "predicted_seconds": predicted,
            "measured_seconds": measured, "measured_spread": (steps[-1 - len(steps) // 4] - steps[len(steps) // 4]) / measured,
            "measured_parts": {part: median_of(together, part) for part in ("data", "compute", "communication", "optimizer", "other")},
            "measured_tokens": statistics.mean(step["tokens"] for step in together),
            "imbalance": statistics.median(step["imbalance"] for step in together),
            "predicted_over_measured": predicted / measured}


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def commit():
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, required=True, help="the lathe command, built with MPI")
    parser.add_argument("--all-reduce", type=pathlib.Path, required=True, help="lathe_all_reduce_benchmark")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of a BERT")
    parser.add_argument("--train", type=pathlib.Path, required=True, help="plain text of some megabytes")
    parser.add_argument("--tokens", type=int, default=4096, help="of a step and rank; default: %(default)s")
    parser.add_argument("--steps", type=int, default=12, help="that count; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    options = parser.parse_args()
    version = finish(start([options.lathe, "--version"])).strip().splitlines()
    record = {"date": datetime.date.today().isoformat(), "processor": processor(), "system": platform.platform(), "cores": os.cpu_count(),
              "commit": commit(), "version": version, "load_before": os.getloadavg(), "tokens_a_rank": options.tokens, "steps": options.steps,
              "ranks": 2, "threads_a_rank": 1, "rounds": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        sizes = bucket_bytes(options, scratch / "profile")
        record["bucket_bytes"] = sizes
        print(f"{'predicted':>10} {'measured':>10} {'+-':>7} {'ratio':>7}   seconds of a step")
        for number in range(options.rounds):
            result = measure(options, sizes, scratch, number)
            record["rounds"].append(result)
            print(f"{result['predicted_seconds']:>10.4f} {result['measured_seconds']:>10.4f} {100 * result['measured_spread']:>6.1f}% "
                  f"{result['predicted_over_measured']:>7.3f}", flush=True)
            if options.output:
                options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    ratios = sorted(result["predicted_over_measured"] for result in record["rounds"])
    record["predicted_over_measured"] = {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}
    if options.output:
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"predicted over measured: {statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})")
    if abs(statistics.median(ratios) - 1) > 0.1:
        fail("the prediction is off by more than 10 %")


if __name__ == "__main__":
    main()
