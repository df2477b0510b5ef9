#!/usr/bin/env python3
"""What a training step takes on many GPUs, CALCULATED: from a compute time, the buckets of gradients and the speeds of links. No GPU has been measured for it.

    benchmarks/scaling/step_model.py                          # the tables of docs/distributed.md
    benchmarks/scaling/step_model.py --compute-ms 21.5 --tokens 16384 --model base    # from a step that was measured

docs/distributed.md ("What to expect from more GPUs") has the formulas and the assumptions. tests/benchmarks/scaling_test.py holds the arithmetic to literal
simulations of a ring and of trees, and check.py holds the model to two CPU ranks.
"""
import argparse
import dataclasses
import math

VOCABULARY, POSITIONS, TYPES = 30522, 512, 2
MLM_SHARE = 0.15
GRADIENT_BYTES = 4  # fp32 in the arena
BUCKET_BYTES = 25 << 20
GPUS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclasses.dataclass(frozen=True)
class Model:
    """A BERT with its head for masked words."""
    name: str
    layers: int
    width: int
    mfu: float  # of forward and backward at sequences of 128: an assumption, what Lathe is to reach on an H200

    @property
    def embedding_parameters(self):
        """Complete only at the end of backward: the token embedding is also the decoder."""
        return (VOCABULARY + POSITIONS + TYPES) * self.width + 2 * self.width

    @property
    def parameters(self):
        d = self.width
        layer = 12 * d * d + 13 * d
        return self.embedding_parameters + self.layers * layer + d * d + 3 * d + VOCABULARY

    def operations(self, tokens, length=128):
        """Of forward and backward: docs/benchmarks.md's formula."""
        d = self.width
        weights = 12 * self.layers * d * d
        return tokens * (6 * weights + 12 * self.layers * length * d + 6 * MLM_SHARE * (d * d + d * VOCABULARY))


MODELS = {"base": Model("BERT-base", 12, 768, 0.47), "large": Model("BERT-large", 24, 1024, 0.53)}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Nodes of GPUs. Bytes a second and direction, seconds a hop."""
    gpus_per_node: int = 8
    nvlink: float = 450e9  # a GPU
    network: float = 50e9  # a GPU: a 400 Gb/s adapter each
    start: float = 8.4e-6  # of a collective; this and the hops are what recent NCCL reckons with (src/graph/tuning.cc, protocol Simple)
    nvlink_ring: float = 3.4e-6
    nvlink_tree: float = 4.0e-6
    network_hop: float = 14.0e-6
    peak: float = 989.5e12  # bf16 operations of an H100 or H200
    memory: float = 0.85 * 3.35e12  # bytes a second of an H100, of which 85 % are reached

    def nodes(self, gpus):
        return -(-gpus // self.gpus_per_node)

    def bandwidth(self, gpus):
        """Of a GPU in a collective. Between nodes all adapters of a node carry a part, as NCCL's channels do."""
        inside = min(gpus, self.gpus_per_node)
        return self.nvlink if self.nodes(gpus) == 1 else min(self.nvlink, inside * self.network)


def ring_hops(gpus, machine):
    """Latency of the gpus - 1 hops around a ring that all data make in a reduce-scatter, and as many in an all-gather, for both together: the slowest of the
    parts begins where it crosses the network as often as it can."""
    hops = 2 * (gpus - 1)
    nodes = machine.nodes(gpus)
    between = 0 if nodes == 1 else min(hops, 2 * nodes)
    return between * machine.network_hop + (hops - between) * machine.nvlink_ring


def ring(size, gpus, machine):
    """Seconds of an all-reduce around a ring."""
    if gpus == 1:
        return 0.0
    return machine.start + ring_hops(gpus, machine) + 2 * (gpus - 1) / gpus * size / machine.bandwidth(gpus)


def tree(size, gpus, machine):
    """Seconds of an all-reduce by two binary trees over nodes, each for half of the data, and a chain within a node; data in pieces without end."""
    if gpus == 1:
        return 0.0
    nodes = machine.nodes(gpus)
    inside = min(gpus, machine.gpus_per_node)
    hops = 2 * ((inside - 1) * machine.nvlink_tree + math.ceil(math.log2(nodes)) * machine.network_hop)
    return machine.start + hops + 2 * size / machine.bandwidth(gpus)


def all_reduce(size, gpus, machine):
    """The faster of both, as NCCL chooses."""
    return min(ring(size, gpus, machine), tree(size, gpus, machine))


def half_ring(size, gpus, machine):
    """A reduce-scatter, or an all-gather: half of a ring's all-reduce. There is no tree for them."""
    if gpus == 1:
        return 0.0
    return machine.start + ring_hops(gpus, machine) / 2 + (gpus - 1) / gpus * size / machine.bandwidth(gpus)


def buckets(size, bucket=BUCKET_BYTES):
    """Sizes, in the arena's order; the last may be short."""
    whole, rest = divmod(size, bucket)
    return [bucket] * int(whole) + ([rest] if rest else [])


def ready_times(sizes, late, forward, backward):
    """When each bucket's gradients are there. Gradients come at an even rate over backward, but for the last `late` bytes, which come at its end."""
    early = sum(sizes) - late
    times, done = [], 0
    for size in sizes:
        done += size
        times.append(forward + backward * (min(1.0, done / early) if early > 0 else 1.0))
    return times


def last_sum(ready, durations):
    """When the last of sums is done that run one after the other, each after its bucket is ready."""
    end = 0.0
    for begin, duration in zip(ready, durations):
        end = max(begin, end) + duration
    return end


@dataclasses.dataclass(frozen=True)
class Step:
    compute: float
    communication: float  # exposed
    optimizer: float
    gather: float = 0.0  # ZeRO-1's all-gather of the weights

    @property
    def seconds(self):
        return self.compute + self.communication + self.optimizer + self.gather


def step(sizes, late, compute, optimizer, collective, overlap=True, gather=0.0):
    """A step of one of equal ranks: forward takes a third of `compute`. Without overlap the first sum begins after backward, as on CPU ranks."""
    forward, backward = compute / 3, compute * 2 / 3
    ready = ready_times(sizes, late, forward, backward) if overlap else [compute] * len(sizes)
    end = last_sum(ready, [collective(size) for size in sizes])
    return Step(compute, max(0.0, end - compute), optimizer, gather)


def gpu_step(model, gpus, tokens, machine, shard=False, compute=None):
    """A step of `tokens` a GPU."""
    parameters = model.parameters
    sizes = buckets(parameters * GRADIENT_BYTES)
    if compute is None:
        compute = model.operations(tokens) / (model.mfu * machine.peak)
    # AdamW reads gradient, master, m and v, and writes the last three in fp32 and the bf16 weight: 30 bytes; the norm reads the gradients once more.
    optimizer = parameters * (30 / (gpus if shard else 1) + GRADIENT_BYTES / (gpus if shard else 1)) / machine.memory
    late = model.embedding_parameters * GRADIENT_BYTES
    if not shard:
        return step(sizes, late, compute, optimizer, lambda size: all_reduce(size, gpus, machine))
    gather = sum(half_ring(size, gpus, machine) for size in buckets(parameters * 2, BUCKET_BYTES))  # bf16 weights
    return step(sizes, late, compute, optimizer, lambda size: half_ring(size, gpus, machine), gather=gather)


def table(model, tokens, machine, compute=None):
    lines = [f"{model.name}, {tokens:,} tokens a GPU, bf16: CALCULATED, not measured",
             "",
             "| GPUs | step ms | of it exposed sums | tokens/s | of N times one GPU | ZeRO-1: step ms | of it exposed | of N times one GPU |",
             "|---|---|---|---|---|---|---|---|"]
    alone = gpu_step(model, 1, tokens, machine, compute=compute).seconds
    for gpus in GPUS:
        plain = gpu_step(model, gpus, tokens, machine, compute=compute)
        shard = gpu_step(model, gpus, tokens, machine, shard=True, compute=compute)
        lines.append(f"| {gpus:,} | {plain.seconds * 1e3:.2f} | {plain.communication * 1e3:.2f} | {gpus * tokens / plain.seconds:.3g} | "
                     f"{100 * alone / plain.seconds:.1f} % | {shard.seconds * 1e3:.2f} | {(shard.communication + shard.gather) * 1e3:.2f} | "
                     f"{100 * alone / shard.seconds:.1f} % |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append", help="default: both")
    parser.add_argument("--tokens", type=int, action="append", help="tokens a GPU and step (default: 2048 and 16384)")
    parser.add_argument("--compute-ms", type=float, help="forward and backward of a step, measured (default: by the assumed MFU)")
    parser.add_argument("--nvlink-gb", type=float, default=450.0, help="GB/s a GPU and direction within a node (default: %(default)s)")
    parser.add_argument("--network-gbit", type=float, default=400.0, help="Gb/s a GPU and direction between nodes (default: %(default)s)")
    options = parser.parse_args()
    machine = Machine(nvlink=options.nvlink_gb * 1e9, network=options.network_gbit * 1e9 / 8)
    compute = options.compute_ms / 1e3 if options.compute_ms is not None else None
    tables = [table(MODELS[name], tokens, machine, compute) for name in options.model or MODELS for tokens in options.tokens or (2048, 16384)]
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
