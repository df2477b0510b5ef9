#!/usr/bin/env python3
"""Whole training steps of Lathe beside Hugging Face's BERT on the CPU: the same sizes, lengths, threads and machine, in one run.

    benchmarks/compare/step_speed.py --lathe build/cpu/lathe [--threads N] [--rounds 3] [--output FILE.json] [-- LATHE'S OPTIONS]

In each round and for each task and lengths `lathe bench step` runs, and after it the same row by scripts/gpu_peers.py, eager with SDPA attention
and fused AdamW, in fp32, in processes of their own. Both count real tokens over the median step. Lathe's options are those of `lathe bench step`,
such as --model-size base --tokens 1024. Nothing is fetched from the network.
"""
import argparse
import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

PEERS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "gpu_peers.py"
ROWS = (("mlm", "fixed:128"), ("mlm", "real"), ("classify", "fixed:128"), ("classify", "real"))


def run(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"step_speed.py: {' '.join(map(str, command))} ended with status {done.returncode}")
    return json.loads(done.stdout)


def measure(options, task, lengths):
    """A row of each side."""
    threads = ["--threads", options.threads]
    ours = run([options.lathe, "bench", "step", "--device", "cpu", "--json", "--task", task, "--lengths", lengths, "--seconds", options.seconds,
                *threads, *options.rest])
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(ours, file)
        file.flush()
        theirs = run([sys.executable, PEERS, "--device", "cpu", "--part", "step", "--steps-of", file.name, "--modes", "eager",
                      "--step-seconds", options.seconds, *threads])
    row = theirs["rows"][0]
    if "tokens_per_second" not in row:
        sys.exit(f"step_speed.py: the peer has no step: {row.get('unavailable') or row.get('error')}")
    return {"task": task, "lengths": ours["rows"][0]["lengths"], "lathe": ours["rows"][0], "peer": row,
            "ratio": ours["rows"][0]["tokens_per_second"] / row["tokens_per_second"]}, ours, theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, required=True, help="the lathe command")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="of measured steps of a row, about; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("rest", nargs="*", help="options of `lathe bench step`, behind --")
    options = parser.parse_args()
    record = {"date": datetime.date.today().isoformat(), "machine": platform.processor() or platform.machine(), "threads": options.threads,
              "rounds": options.rounds, "options": options.rest, "rows": []}
    print(f"{'task':<9} {'lengths':<10} {'lathe tokens/s':>22} {'peer tokens/s':>22} {'padded/real':>12} {'lathe/peer':>18}  median (least-most)")
    measured = {row: [] for row in ROWS}
    for _ in range(options.rounds):
        for row in ROWS:
            result, ours, theirs = measure(options, *row)
            measured[row].append(result)
            record["rows"].append(result)
            record.update(device=ours["device"], torch=theirs["torch"], transformers=theirs["transformers"])
            if options.output:
                options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for results in measured.values():
        def cell(values, digits):
            return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"

        print(f"{results[0]['task']:<9} {results[0]['lengths']:<10} {cell([r['lathe']['tokens_per_second'] for r in results], 0):>22} "
              f"{cell([r['peer']['tokens_per_second'] for r in results], 0):>22} "
              f"{statistics.median(r['peer']['padded_tokens'] / r['peer']['tokens'] for r in results):>12.2f} "
              f"{cell([r['ratio'] for r in results], 2):>18}")


if __name__ == "__main__":
    main()
