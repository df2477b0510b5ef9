#!/usr/bin/env python3
"""Lathe's CPU kernels beside PyTorch's operators: the same shapes, threads and machine, in one run.

    benchmarks/compare/kernel_speed.py --lathe build/cpu/lathe [--threads N] [--output FILE.json]

Rows are those of `lathe bench` that PyTorch has operators for, in fp32. Each side rotates its operands over as many bytes, and takes the
median of 9 repeats of at least 10 ms. The sides alternate, a family at a time, in processes of their own. An operator that Lathe fuses is
the chain of PyTorch's operators that gives the same tensors; backward is autograd's, without the forward's time. PyTorch's dropout draws
its masks in another way, which is part of its time. Nothing is fetched from the network.
"""
import argparse
import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

REPEATS = 9
SECONDS_OF_REPEAT = 0.01
FAMILIES = ("layernorm", "gelu", "activation", "cross_entropy", "embedding", "gather", "dropout", "reduce", "matmul")


# The side of PyTorch, in a process of its own.


def peers(torch):
    """kernel name -> function of a row's shape that gives (a function that makes operands, a function to be timed of them)."""
    F = torch.nn.functional

    def noise(*shape):
        return torch.randn(*shape)

    def forward(make, call):
        def timed(operands):
            with torch.no_grad():
                call(*operands)

        return make, timed

    def backward(make, call):
        """Of what `call` gives of the leaves: the graph is made beforehand and kept."""

        def prepare():
            leaves = [x.requires_grad_() for x in make()]
            y = call(*leaves)
            return y, torch.randn_like(y), leaves

        def timed(operands):
            y, d_y, leaves = operands
            torch.autograd.grad(y, leaves, d_y, retain_graph=True)

        return prepare, timed

    def rows(s, n=1):
        return [noise(s["T"], s["C"]) for _ in range(n)]

    def vectors(s, n):
        return [noise(s["C"]) for _ in range(n)]

    def norm(s):
        return lambda x, gamma, beta: F.layer_norm(x, (s["C"],), gamma, beta, 1e-12)

    def fused_norm(s):
        return lambda x, residual, bias, gamma, beta: F.layer_norm(F.dropout(x + bias, 0.1) + residual, (s["C"],), gamma, beta, 1e-12)

    def activation(function):
        def call(x, bias):
            return function(x + bias)

        def make(s):
            return lambda: [noise(s["T"], s["F"]), noise(s["F"])]

        return lambda s: forward(make(s), call), lambda s: backward(make(s), call)

    functions = {
        "gelu_erf": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
    }
    table = {
        "layernorm_forward": lambda s: forward(lambda: rows(s, 2) + vectors(s, 3), fused_norm(s)),
        "layernorm_backward": lambda s: backward(lambda: rows(s, 2) + vectors(s, 3), fused_norm(s)),
        "layernorm_forward (plain)": lambda s: forward(lambda: rows(s) + vectors(s, 2), norm(s)),
        "layernorm_backward (plain)": lambda s: backward(lambda: rows(s) + vectors(s, 2), norm(s)),
        "cross_entropy (loss alone)": lambda s: forward(
            lambda: [noise(s["R"], s["V"]), torch.randint(s["V"], (s["R"],))], lambda x, y: F.cross_entropy(x, y)
        ),
        "gather_forward": lambda s: forward(
            lambda: rows(s) + [torch.arange(s["R"]) * (s["T"] // s["R"])], lambda x, index: x.index_select(0, index)
        ),
        "dropout_forward": lambda s: forward(lambda: rows(s), lambda x: F.dropout(x, 0.1)),
        "column_sum": lambda s: forward(lambda: rows(s), lambda x: x.sum(0)),
        "add": lambda s: forward(lambda: rows(s, 2), lambda a, b: a + b),
        "matmul": lambda s: forward(
            lambda: [noise(s["M"], s["K"]), noise(s["N"], s["K"]), noise(s["N"])], lambda x, w, b: F.linear(x, w, b)
        ),
        "matmul (d_input)": lambda s: forward(lambda: [noise(s["M"], s["K"]), noise(s["K"], s["N"])], torch.mm),
        "matmul (d_weight)": lambda s: forward(lambda: [noise(s["K"], s["M"]), noise(s["K"], s["N"])], lambda a, b: a.t() @ b),
    }

    def loss_and_gradient(s):
        def prepare():
            return noise(s["R"], s["V"]).requires_grad_(), torch.randint(s["V"], (s["R"],))

        def timed(operands):
            x, y = operands
            torch.autograd.grad(F.cross_entropy(x, y), x)

        return prepare, timed

    def embedding(s):
        def make():
            tables = [noise(30522, s["C"]), noise(512, s["C"]), noise(2, s["C"])]
            t = torch.arange(s["T"])
            indices = [torch.randint(30522, (s["T"],)), t % 128, (t % 128 >= 64).long()]
            return tables + indices + vectors(s, 2)

        def call(words, positions, types, token, position, kind, gamma, beta):
            z = F.embedding(token, words) + F.embedding(position, positions) + F.embedding(kind, types)
            return F.dropout(F.layer_norm(z, (s["C"],), gamma, beta, 1e-12), 0.1)

        return forward(make, call)

    table["cross_entropy"] = loss_and_gradient
    table["embedding_forward"] = embedding
    for name, function in functions.items():
        table[name + "_forward"], table[name + "_backward"] = activation(function)
    return table


def tensor_bytes(torch, operands):
    flat = [x for group in operands for x in (group if isinstance(group, (list, tuple)) else [group])]
    return sum(x.numel() * x.element_size() for x in flat if isinstance(x, torch.Tensor))


def seconds_of(timed, sets, calls, state):
    begin = time.perf_counter()
    for _ in range(calls):
        timed(sets[state["next"]])
        state["next"] = (state["next"] + 1) % len(sets)
    return time.perf_counter() - begin


def measure(torch, make, timed, rotation):
    sets = [make()]
    copies = min(64, max(1, -(-rotation // max(1, tensor_bytes(torch, sets[0])))))
    sets += [make() for _ in range(copies - 1)]
    state = {"next": 0}
    seconds_of(timed, sets, len(sets), state)
    calls = 1
    while (seconds := seconds_of(timed, sets, calls, state)) < SECONDS_OF_REPEAT:
        calls = int(calls * min(10.0, max(1.5, 1.1 * SECONDS_OF_REPEAT / max(seconds, 1e-9)))) + 1
    return statistics.median(seconds_of(timed, sets, calls, state) / calls for _ in range(REPEATS))


def work(arguments):
    import torch

    torch.set_num_threads(arguments.threads)
    task = json.load(sys.stdin)
    table = peers(torch)
    times = []
    for row in task["rows"]:
        peer = table.get(row["kernel"])
        times.append(measure(torch, *peer(row["shape"]), task["rotation_bytes"]) if peer else None)
    json.dump({"torch": torch.__version__, "times": times}, sys.stdout)


# The side that starts both.


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"kernel_speed.py: {' '.join(map(str, command))} ended with status {done.returncode}")
    return json.loads(done.stdout)


def compare(arguments):
    threads = ["--threads", str(arguments.threads)]
    rows = []
    record = {"date": datetime.date.today().isoformat(), "machine": platform.processor() or platform.machine(), "threads": arguments.threads}
    print(f"{'kernel':<28} {'shape':<24} {'lathe us':>10} {'torch us':>10} {'torch/lathe':>12}")
    for family in FAMILIES:
        ours = run([arguments.lathe, "bench", family, "--device", "cpu", "--json", *threads])
        ours["rows"] = [row for row in ours["rows"] if row["dtype"] == "f32"]
        task = json.dumps({"rows": ours["rows"], "rotation_bytes": ours["rotation_bytes"]})
        theirs = run([sys.executable, __file__, "--worker", *threads], input=task)
        record.update(device=ours["device"], torch=theirs["torch"])
        for row, seconds in zip(ours["rows"], theirs["times"]):
            if seconds is None:
                continue
            ratio = seconds / row["seconds"]
            rows.append({**row, "torch_seconds": seconds, "ratio": ratio})
            shape = " ".join(f"{name}={size}" for name, size in row["shape"].items())
            print(f"{row['kernel']:<28} {shape:<24} {row['seconds'] * 1e6:>10.1f} {seconds * 1e6:>10.1f} {ratio:>12.2f}", flush=True)
    record["rows"] = rows
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, help="the lathe command")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (default: 1)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
    elif arguments.lathe is None:
        parser.error("--lathe is missing")
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
