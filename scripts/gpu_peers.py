#!/usr/bin/env python3
"""Times PyTorch's operators, eager and by torch.compile, at the shapes of `lathe bench`; prints JSON.

usage: gpu_peers.py [--device cuda|cpu] [--tokens T,...] [--seconds S]

Rows: {"operator", "kernels" (those of `lathe bench` that do the same work together), "direction", "dtype", "shape", "mode", "microseconds" (median), "spread" (90th - 10th percentile), "repeats", "bytes" (what
the mathematics reads and writes), "of_copy" (of the bandwidth of a copy, measured here)}. "both" is forward and backward; the backward alone
is what "both" takes more than "forward". Each call takes the next of several sets of buffers, which are together more than 4 times the L2.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

CHANNELS = 1024
FEED_FORWARD = 4096
VOCABULARY = 30522
MODES = ("eager", "compile")


class Case:
    """An operator at a shape: `make` gives a set of arguments, `forward` takes one. Of each direction: elements moved, and Lathe's kernels."""

    def __init__(self, operator, shape, make, forward, elements, kernels):
        self.operator, self.shape, self.make, self.forward = operator, shape, make, forward
        self.elements = dict(zip(("forward", "both"), elements))
        self.kernels = dict(zip(("forward", "both"), kernels))


def cases(tokens, device, dtype):
    def tensor(*shape, grad=True):
        return torch.randn(*shape, device=device, dtype=dtype).requires_grad_(grad)

    def layernorm_set():
        return [tensor(tokens, CHANNELS), tensor(tokens, CHANNELS), tensor(CHANNELS), tensor(CHANNELS), tensor(CHANNELS)]

    def layernorm(x, residual, bias, gamma, beta):
        return F.layer_norm(residual + F.dropout(x + bias, 0.1), (CHANNELS,), gamma, beta)

    def activation(kind):
        return Case(f"gelu_{kind}", {"T": tokens, "F": FEED_FORWARD}, lambda: [tensor(tokens, FEED_FORWARD), tensor(FEED_FORWARD)],
                    lambda x, bias: F.gelu(x + bias, approximate="tanh" if kind == "tanh" else "none"),
                    (2 * tokens * FEED_FORWARD, 5 * tokens * FEED_FORWARD),
                    ([f"gelu_{kind}_forward"], [f"gelu_{kind}_forward", f"gelu_{kind}_backward"]))

    rows = max(tokens // 8, 1)  # about as many as are masked
    size = tokens * CHANNELS
    return [
        # Forward reads x and residual, writes y and z; backward reads d_y and z, writes d_x and d_residual.
        Case("layernorm_dropout_residual", {"T": tokens, "C": CHANNELS}, layernorm_set, layernorm, (4 * size, 8 * size),
             (["layernorm_forward"], ["layernorm_forward", "layernorm_backward"])),
        Case("layernorm", {"T": tokens, "C": CHANNELS}, lambda: [tensor(tokens, CHANNELS), tensor(CHANNELS), tensor(CHANNELS)],
             lambda x, gamma, beta: F.layer_norm(x, (CHANNELS,), gamma, beta), (2 * size, 5 * size),
             (["layernorm_forward (plain)"], ["layernorm_forward (plain)", "layernorm_backward (plain)"])),
        activation("erf"),
        activation("tanh"),
        # Lathe reads and writes each logit once, for loss and gradient together.
        Case("cross_entropy", {"R": rows, "V": VOCABULARY},
             lambda: [tensor(rows, VOCABULARY), torch.randint(VOCABULARY, (rows,), device=device)],
             lambda logits, labels: F.cross_entropy(logits, labels), (rows * VOCABULARY, 2 * rows * VOCABULARY),
             (["cross_entropy (loss alone)"], ["cross_entropy"])),
    ]


class Clock:
    """Times calls: on a GPU by events around many, so that the time of launching is hidden behind the kernels; else by the host's clock."""

    def __init__(self, device, seconds):
        self.cuda = device == "cuda"
        self.seconds = seconds

    def once(self, call, count):
        """Microseconds of a call, over `count` of them."""
        if self.cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(count):
                call()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) * 1000 / count
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) * 1e6 / count

    def measure(self, call):
        for _ in range(3):  # compiles, fills caches
            call()
        estimate = max(self.once(call, 3), 0.1)
        count = max(1, min(50, int(self.seconds * 1e6 / 20 / estimate)))
        times = sorted(self.once(call, count) for _ in range(20))
        return {"microseconds": round(statistics.median(times), 3), "spread": round(times[17] - times[2], 3), "repeats": 20 * count}


def rotate(sets):
    """The next set at each call."""
    at = -1

    def following():
        nonlocal at
        at = (at + 1) % len(sets)
        return sets[at]

    return following


def set_count(bytes_of_set, device):
    cache = torch.cuda.get_device_properties(0).L2_cache_size if device == "cuda" else 0
    return 2 + 4 * cache // bytes_of_set


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copy_bandwidth(clock, device):
    """Bytes a second of a copy, read and written: the ceiling that the rows are compared with."""
    elements = (1 << 26) if device == "cuda" else (1 << 22)
    sets = [(torch.empty(elements, device=device), torch.ones(elements, device=device)) for _ in range(2)]
    following = rotate(sets)

    def call():
        to, source = following()
        to.copy_(source)

    return 8 * elements / clock.measure(call)["microseconds"] * 1e6


def adamw_rows(clock, device, ceiling, parameters):
    """torch.optim.AdamW(fused=True) over one tensor. It is one kernel by itself, which compiling leaves alone."""
    weight = torch.randn(parameters, device=device).requires_grad_()
    weight.grad = torch.randn(parameters, device=device)
    optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.01, fused=True)
    moved = 7 * 4 * parameters  # reads weight, gradient, m and v; writes weight, m and v
    return [finished({"operator": "adamw", "kernels": ["adamw"], "direction": "step", "dtype": "f32", "shape": {"N": parameters}, "mode": "eager", "bytes": moved},
                     clock.measure(optimizer.step), ceiling)]


def finished(row, times, ceiling):
    row.update(times)
    row["of_copy"] = round(row["bytes"] / row["microseconds"] * 1e6 / ceiling, 4)
    return row


def rows_of(case, dtype, mode, device, clock, ceiling):
    first = case.make()
    sets = [first] + [case.make() for _ in range(set_count(bytes_of(first), device) - 1)]
    following = rotate(sets)
    forward = torch.compile(case.forward, dynamic=False) if mode == "compile" else case.forward
    output = case.forward(*first)
    gradient = torch.ones_like(output)
    element = torch.finfo(dtype).bits // 8
    common = {"operator": case.operator, "dtype": "bf16" if dtype == torch.bfloat16 else "f32", "shape": case.shape, "mode": mode}

    def row(direction, call):
        about = {**common, "direction": direction, "kernels": case.kernels[direction], "bytes": element * case.elements[direction]}
        return finished(about, clock.measure(call), ceiling)

    def both():
        arguments = following()
        wanted = [argument for argument in arguments if argument.requires_grad]
        return torch.autograd.grad(forward(*arguments), wanted, gradient)

    yield row("forward", lambda: forward(*following()))
    yield row("both", both)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tokens", help="default: 16384,65536 on a GPU, 256 on a CPU")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each row, about; default: %(default)s")
    options = parser.parse_args()
    torch.manual_seed(0)
    tokens = [int(text) for text in (options.tokens or ("16384,65536" if options.device == "cuda" else "256")).split(",")]
    clock = Clock(options.device, options.seconds)
    ceiling = copy_bandwidth(clock, options.device)
    rows = []
    for count in tokens:
        rows += adamw_rows(clock, options.device, ceiling, count * CHANNELS)
        for dtype in (torch.bfloat16, torch.float32):
            for case in cases(count, options.device, dtype):
                for mode in MODES:
                    try:
                        rows += rows_of(case, dtype, mode, options.device, clock, ceiling)
                    except Exception as fault:  # one that fails, as the compiler's own may, doesn't cost the others
                        text = (str(fault).strip() or type(fault).__name__).splitlines()[0]
                        rows.append({"operator": case.operator, "shape": case.shape, "mode": mode, "error": text})
                if options.device == "cuda":
                    torch.cuda.empty_cache()
    name = torch.cuda.get_device_name(0) if options.device == "cuda" else "cpu"
    print(json.dumps({"torch": torch.__version__, "device": name, "copy_bytes_per_second": round(ceiling), "rows": rows}))
    return 1 if any("error" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
