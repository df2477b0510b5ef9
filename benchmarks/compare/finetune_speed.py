#!/usr/bin/env python3
"""Fine-tuning speed of Lathe beside Hugging Face's Trainer: the same model, rows, batch size, threads and machine, in one run.

    benchmarks/compare/finetune_speed.py --lathe build/cpu/lathe --model FOLDER --train SST2_TRAIN.tsv --output FILE.json

Every measurement is a process of its own, and the processes of the sides alternate, so that a machine that slows down slows all of
them. Each process loads the model, tokenizes all rows, trains 10 steps that do not count and 100 that do, and ends. Measured are

    tokens/s   real tokens ([CLS] and [SEP] included, padding not) of the counted steps over their wall time, in which the process
               itself loads batches, trains, clips and steps its optimizer
    wall       the whole process from start to exit, as its parent sees it
    peak       its largest resident memory, as the kernel accounts it

The sides:
    trainer    transformers.Trainer as it comes: random batches padded to their longest row, its default optimizer
    tuned      the same with lengths grouped and the fused AdamW
    lathe      `lathe finetune`, from its metrics.jsonl

All train in fp32 with dropout as the model has it, gradients clipped to 1.0, learning rate 5e-5, weight decay 0.01 and no evaluation.
Nothing is fetched from the network.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

PEERS = ("trainer", "tuned")
REQUIRED = {"trainer": 3.0, "tuned": 1.2}
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile")


# The side of PyTorch, in a process of its own.


def read_tsv(path):
    """Texts and labels; the fields of SST-2's files are literal."""
    with open(path, encoding="utf-8", newline="") as file:
        header = file.readline().rstrip("\r\n").split("\t")
        text = next(header.index(name) for name in ("text", "sentence") if name in header)
        label = header.index("label")
        rows = [line.rstrip("\r\n").split("\t") for line in file]
    return [row[text] for row in rows], [int(row[label]) for row in rows]


def work(arguments):
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=2, dtype=torch.float32)
    texts, labels = read_tsv(arguments.train)
    ids = tokenizer(texts, truncation=True, max_length=arguments.max_length)["input_ids"]
    rows = [{"input_ids": i, "attention_mask": [1] * len(i), "labels": label} for i, label in zip(ids, labels)]

    pad = transformers.DataCollatorWithPadding(tokenizer)
    batches = []  # (real, padded) tokens of each batch that was collated

    def collate(samples):
        batch = pad(samples)
        batches.append((int(batch["attention_mask"].sum()), batch["input_ids"].numel()))
        return batch

    class Clock(transformers.TrainerCallback):
        """The time at the end of every step."""

        def __init__(self):
            self.ends = []

        def on_train_begin(self, *_, **__):
            self.begin = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.ends.append(time.perf_counter())

    tuned = {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"} if arguments.worker == "tuned" else {}
    steps = arguments.warmup_steps + arguments.steps
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder, use_cpu=True, per_device_train_batch_size=arguments.batch_size, max_steps=steps, learning_rate=5e-5,
            weight_decay=0.01, warmup_steps=0.1, max_grad_norm=1.0, seed=arguments.seed, report_to="none", save_strategy="no",
            disable_tqdm=True, remove_unused_columns=False, **tuned)
        clock = Clock()
        trainer = transformers.Trainer(model=model, args=settings, train_dataset=rows, data_collator=collate, callbacks=[clock])
        trainer.train()
    assert len(clock.ends) == steps, f"{len(clock.ends)} steps were trained instead of {steps}"
    # Batches are collated in the order of their steps; the loader is one ahead.
    counted = batches[arguments.warmup_steps : steps]
    pathlib.Path(arguments.result).write_text(json.dumps({
        "seconds": clock.ends[-1] - clock.ends[arguments.warmup_steps - 1],
        "tokens": sum(real for real, _ in counted),
        "padded_tokens": sum(padded for _, padded in counted),
        "all_steps_seconds": clock.ends[-1] - clock.begin,
        "optimizer": str(getattr(settings.optim, "value", settings.optim)),
        "attention": model.config._attn_implementation,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }), encoding="utf-8")


# The parent.


def run_process(command, threads):
    """Runs `command`; its wall time and peak memory."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true",
                       RAYON_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1",
                       HF_DATASETS_OFFLINE="1", WANDB_DISABLED="true")
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{output.read().decode(errors='replace')[-4000:]}")
    return {"wall_seconds": wall, "peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def measure_peer(side, arguments):
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder, "result.json")
        process = run_process([sys.executable, __file__, "--worker", side, "--result", str(result), "--model", str(arguments.model),
                               "--train", str(arguments.train), "--steps", str(arguments.steps), "--warmup-steps",
                               str(arguments.warmup_steps), "--batch-size", str(arguments.batch_size), "--threads",
                               str(arguments.threads), "--max-length", str(arguments.max_length), "--seed", str(arguments.seed)],
                              arguments.threads)
        return {**process, **json.loads(result.read_text(encoding="utf-8"))}


def measure_lathe(arguments):
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder, "run")
        log_steps = arguments.warmup_steps
        process = run_process([str(arguments.lathe), "finetune", "--model", str(arguments.model), "--train", str(arguments.train),
                               "--output", str(output), "--max-steps", str(arguments.warmup_steps + arguments.steps), "--batch-size",
                               str(arguments.batch_size), "--threads", str(arguments.threads), "--max-length",
                               str(arguments.max_length), "--lr", "5e-5", "--weight-decay", "0.01", "--max-grad-norm", "1.0",
                               "--warmup", "0.1", "--seed", str(arguments.seed), "--precision", "fp32", "--log-steps", str(log_steps)],
                              arguments.threads)
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    steps = [line for line in lines if "tokens_per_second" in line]
    seconds = lambda some: sum(line["tokens"] / line["tokens_per_second"] for line in some)
    # A line tells of the steps since the line before; one must end where the counted steps begin.
    assert any(line["step"] == arguments.warmup_steps for line in steps), f"no line of step {arguments.warmup_steps}"
    assert steps[-1]["step"] == arguments.warmup_steps + arguments.steps, f"the last line is of step {steps[-1]['step']}"
    counted = [line for line in steps if line["step"] > arguments.warmup_steps]
    tokens = sum(line["tokens"] for line in counted)
    return {**process, "seconds": seconds(counted), "tokens": tokens, "padded_tokens": tokens, "all_steps_seconds": seconds(steps),
            "reported": results.get("train")}


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def machine():
    """What was measured on."""
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    field = lambda name: next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith(name)), "")
    flags = field("flags").split()
    memory = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return {"cpu": field("model name"), "family_model_stepping": [field("cpu family"), field("model\t"), field("stepping")],
            "flags": [flag for flag in CPU_FLAGS if flag in flags], "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": int(memory) * 1024, "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(), "load_before": os.getloadavg()[0]}


def summary(runs):
    """Median and range over the rounds."""
    def spread(values):
        return {"median": statistics.median(values), "least": min(values), "most": max(values)}

    return {
        "tokens_per_second": spread([run["tokens"] / run["seconds"] for run in runs]),
        "ms_per_step": spread([1000 * run["seconds"] / run["steps"] for run in runs]),
        "wall_seconds": spread([run["wall_seconds"] for run in runs]),
        "outside_steps_seconds": spread([run["wall_seconds"] - run["all_steps_seconds"] for run in runs]),
        "peak_bytes": spread([run["peak_bytes"] for run in runs]),
        "padded_per_real": sum(run["padded_tokens"] for run in runs) / sum(run["tokens"] for run in runs),
    }


def report(record):
    sides = record["summary"]
    print(f"\n{record['machine']['cpu']}, {record['settings']['threads']} threads, {', '.join(record['machine']['flags'])}")
    print("median (least-most) of", len(record["runs"]) // len(sides), "rounds\n")
    print("| Side | real tokens/s | ms a step | padded/real | wall s | of it outside the steps | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for side, s in sides.items():
        cell = lambda name, digits=0, scale=1: (f"{s[name]['median'] / scale:,.{digits}f} ({s[name]['least'] / scale:,.{digits}f}-"
                                                f"{s[name]['most'] / scale:,.{digits}f})")
        print(f"| {side} | {cell('tokens_per_second')} | {cell('ms_per_step')} | {s['padded_per_real']:.2f} | {cell('wall_seconds', 1)} | "
              f"{cell('outside_steps_seconds', 1)} | {cell('peak_bytes', 0, 2**20)} |")
    for peer, ratio in record["ratios"].items():
        print(f"\nlathe to {peer}: {ratio['tokens_per_second']['median']:.2f} times the tokens/s "
              f"({ratio['tokens_per_second']['least']:.2f}-{ratio['tokens_per_second']['most']:.2f} in single rounds; "
              f"{ratio['required']} is required), {ratio['wall_seconds']:.2f} times the wall time, {ratio['peak_bytes']:.2f} times the memory")


def compare(record):
    """Lathe against each peer: ratios within a round, which share the machine's state, and what is required of them."""
    runs = record["runs"]
    rate = lambda side: [run["tokens"] / run["seconds"] for run in runs if run["side"] == side]
    ratios = {}
    for peer in [p for p in PEERS if p in record["summary"]]:
        by_round = [a / b for a, b in zip(rate("lathe"), rate(peer))]
        ours, theirs = record["summary"]["lathe"], record["summary"][peer]
        ratios[peer] = {
            "tokens_per_second": {"median": statistics.median(by_round), "least": min(by_round), "most": max(by_round)},
            "required": REQUIRED[peer],
            "wall_seconds": ours["wall_seconds"]["median"] / theirs["wall_seconds"]["median"],
            "peak_bytes": ours["peak_bytes"]["most"] / theirs["peak_bytes"]["least"],
        }
    return ratios


def main():
    parser = argparse.ArgumentParser(description="Fine-tuning speed of Lathe beside Hugging Face's Trainer.")
    parser.add_argument("--lathe", type=pathlib.Path, help="the command; without it, the peers alone are measured")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of all-MiniLM-L6-v2, or another BERT")
    parser.add_argument("--train", type=pathlib.Path, required=True, help="TSV with the columns sentence (or text) and label 0 or 1")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--sides", nargs="+", choices=(*PEERS, "lathe"), help="which to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="steps that count")
    parser.add_argument("--warmup-steps", type=int, default=10, help="steps before them")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--check", action="store_true", help="exit 1 where Lathe is not as much faster and smaller as required")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps % arguments.warmup_steps != 0:
        parser.error("--steps must be a multiple of --warmup-steps: Lathe logs once in so many steps")
    if arguments.worker:
        return work(arguments)
    if arguments.lathe:
        arguments.lathe = arguments.lathe.resolve()  # as a bare name it would be looked for in PATH
    sides = arguments.sides or [*PEERS, *(["lathe"] if arguments.lathe else [])]
    if "lathe" in sides and not arguments.lathe:
        parser.error("--lathe is missing")

    repository = pathlib.Path(__file__).resolve().parent
    record = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": first_line(["git", "-C", str(repository), "rev-parse", "HEAD"]),
        "uncommitted_changes": first_line(["git", "-C", str(repository), "status", "--porcelain", "--untracked-files=no"]) is not None,
        "lathe": first_line([str(arguments.lathe), "--version"]) if arguments.lathe else None,
        "machine": machine(),
        "settings": {name: getattr(arguments, name) for name in ("rounds", "steps", "warmup_steps", "batch_size", "max_length", "threads",
                                                                 "seed")},
        "runs": [],
    }
    for number in range(arguments.rounds):
        for side in sides:
            run = measure_lathe(arguments) if side == "lathe" else measure_peer(side, arguments)
            record["runs"].append({"round": number, "side": side, "steps": arguments.steps, **run})
            print(f"round {number + 1}, {side}: {run['tokens'] / run['seconds']:,.0f} real tokens/s, {run['wall_seconds']:.1f} s, "
                  f"{run['peak_bytes'] / 2**20:,.0f} MiB", file=sys.stderr, flush=True)
    record["summary"] = {side: summary([run for run in record["runs"] if run["side"] == side]) for side in sides}
    record["ratios"] = compare(record) if "lathe" in sides else {}
    report(record)
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    short = [p for p, r in record["ratios"].items() if r["tokens_per_second"]["median"] < r["required"] or r["peak_bytes"] >= 1.0]
    if arguments.check and short:
        sys.exit(f"short of what is required beside: {', '.join(short)}")


if __name__ == "__main__":
    main()
