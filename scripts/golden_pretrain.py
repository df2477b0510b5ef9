#!/usr/bin/env python3
"""Trains a small BERT on masked words with PyTorch and Hugging Face, and writes the losses that Lathe's are compared with:
tests/golden/pretrain/losses.json.

    build/cpu/tests/pretrain_golden_inputs DATA FOLDER    # DATA holds wiki-sample and vocab, as LATHE_TEST_DATA names it
    scripts/golden_pretrain.py --inputs FOLDER [--threads 2]

The model has 4 layers, 128 channels and 4 heads, and trains from scratch for 300 steps of at most 2,048 tokens (tests/training/pretrain_golden.h).
It is trained twice:

same        Initial weights, batches and masks are Lathe's, as pretrain_golden_inputs wrote them; nothing is dropped. Each of the 300 losses must be
            Lathe's within 1 % (tests/training/pretrain_golden_test.cc).
own         With dropout 0.1, Hugging Face's initial weights, and batches and masks drawn here, for each of SEEDS; what is compared is the mean
            of the losses on a dev split, whose masks are Lathe's, after 25 and after 300 steps.

Both: AdamW with betas 0.9 and 0.999, epsilon 1e-8 and decay 0.01, but for biases and LayerNorm; gradients clipped to norm 1; a rate that rises to
1e-3 over 30 steps and falls to 0. fp32, eager attention. The head is computed for the masked tokens alone. What the file holds beside the losses is
what they are of: versions, and the hash of the batches.
"""
import argparse
import hashlib
import json
import os
import pathlib
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "pretrain" / "losses.json"
STEPS, WARMUP, RATE = 300, 30, 1e-3
BUDGET, PROBABILITY = 2048, 0.15
MEASURED = (25, 300)
SEEDS = (1, 3)


class Batches:
    """Batches as Lathe packed them."""

    def __init__(self, path):
        self.lists = {name: values.astype(np.int64) for name, values in load_file(path).items()}

    def __len__(self):
        return self.lists["first_token"].size - 1

    def part(self, name, first, i):
        begin, end = self.lists[first][i : i + 2]
        return self.lists[name][begin:end]

    def __getitem__(self, i):
        """Token ids by sequence, and the masked tokens' numbers and labels."""
        tokens = self.part("token", "first_token", i)
        ends = self.part("sequence_end", "first_sequence", i)
        return np.split(tokens, ends[:-1]), self.part("row_token", "first_row", i), self.part("label", "first_row", i)


def padded(sequences, rows):
    """A batch with padding, and the masked tokens' places in it."""
    lengths = np.array([s.size for s in sequences])
    ids = np.zeros((len(sequences), lengths.max()), np.int64)
    for line, sequence in zip(ids, sequences):
        line[: sequence.size] = sequence
    begins = np.cumsum(lengths) - lengths
    sequence = np.searchsorted(begins, rows, side="right") - 1
    places = sequence * ids.shape[1] + rows - begins[sequence]
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(places)


def loss_of(model, sequences, rows, labels, reduction="mean"):
    ids, mask, places = padded(sequences, rows)
    hidden = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = model.cls(hidden.reshape(-1, hidden.shape[-1])[places])
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction=reduction)


def dev_loss(model, batches):
    """The mean over all masked tokens of the dev split, a few sequences at a time."""
    training = model.training
    model.eval()
    sequences, rows, labels = batches[0]
    begins = np.cumsum([0] + [s.size for s in sequences])
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(sequences), 32):
            last = min(first + 32, len(sequences))
            inside = (rows >= begins[first]) & (rows < begins[last])
            if inside.any():
                total += loss_of(model, sequences[first:last], rows[inside] - begins[first], labels[inside], "sum").item()
    model.train(training)
    return total / rows.size


def optimizer_of(model):
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=RATE,
                                  betas=(0.9, 0.999), eps=1e-8)
    return optimizer, transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)


def train(model, batch_of, after=lambda steps: None):
    """The loss of each step."""
    optimizer, schedule = optimizer_of(model)
    losses = []
    begin = time.monotonic()
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, *batch_of(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        after(step + 1)
        if (step + 1) % 50 == 0:
            print(f"  step {step + 1}: loss {losses[-1]:.4f}, {(time.monotonic() - begin) / (step + 1):.2f} s a step", flush=True)
    return losses


def same(inputs):
    model, loading = transformers.BertForMaskedLM.from_pretrained(inputs / "model", dtype=torch.float32, attn_implementation="eager",
                                                                  output_loading_info=True)
    problems = {kind: sorted(map(str, loading.get(kind) or ())) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(problems.values()):
        sys.exit(f"the weights don't fit BertForMaskedLM: {problems}")
    if model.cls.predictions.decoder.weight.data_ptr() != model.bert.embeddings.word_embeddings.weight.data_ptr():
        sys.exit("the decoder isn't tied")
    model.train()  # the configuration's rates are 0
    batches = Batches(inputs / "batches.safetensors")
    if len(batches) != STEPS:
        sys.exit(f"{len(batches)} batches, not {STEPS}")
    return train(model, lambda step: batches[step])


class OwnBatches:
    """Sequences in random order, as many as fit into a batch, masked as Hugging Face's DataCollatorForLanguageModeling does."""

    def __init__(self, inputs, vocabulary, special, mask, seed):
        samples = load_file(inputs / "train.safetensors")
        self.sequences = np.split(samples["ids"].astype(np.int64), samples["offsets"][1:-1])
        self.vocabulary, self.special, self.mask = vocabulary, special, mask
        self.random = np.random.default_rng(seed)
        self.waiting = []

    def __call__(self, _):
        sequences, tokens = [], 0
        while True:
            if not self.waiting:
                self.waiting = self.random.permutation(len(self.sequences)).tolist()
            sequence = self.sequences[self.waiting[-1]]
            if tokens + sequence.size > BUDGET:
                break
            self.waiting.pop()
            sequences.append(sequence)
            tokens += sequence.size
        ids = np.concatenate(sequences)
        chosen = (self.random.random(ids.size) < PROBABILITY) & ~np.isin(ids, self.special)
        rows = np.flatnonzero(chosen)
        labels = ids[rows]
        kind = self.random.random(rows.size)
        stand_in = np.where(kind < 0.8, self.mask, np.where(kind < 0.9, self.random.integers(0, self.vocabulary, rows.size), labels))
        ids[rows] = stand_in
        return np.split(ids, np.cumsum([s.size for s in sequences])[:-1]), rows, labels


def own(inputs, seed):
    """The loss on the dev split after so many steps."""
    torch.manual_seed(seed)
    config = transformers.BertConfig.from_pretrained(inputs / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    config._attn_implementation = "eager"
    model = transformers.BertForMaskedLM(config)
    model.train()
    words = (inputs / "model" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    special = [words.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    dev = Batches(inputs / "dev.safetensors")
    measured = {}

    def after(steps):
        if steps in MEASURED:
            measured[str(steps)] = dev_loss(model, dev)

    train(model, OwnBatches(inputs, config.vocab_size, special, words.index("[MASK]"), seed), after)
    return measured


def main():
    parser = argparse.ArgumentParser(description="Write the losses that pre-training is compared with.")
    parser.add_argument("--inputs", type=pathlib.Path, required=True, help="what pretrain_golden_inputs wrote")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("same", "own"), help="write this part alone, and leave the other as the file has it")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of `own`; each replaces its part of the file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    golden = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    golden.update(torch=torch.__version__.split("+")[0], transformers=transformers.__version__,
                  batches_sha256=hashlib.sha256((arguments.inputs / "batches.safetensors").read_bytes()).hexdigest())
    if arguments.only != "own":
        golden["losses"] = [round(loss, 6) for loss in same(arguments.inputs)]
    if arguments.only != "same":
        for seed in arguments.seeds:
            golden.setdefault("own", {})[str(seed)] = {steps: round(loss, 6) for steps, loss in own(arguments.inputs, seed).items()}
            print(f"seed {seed}: {golden['own'][str(seed)]}")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
