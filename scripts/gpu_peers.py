#!/usr/bin/env python3
"""Times PyTorch's operators and attention, and whole training steps of Hugging Face's BERT, at the shapes of `lathe bench`; prints JSON.

usage: gpu_peers.py [--device cuda|cpu] [--part operators|attention|step ...] [--tokens T,...] [--steps-of FILE] [--seconds S] [--limit S]

One object is printed, a row a line, each when it is known, so that a run that is cut off has lost no more than what wasn't measured. What
cannot run (no transformers, a backend that refuses a shape, no memory) is a row with "unavailable": why. "error" is a fault.

operators: eager and by torch.compile. Rows: {"operator", "kernels" (those of `lathe bench` that do the same work together), "direction", "dtype", "shape", "mode", "microseconds" (median), "spread" (90th - 10th percentile), "repeats", "bytes" (what
the mathematics reads and writes), "of_copy" (of the bandwidth of a copy, measured here)}. "both" is forward and backward; the backward alone
is what "both" takes more than "forward". Each call takes the next of several sets of buffers, which are together more than 4 times the L2.

attention: scaled_dot_product_attention under each of its backends flash and cudnn, heads of 64, with and without dropout, the same rows with
"operations" (of the true lengths, 4 s^2 d forward and 10 s^2 d backward). Sequences of one length are a batch; for real lengths flash
takes a jagged tensor, cudnn the padded batch with a mask.

step: for each row of `lathe bench step --json` in --steps-of, a training step of BertForMaskedLM or BertForSequenceClassification with random
weights, SDPA attention, fused AdamW, clipping, bf16 autocast where the row is bf16: eager and compiled. Batches have the row's tokens
and distribution of lengths, padded to the longest as Hugging Face's collators do. Rows: "tokens" and "tokens_per_second" count
real tokens, "padded_tokens" what was computed.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import time

import torch
import torch.nn.functional as F

CHANNELS = 1024
FEED_FORWARD = 4096
VOCABULARY = 30522
MODES = ("eager", "compile")
PARTS = ("operators", "attention", "step")


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


# ---- attention


def length_at(quantiles, share):
    """The length that this share of the sequences don't exceed, as benchmarks/lengths.cc has it."""
    for (low, shorter), (high, longer) in zip(quantiles, quantiles[1:]):
        if share <= high:
            return shorter + int((share - low) / (high - low) * (longer - shorter))
    return quantiles[-1][1]


def draw_lengths(quantiles, count):
    return [length_at(quantiles, (i + 0.5) / count) for i in range(count)]


def mean_length(quantiles):
    return statistics.fmean(draw_lengths(quantiles, 10000))


def real_lengths(quantiles, tokens):
    """Lengths of the distribution with so many tokens together, the last one cut or drawn out."""
    lengths = draw_lengths(quantiles, max(1, int(tokens / mean_length(quantiles))))
    while sum(lengths) > tokens:
        lengths.pop(0)
    if sum(lengths) < tokens:
        lengths.append(tokens - sum(lengths))
    return lengths


BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION"}


def attention_inputs(lengths, backend, device, dtype):
    """q, k, v and a mask or None for sequences of these lengths."""
    heads, size = CHANNELS // 64, 64
    longest = max(lengths)
    if min(lengths) == longest or backend == "cudnn":
        qkv = [torch.randn(len(lengths), heads, longest, size, device=device, dtype=dtype).requires_grad_() for _ in range(3)]
        if min(lengths) == longest:
            return qkv, None
        real = torch.arange(longest, device=device)[None, :] < torch.tensor(lengths, device=device)[:, None]
        return qkv, real[:, None, None, :]
    offsets = torch.tensor([0] + [sum(lengths[:i + 1]) for i in range(len(lengths))], device=device)
    leaves = [torch.randn(sum(lengths), heads, size, device=device, dtype=dtype).requires_grad_() for _ in range(3)]
    return leaves, offsets


def attention_rows(name, lengths, dropout, backend, device, dtype, clock):
    """Forward, and forward and backward. Raises where the backend refuses."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    leaves, extra = attention_inputs(lengths, backend, device, dtype)
    jagged = leaves[0].dim() == 3

    def forward():
        if jagged:
            q, k, v = (torch.nested.nested_tensor_from_jagged(leaf, extra, max_seqlen=max(lengths)).transpose(1, 2) for leaf in leaves)
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).values()
        return F.scaled_dot_product_attention(*leaves, attn_mask=extra, dropout_p=dropout)

    suffix = f" ({name})" if name else ""
    squares = sum(length * length for length in lengths)
    with sdpa_kernel(getattr(SDPBackend, BACKENDS[backend])):
        gradient = torch.randn_like(forward())
        calls = {"forward": forward, "both": lambda: torch.autograd.grad(forward(), leaves, gradient)}
        for direction, call in calls.items():
            operations = (4 if direction == "forward" else 14) * squares * CHANNELS
            times = clock.measure(call)
            kernels = [f"attention_forward{suffix}"] + ([f"attention_backward{suffix}"] if direction == "both" else [])
            yield {"operator": f"attention{suffix}", "kernels": kernels, "direction": direction, "dtype": "bf16" if dtype == torch.bfloat16 else "f32",
                   "shape": {"T": sum(lengths), "C": CHANNELS, "S": max(lengths)}, "mode": f"sdpa {backend}", "operations": operations, **times,
                   "operations_per_second": round(operations / times["microseconds"] * 1e6)}


def measure_attention(tokens, wiki, device, clock, emit):
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    kinds = [("", [length] * (tokens // length)) for length in (128, 512) if tokens % length == 0]
    if wiki:
        kinds.append(("wiki lengths", real_lengths(wiki, tokens)))
    for kind, lengths in kinds:
        for dropout in (0.0, 0.1):
            name = ", ".join(filter(None, (kind, "dropout" if dropout else "")))
            for backend in BACKENDS:
                about = {"operator": f"attention ({name})" if name else "attention", "shape": {"T": tokens, "C": CHANNELS, "S": max(lengths)},
                         "mode": f"sdpa {backend}"}
                try:
                    for row in attention_rows(name, lengths, dropout, backend, device, dtype, clock):
                        if not emit(row):
                            return
                except (RuntimeError, AttributeError, ImportError, NotImplementedError) as refusal:
                    emit({**about, "unavailable": first_line(refusal)})
                release(device)


# ---- whole steps


class StepBatches:
    """Batches of a row of `lathe bench step`: its tokens and lengths, padded to the longest of a batch."""

    def __init__(self, row, share, count, device):
        quantiles, tokens = row["quantiles"], max(row["quantiles"][-1][1], int(row["step_tokens"] * share))
        mean = mean_length(quantiles)
        chance = random.Random(42)
        lengths = draw_lengths(quantiles, int(1.2 * count * tokens / mean) + count)
        chance.shuffle(lengths)
        self.batches, self.device, self.row = [], device, row
        batch_size = max(1, round(tokens / mean))
        for _ in range(count):
            batch = []
            while lengths and (len(batch) < batch_size if row["task"] == "classify" else sum(batch) + lengths[-1] <= tokens):
                batch.append(lengths.pop())
            self.batches.append(self.padded(batch, chance))

    def padded(self, lengths, chance):
        vocabulary, longest = self.row["vocabulary"], max(lengths)
        real = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
        generator = torch.Generator().manual_seed(chance.randrange(1 << 30))
        shape = (len(lengths), longest)
        ids = torch.where(real, torch.randint(104, vocabulary, shape, generator=generator), 0)
        if self.row["task"] == "mlm":
            chosen = (torch.rand(shape, generator=generator) < 0.15) & real
            labels = torch.where(chosen, ids, -100)
            ids = torch.where(chosen, 103, ids)
        else:
            labels = torch.randint(2, (len(lengths),), generator=generator)
        tensors = {"input_ids": ids, "attention_mask": real.long(), "labels": labels}
        # All of one length: nothing is padded, and no mask is needed.
        if min(lengths) == longest:
            del tensors["attention_mask"]
        return {"tokens": sum(lengths), "padded": len(lengths) * longest, "sequences": len(lengths),
                "tensors": {name: tensor.to(self.device) for name, tensor in tensors.items()}}


def make_model(row, device):
    import transformers

    transformers.logging.set_verbosity_error()
    dropout = row["dropout"]
    config = transformers.BertConfig(vocab_size=row["vocabulary"], hidden_size=row["hidden_size"], num_hidden_layers=row["layers"],
                                     num_attention_heads=row["heads"], intermediate_size=4 * row["hidden_size"], num_labels=2,
                                     hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    config._attn_implementation = "sdpa"  # pylint: disable=protected-access: what from_pretrained's attn_implementation sets
    kind = transformers.BertForMaskedLM if row["task"] == "mlm" else transformers.BertForSequenceClassification
    return kind(config).to(device).train()


def step_row(row, mode, share, device, warmup, steps, seconds):
    """Times steps as an own loop has them: forward, backward, clipping, fused AdamW."""
    torch.manual_seed(42)
    model = make_model(row, device)
    run = torch.compile(model) if mode == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
    batches = StepBatches(row, share, 8, device).batches
    autocast = torch.autocast(device, dtype=torch.bfloat16) if row["dtype"] == "bf16" else contextlib.nullcontext()
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    ends = []

    def mark():
        if cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event
        return time.perf_counter()

    begin = None
    for number in range(warmup + steps):
        with autocast:
            loss = run(**batches[number % len(batches)]["tensors"]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(mark())
        if number + 1 == warmup:
            begin = time.perf_counter()
        if begin and number >= warmup + 2 and time.perf_counter() - begin > seconds:
            break
    if cuda:
        torch.cuda.synchronize()
    times = [before.elapsed_time(after) / 1e3 if cuda else after - before for before, after in zip(ends[warmup - 1:], ends[warmup:])]
    measured = [batches[(warmup + i) % len(batches)] for i in range(len(times))]
    ordered = sorted(times)
    median = statistics.median(times)
    return {**step_about(row, mode), "seconds": median,
            "spread": (ordered[len(ordered) - 1 - len(ordered) // 4] - ordered[len(ordered) // 4]) / median,
            "steps": len(times), "warmup_steps": warmup, "sequences": statistics.fmean(batch["sequences"] for batch in measured),
            "tokens": statistics.fmean(batch["tokens"] for batch in measured), "padded_tokens": statistics.fmean(batch["padded"] for batch in measured),
            "tokens_per_second": statistics.median(batch["tokens"] / taken for batch, taken in zip(measured, times)),
            "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None}


def step_about(row, mode):
    return {"operator": "step", **{name: row[name] for name in STEP_KEYS}, "mode": mode}


STEP_KEYS = ("task", "model", "lengths", "step_tokens", "dropout", "dtype")
# What one would like to know first, should time not suffice.
FIRST = (("mlm", "base", "fixed:512"), ("mlm", "base", "fixed:128"), ("classify", "base", "sst2"), ("mlm", "large", "fixed:512"))


def measure_steps(rows, modes, device, limits, emit):
    def rank(row):
        key = (row["task"], row["model"], row["lengths"])
        return FIRST.index(key) if key in FIRST else len(FIRST)

    for row in sorted((row for row in rows if "error" not in row), key=rank):
        for mode in modes:
            emitted = True
            for share in (1.0, 0.5, 0.25):
                try:
                    emitted = emit(step_row(row, mode, share, device, *limits))
                    break
                except ImportError as missing:
                    emitted = emit({**step_about(row, mode), "unavailable": first_line(missing)})
                    break
                except torch.OutOfMemoryError:
                    if share == 0.25:
                        emit({**step_about(row, mode), "unavailable": f"no memory for {int(row['step_tokens'] * share)} tokens a step"})
                except Exception as fault:  # the compiler's own, as below
                    emitted = emit({**step_about(row, mode), "error": first_line(fault)})
                    break
                release(device)
            torch.compiler.reset()
            release(device)
            if not emitted:
                return


# ---- all of it


def first_line(fault):
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]


def release(device):
    if device == "cuda":
        torch.cuda.empty_cache()


class Output:
    """The object, a row a line; and whether there is time for another."""

    def __init__(self, head, seconds):
        self.end = time.monotonic() + seconds
        self.errors = 0
        self.separator = json.dumps(head)[:-1] + ', "rows": [\n'

    def emit(self, row):
        """False where no further row should be begun."""
        self.errors += "error" in row
        print(self.separator + json.dumps(row), end="", flush=True)
        self.separator = ",\n"
        return time.monotonic() < self.end

    def finish(self):
        complete = time.monotonic() < self.end
        print(("" if self.separator == ",\n" else self.separator) + f'\n], "complete": {json.dumps(complete)}}}')


def measure_operators(tokens, device, clock, ceiling, emit):
    for row in adamw_rows(clock, device, ceiling, tokens * CHANNELS):
        emit(row)
    for dtype in (torch.bfloat16, torch.float32):
        for case in cases(tokens, device, dtype):
            for mode in MODES:
                try:
                    for row in rows_of(case, dtype, mode, device, clock, ceiling):
                        if not emit(row):
                            return
                except Exception as fault:  # one that fails, as the compiler's own may, doesn't cost the others
                    emit({"operator": case.operator, "shape": case.shape, "mode": mode, "error": first_line(fault)})
            release(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS), help="default: all")
    parser.add_argument("--tokens", help="of operators and attention; default: 16384,65536 on a GPU, 512 on a CPU")
    parser.add_argument("--steps-of", metavar="FILE", help="what `lathe bench step --json` printed")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each row of operators and attention, about; default: %(default)s")
    parser.add_argument("--step-seconds", type=float, default=5.0, help="for the measured steps of a row; default: %(default)s")
    parser.add_argument("--modes", default=",".join(MODES), help="of steps; default: %(default)s")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds after which no further row is begun")
    parser.add_argument("--threads", type=int, help="of a CPU")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    tokens = [int(text) for text in (options.tokens or ("16384,65536" if device == "cuda" else "512")).split(",")]
    steps = []
    if options.steps_of:
        with open(options.steps_of, encoding="utf-8") as file:
            steps = json.load(file)["rows"]
    clock = Clock(device, options.seconds)
    ceiling = copy_bandwidth(clock, device)
    name = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
    output = Output({"torch": torch.__version__, "transformers": transformers_version(), "device": name,
                     "copy_bytes_per_second": round(ceiling)}, options.limit)
    if "step" in options.part:
        warmup, count = (5, 20) if device == "cuda" else (2, 20)
        measure_steps(steps, options.modes.split(","), device, (warmup, count, options.step_seconds), output.emit)
    wiki = next((row["quantiles"] for row in steps if row["lengths"] == "wiki"), None)
    for one in tokens:
        if "attention" in options.part:
            measure_attention(one, wiki, device, clock, output.emit)
        if "operators" in options.part:
            measure_operators(one, device, clock, ceiling, output.emit)
    output.finish()
    return 1 if output.errors else 0


def transformers_version():
    try:
        import transformers

        return transformers.__version__
    except ImportError:
        return None


if __name__ == "__main__":
    sys.exit(main())
