#!/usr/bin/env python3
"""Writes what PyTorch and Hugging Face compute for real weights and for a small made-up BERT: tests/golden/model/*.safetensors.

    scripts/golden_model.py --model FOLDER     # FOLDER: config.json, model.safetensors and tokenizer of all-MiniLM-L6-v2

minilm.safetensors: all-MiniLM-L6-v2 with a made-up head for 2 classes, on the sentences of tests/golden/model/sentences.json, cut to
512 tokens. tiny.safetensors: a BERT of odd sizes with both token types, whose weights and inputs are made up, so that it is tested
where no weights are at hand.

Everything is computed twice, in fp32 and in float64. The files hold the float64 numbers, and as metadata how far PyTorch's own fp32
is from them, so that a test can hold fp32 to PyTorch's fp32 (by the triangle inequality) and double to float64, with one file. The
script refuses to write where the two differ by more than fp32's rounding explains. Each sentence runs alone, unpadded.

Tensors of a file, for B sequences of T tokens in all, C channels and K classes:
    ids, types I32 [T], offsets I32 [B+1]   what went in
    first F64 [B, C]                        last hidden state of each sequence's first token
    projections F64 [T, 16]                 signed sums of each token's last hidden state, see below
    logits F64 [B, K]                       of the head
    labels I32 [S], loss F64 []             a training step on the first S sequences, label i % K: mean cross-entropy, no dropout
    gradient/NAME F64 [1 + 64]              of that step: the norm of NAME's gradient, then its signed sums
    vector/NAME F32 [...]                   the gradient itself, where NAME has at most 2,048 elements
NAME is a tensor of the published file, or classifier.weight and classifier.bias.

Signed sums stand for tensors that would be too large to keep. Sum k adds up all elements of a tensor (of a token's hidden state), each
with its own sign: bit k of mix(element's number). The mean square of the differences of two tensors' sums is an unbiased estimate of
the squared norm of the tensors' difference, since the signs' products vanish on average; where one element differs, it is exactly that
element's error. So it bounds every element of a token's hidden state, and is what DESIGN's norm rule needs for gradients. What could
escape is an error of several elements that cancel: two of equal size cancel in a sum with probability 1/2, in all 16 of a token with
2^-16, and would have to in every token. With 64 sums the estimate has a relative deviation of at most 18 percent, and that it is less
than half of the truth has a probability below 1e-9.
"""
import argparse
import hashlib
import json
import os
import pathlib
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "model"
MAX_LENGTH = 512
TOKEN_SUMS = 16
GRADIENT_SUMS = 64
STEP_SEQUENCES = 16
LARGEST_VECTOR = 2048

# How far PyTorch's fp32 may be from float64 before something must be wrong.
HIDDEN_LIMIT = 2e-5
GRADIENT_LIMIT = 1e-4


def mix(x):
    """A 64-bit hash of each element (the finalizer of SplitMix64: Steele, Lea, Flood, 2014)."""
    x = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fnv1a(name):
    """The 64-bit FNV-1a hash of a name."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def made_up(name, shape):
    """Weights of at most 1/8 by magnitude, exact in fp32, as a formula of name and element; about 1 for a LayerNorm's weight."""
    with np.errstate(over="ignore"):
        bits = mix(np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(fnv1a(name)))
    values = ((bits >> np.uint64(48)).astype(np.float64) - 2.0**15) * 2.0**-18
    return torch.from_numpy((values + name.endswith("LayerNorm.weight")).reshape(shape))


def signed_sums(x, count):
    """The `count` signed sums of each row of x; of all of x where it is a vector."""
    rows = x.reshape(-1, x.shape[-1])
    sums = np.zeros((rows.shape[0], count))
    numbers = np.flatnonzero(rows.any(axis=0))  # most of a word embedding's gradient is zero
    for begin in range(0, numbers.size, 1 << 16):
        part = numbers[begin : begin + (1 << 16)]
        signs = 1.0 - 2.0 * ((mix(part)[:, None] >> np.arange(count, dtype=np.uint64)) & np.uint64(1)).astype(np.float64)
        sums += rows[:, part] @ signs
    return sums


class Model(torch.nn.Module):
    """BertModel and a linear head on its pooled output: BertForSequenceClassification without the dropout between them."""

    def __init__(self, bert, classes):
        super().__init__()
        self.bert = bert
        self.classifier = torch.nn.Linear(bert.config.hidden_size, classes)

    def forward(self, ids, types):
        out = self.bert(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types]))
        return out.last_hidden_state[0], self.classifier(out.pooler_output)[0]


def published_name(name):
    return name.removeprefix("bert.")


def compute(model, sequences, labels):
    """Hidden states, logits, and of a step on the first sequences the loss and all gradients, in the model's precision."""
    model.eval()
    with torch.no_grad():
        forward = [model(*sequence) for sequence in sequences]
    model.zero_grad()
    loss = 0.0
    for sequence, label in zip(sequences, labels):
        logits = model(*sequence)[1]
        part = torch.nn.functional.cross_entropy(logits, torch.tensor(label)) / len(labels)
        part.backward()
        loss += part.item()
    gradients = {published_name(n): p.grad.numpy().astype(np.float64) for n, p in model.named_parameters()}
    return [h.numpy() for h, _ in forward], np.stack([l.numpy() for _, l in forward]), loss, gradients


def norm_rule(a, b):
    """The least tolerance with which gradients a agree with b: max over tensors of |a - b| / max(|b|, 1e-4 |all of b|)."""
    everything = np.sqrt(sum((g**2).sum() for g in b.values()))
    return max(np.linalg.norm(a[n] - b[n]) / max(np.linalg.norm(b[n]), 1e-4 * everything) for n in b)


def golden(model, sequences, classes):
    """The file's tensors and metadata for a model that is in fp32; leaves it in float64."""
    labels = [i % classes for i in range(min(STEP_SEQUENCES, len(sequences)))]
    hidden32, logits32, loss32, gradients32 = compute(model, sequences, labels)
    hidden, logits, loss, gradients = compute(model.double(), sequences, labels)

    differences = {
        "fp32_hidden_difference": max(np.abs(a - b).max() for a, b in zip(hidden32, hidden)),
        "fp32_logits_difference": np.abs(logits32 - logits).max(),
        "fp32_loss_difference": abs(loss32 - loss),
        "fp32_gradient_difference": norm_rule(gradients32, gradients),
    }
    for name, value in differences.items():
        limit = GRADIENT_LIMIT if "gradient" in name else HIDDEN_LIMIT
        if not value <= limit:
            sys.exit(f"{name} is {value}, more than {limit}: something is wrong")

    tensors = {
        "ids": np.concatenate([np.array(ids, np.int32) for ids, _ in sequences]),
        "types": np.concatenate([np.array(types, np.int32) for _, types in sequences]),
        "offsets": np.cumsum([0] + [len(ids) for ids, _ in sequences]).astype(np.int32),
        "first": np.stack([h[0] for h in hidden]),
        "projections": np.concatenate([signed_sums(h, TOKEN_SUMS) for h in hidden]),
        "logits": logits,
        "labels": np.array(labels, np.int32),
        "loss": np.array(loss),
    }
    for name, gradient in gradients.items():
        tensors["gradient/" + name] = np.concatenate([[np.linalg.norm(gradient)], signed_sums(gradient.reshape(-1), GRADIENT_SUMS)[0]])
        if gradient.size <= LARGEST_VECTOR:
            tensors["vector/" + name] = gradient.astype(np.float32)
    metadata = {name: repr(float(value)) for name, value in differences.items()}
    metadata.update(torch=torch.__version__.split("+")[0], transformers=transformers.__version__, tokenizers=tokenizers.__version__)
    return tensors, metadata


def write(name, tensors, metadata):
    path = FOLDER / name
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, path, metadata)
    path.chmod(0o644)
    print(f"{path}: {path.stat().st_size} bytes, {tensors['offsets'].size - 1} sequences, {tensors['ids'].size} tokens")
    for key in sorted(metadata):
        print(f"  {key}: {metadata[key]}")


def minilm(folder):
    sentences = json.loads((FOLDER / "sentences.json").read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = [tokenizer(s, truncation=True, max_length=MAX_LENGTH) for s in sentences]
    sequences = [(e["input_ids"], e["token_type_ids"]) for e in encoded]
    model = Model(transformers.BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), 2)
    with torch.no_grad():
        for name in ("weight", "bias"):
            parameter = getattr(model.classifier, name)
            parameter.copy_(made_up("classifier." + name, parameter.shape))
    # In case someone runs the tests with other weights: what these are, to tell it from an error of the computation.
    dense = model.bert.pooler.dense.weight.detach().double().numpy()
    tensors, metadata = golden(model, sequences, 2)
    tensors["weights"] = signed_sums(dense.reshape(-1), GRADIENT_SUMS)[0]
    metadata["weights_sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    write("minilm.safetensors", tensors, metadata)


def tiny():
    config = transformers.BertConfig(vocab_size=97, hidden_size=36, num_hidden_layers=3, num_attention_heads=4, intermediate_size=70,
                                     max_position_embeddings=131, type_vocab_size=2, hidden_act="gelu_new", layer_norm_eps=1e-5,
                                     attn_implementation="eager")
    model = Model(transformers.BertModel(config), 3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(made_up(published_name(name), parameter.shape))
    sequences = []
    for i, length in enumerate([1, 2, 17, 131, 64, 65, 5, 33]):
        # From 1: Hugging Face's BERT lets no gradient into the embedding of [PAD], id 0.
        ids = 1 + (mix(np.arange(length, dtype=np.uint64) + np.uint64(1000 * i)) % np.uint64(96)).astype(np.int64)
        sequences.append((ids.tolist(), [int(2 * t >= length) for t in range(length)]))
    write("tiny.safetensors", *golden(model, sequences, 3))


def main():
    parser = argparse.ArgumentParser(description="Write the golden files of the model tests.")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    tiny()
    minilm(arguments.model)


if __name__ == "__main__":
    main()
