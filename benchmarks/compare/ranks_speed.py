#!/usr/bin/env python3
"""Two CPU ranks of one thread beside one process of two threads: the same global batches and machine, in one run.

    benchmarks/compare/ranks_speed.py --lathe build/cpu/lathe --model FOLDER --text FILE --train SST2_TRAIN.tsv --output FILE.json

In each round all sides train each case, each in processes of their own, one after the other. The cases:
    tokens     `lathe pretrain` from the model, batches of 8,192 tokens, 4,096 a rank
    sst2       `lathe finetune`, batches of 32 sentences, some 420 tokens
The sides:
    alone      one process, two threads
    ranks      mpirun -np 2, a thread and a core each
    sharded    the same with --shard-optimizer

All are fp32 with dropout. Counted are the real tokens of the steps after the first few over their wall time, from metrics.jsonl. A side's ratio
to `alone` is taken within a round. Nothing is fetched, and nothing listens beyond the loopback.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from finetune_speed import first_line, machine

REQUIRED = 0.95  # of ranks to alone, at 4,096 tokens a rank
CASES = {"tokens": {"steps": 20, "log_steps": 4}, "sst2": {"steps": 110, "log_steps": 10}}
# As root and in containers, on this machine alone (docs/distributed.md).
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader",
       "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_plm": "isolated", "OMPI_MCA_oob_tcp_if_include": "lo",
       "PMIX_MCA_ptl_tcp_if_include": "lo"}
SIDES = {"alone": ([], ["--threads", "2"]),
         "ranks": (["mpirun", "-np", "2", "--bind-to", "core"], ["--threads", "1"]),
         "sharded": (["mpirun", "-np", "2", "--bind-to", "core"], ["--threads", "1", "--shard-optimizer"])}


def command(options, case):
    if case == "tokens":
        return ["pretrain", "--task", "mlm", "--train", options.text, "--batch-tokens", "8192"]
    return ["finetune", "--train", options.train, "--batch-size", "32"]


def tokens_per_second(options, case, side):
    launcher, extra = SIDES[side]
    steps = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder, "run")
        arguments = [*launcher, options.lathe, *command(options, case), "--model", options.model, "--output", output, "--max-length", "128",
                     "--device", "cpu", "--max-steps", steps["steps"], "--log-steps", steps["log_steps"], *extra]
        done = subprocess.run([str(part) for part in arguments], env=dict(os.environ, **MPI), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"ranks_speed.py: {' '.join(map(str, arguments))} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    counted = [line for line in lines if "tokens_per_second" in line and line["step"] > steps["log_steps"]]
    tokens = sum(line["tokens"] for line in counted)
    return tokens / sum(line["tokens"] / line["tokens_per_second"] for line in counted)


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, required=True, help="the lathe command, built with MPI")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of all-MiniLM-L6-v2, or another BERT")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="plain text for pre-training, 1 MB or more")
    parser.add_argument("--train", type=pathlib.Path, required=True, help="SST-2's train.tsv")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--check", action="store_true", help=f"exit 1 where ranks come to less than {REQUIRED} of alone at 4,096 tokens a rank")
    options = parser.parse_args()
    options.lathe = options.lathe.resolve()
    repository = str(pathlib.Path(__file__).resolve().parent)
    record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "commit": first_line(["git", "-C", repository, "rev-parse", "HEAD"]),
              "uncommitted_changes": first_line(["git", "-C", repository, "status", "--porcelain", "--untracked-files=no"]) is not None,
              "lathe": first_line([str(options.lathe), "--version"]), "mpirun": first_line(["mpirun", "--version"]), "machine": machine(),
              "rounds": options.rounds, "cases": {case: {side: [] for side in SIDES} for case in CASES}}
    for number in range(options.rounds):
        for case in CASES:
            for side in SIDES:
                rate = tokens_per_second(options, case, side)
                record["cases"][case][side].append(rate)
                print(f"round {number + 1}, {case}, {side}: {rate:,.0f} tokens/s", file=sys.stderr, flush=True)
    record["ratios"] = {case: {side: spread([a / b for a, b in zip(rates[side], rates["alone"])]) for side in SIDES if side != "alone"}
                        for case, rates in record["cases"].items()}
    print("| case | side | real tokens/s | to alone |\n|---|---|---|---|")
    for case, rates in record["cases"].items():
        for side, values in rates.items():
            ratio = record["ratios"][case].get(side)
            text = f"{ratio['median']:.3f} ({ratio['least']:.3f}-{ratio['most']:.3f})" if ratio else ""
            print(f"| {case} | {side} | {statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f}) | {text} |")
    if options.output:
        options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if options.check and record["ratios"]["tokens"]["ranks"]["median"] < REQUIRED:
        sys.exit(f"ranks come to less than {REQUIRED} of one process")


if __name__ == "__main__":
    main()
