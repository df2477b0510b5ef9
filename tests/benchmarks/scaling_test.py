#!/usr/bin/env python3
"""The arithmetic of benchmarks/scaling/step_model.py beside literal simulations of a ring, of trees and of a step. Nothing is timed."""
import math
import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "scaling"))
import step_model  # noqa: E402


def simulate_ring(gpus, size, machine):
    """Every rank sends in turn the piece that it got last to the next one: (gpus - 1) times adding, (gpus - 1) times copying. Gives what all have in the end,
    when the last is done and the bytes that a rank sent."""
    values = [[rank * 1000 + piece for piece in range(gpus)] for rank in range(gpus)]
    clock = [0.0] * gpus  # when a rank has what it will send next
    piece_seconds = size / gpus / machine.bandwidth(gpus)
    sent = 0.0
    for hop in range(2 * (gpus - 1)):
        arrived, moved = [0.0] * gpus, []
        for rank in range(gpus):
            to = (rank + 1) % gpus
            crosses = rank // machine.gpus_per_node != to // machine.gpus_per_node
            arrived[to] = clock[rank] + piece_seconds + (machine.network_hop if crosses else machine.nvlink_ring)
            moved.append((to, (rank - hop) % gpus, values[rank][(rank - hop) % gpus]))
        for to, piece, value in moved:
            values[to][piece] = values[to][piece] + value if hop < gpus - 1 else value
        clock = arrived
        sent += size / gpus
    return values, max(clock) + machine.start, sent


def parents(count, second):
    """A binary tree over nodes in which odd ones are leaves, or with `second` its mirror image (of an odd count: moved on by one), so that leaves are other ones:
    each node's parent, and None for the root."""
    tree = {}
    for node in range(count):
        bit = node & -node
        parent = None
        if node > 0:
            parent = (node ^ bit) | (bit << 1)
            parent = parent if parent < count else node ^ bit
        tree[node] = parent
    if not second:
        return tree
    move = (lambda node: (node + 1) % count) if count % 2 else (lambda node: count - 1 - node)
    return {move(node): None if parent is None else move(parent) for node, parent in tree.items()}


def depth(tree, node):
    return 0 if tree[node] is None else 1 + depth(tree, tree[node])


class Collectives(unittest.TestCase):
    def test_a_ring_is_what_it_takes_step_by_step(self):
        for gpus in (2, 3, 8, 16, 24, 64):
            machine = step_model.Machine()
            values, seconds, sent = simulate_ring(gpus, 1 << 20, machine)
            whole = [sum(rank * 1000 + piece for rank in range(gpus)) for piece in range(gpus)]
            self.assertTrue(all(value == whole for value in values), f"{gpus} ranks have the sums")
            self.assertAlmostEqual(sent, 2 * (gpus - 1) / gpus * (1 << 20))
            self.assertAlmostEqual(seconds / step_model.ring(1 << 20, gpus, machine), 1.0, places=9, msg=f"{gpus} GPUs")

    def test_the_rings_of_a_node_share_its_adapters(self):
        # A ring for each adapter, with as much of the data each: what passes an adapter, and a GPU's NVLink, in one direction.
        machine = step_model.Machine()
        gpus, size = 32, 1 << 30
        of_a_ring = 2 * (gpus - 1) / gpus * size / machine.gpus_per_node
        by_adapter = of_a_ring / machine.network
        by_nvlink = of_a_ring * machine.gpus_per_node / machine.nvlink  # at most: a GPU at an adapter has a ring less
        self.assertAlmostEqual(max(by_adapter, by_nvlink) * machine.bandwidth(gpus), 2 * (gpus - 1) / gpus * size, places=3)

    def test_trees_move_no_more_than_twice_the_data_by_any_node(self):
        for count in (2, 4, 7, 16, 32, 64):
            # Two trees, so that who is inside of one is mostly a leaf of the other; each carries half.
            received = [0.0] * count
            for second in (False, True):
                tree = parents(count, second)
                total = {node: float(node) for node in tree}
                for node in sorted(tree, key=lambda node: -depth(tree, node)):  # up, from the leaves
                    if tree[node] is not None:
                        total[tree[node]] += total[node]
                        received[tree[node]] += 0.5
                root = next(node for node in tree if tree[node] is None)
                self.assertEqual(total[root], count * (count - 1) / 2, "the sum has come to the root")
                for node in tree:  # and down again
                    received[node] += 0.5 if tree[node] is not None else 0.0
                self.assertLessEqual(max(depth(tree, node) for node in tree), math.ceil(math.log2(count)))
            self.assertLessEqual(max(received), 2.0, f"{count} nodes")
            if count >= 4:
                self.assertEqual(max(received), 2.0, f"{count} nodes: the bound is reached")

    def test_a_tree_has_the_latency_of_its_depth(self):
        machine = step_model.Machine(nvlink=1e30, network=1e30)
        for nodes in (2, 16, 512):
            hops = 2 * (7 * machine.nvlink_tree + math.log2(nodes) * machine.network_hop)
            self.assertAlmostEqual(step_model.tree(1, 8 * nodes, machine), machine.start + hops)

    def test_the_faster_is_taken(self):
        machine = step_model.Machine()
        self.assertEqual(step_model.all_reduce(25 << 20, 4096, machine), step_model.tree(25 << 20, 4096, machine))
        self.assertEqual(step_model.all_reduce(1 << 30, 8, machine), step_model.ring(1 << 30, 8, machine))
        self.assertLess(step_model.ring(1 << 30, 8, machine), step_model.tree(1 << 30, 8, machine))
        self.assertEqual(step_model.all_reduce(1 << 30, 1, machine), 0.0)

    def test_halves_are_a_whole(self):
        machine = step_model.Machine()
        for gpus in (2, 8, 128):
            self.assertAlmostEqual(2 * step_model.half_ring(1 << 25, gpus, machine), step_model.ring(1 << 25, gpus, machine) + machine.start)


class Steps(unittest.TestCase):
    def test_buckets_are_all_of_the_gradients(self):
        self.assertEqual(step_model.buckets(100, 30), [30, 30, 30, 10])
        self.assertEqual(step_model.buckets(60, 30), [30, 30])

    def test_exposed_sums_are_what_a_timeline_leaves(self):
        # Time in small ticks: gradients come, the link takes the first bucket that is whole.
        draw = random.Random(1)
        for _ in range(20):
            sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 6))]
            late = draw.randint(0, sum(sizes) - 1)
            compute, rate = 30.0, draw.uniform(0.3, 3.0)
            predicted = step_model.step(sizes, late, compute, 5.0, lambda size: size / rate)
            tick, now, done, bucket, left = 1e-3, 0.0, 0.0, 0, None
            early = sum(sizes) - late
            while bucket < len(sizes):
                now += tick
                into_backward = min(1.0, max(0.0, (now - 10.0) / 20.0))
                done = early * into_backward if into_backward < 1.0 else sum(sizes)
                if left is None and done >= sum(sizes[:bucket + 1]) - 1e-9:
                    left = sizes[bucket] / rate
                if left is not None:
                    left -= tick
                    if left <= 0:
                        bucket, left = bucket + 1, None
            self.assertAlmostEqual(predicted.communication, max(0.0, now - compute), delta=0.02)
            self.assertAlmostEqual(predicted.seconds, compute + predicted.communication + 5.0)

    def test_without_overlap_all_sums_are_exposed(self):
        step = step_model.step([4, 4, 2], 0, 7.0, 1.0, lambda size: size / 2, overlap=False)
        self.assertAlmostEqual(step.communication, 5.0)
        self.assertAlmostEqual(step.seconds, 13.0)

    def test_models_have_their_sizes(self):
        self.assertEqual(step_model.MODELS["base"].parameters, 109514298)  # as `lathe bench step` counts them
        # docs/benchmarks.md's formula a token, by hand.
        self.assertAlmostEqual(step_model.MODELS["base"].operations(1) / 1e6, 545, delta=1)
        self.assertAlmostEqual(step_model.MODELS["large"].operations(1) / 1e6, 1879, delta=1)

    def test_a_gpu_alone_sums_and_gathers_nothing(self):
        machine, model = step_model.Machine(), step_model.MODELS["base"]
        for shard in (False, True):
            step = step_model.gpu_step(model, 1, 2048, machine, shard)
            self.assertEqual((step.communication, step.gather), (0.0, 0.0))
        self.assertAlmostEqual(step_model.gpu_step(model, 8, 2048, machine, True).optimizer * 8,
                               step_model.gpu_step(model, 8, 2048, machine, False).optimizer)

    def test_tables_say_what_they_are(self):
        text = step_model.table(step_model.MODELS["base"], 2048, step_model.Machine())
        self.assertIn("CALCULATED", text)
        self.assertEqual(text.count("\n"), 3 + len(step_model.GPUS))


if __name__ == "__main__":
    unittest.main()
