#!/usr/bin/env python3
"""Opens a folder that Lathe wrote with Hugging Face's transformers and compares what both make of the same texts.

    lathe predict --model FOLDER --data TEXTS --output PREDICTIONS
    scripts/check_model_folder.py --model FOLDER --data TEXTS --predictions PREDICTIONS [--max-length 128]

TEXTS is a text a line (.txt), or a TSV with a column `text` or `sentence`. PREDICTIONS are the JSON lines of `lathe predict`. Compared
are the class names, the label of each text, all probabilities, and the logits less their mean, which the logarithms of the
probabilities give back. Exits with 1 where a difference exceeds --tolerance, or a text has no prediction.
"""
import argparse
import json
import os
import pathlib
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import torch
import transformers


def read_texts(path):
    """The texts by physical line, from 1, as predictions number them."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        lines = [line.rstrip("\r\n") for line in file]
    if path.suffix != ".tsv":
        return dict(enumerate(lines, 1))
    header = lines[0].split("\t")
    columns = [header.index(name) for name in ("text", "sentence") if name in header]
    if not columns:
        sys.exit(f"{path}: no column text or sentence, only {', '.join(header)}")
    return {number: line.split("\t")[columns[0]] for number, line in enumerate(lines[1:], 2)}


def classify(folder, texts, max_length, batch_size=32):
    """Logits [texts, classes] in fp32 and the names of the classes."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32,
                                                                                     output_loading_info=True)
    problems = {kind: sorted(map(str, loading.get(kind) or ())) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(problems.values()):
        sys.exit(f"{folder}: the weights don't fit transformers' model: {problems}")
    model.eval()
    logits = torch.empty(len(texts), model.config.num_labels)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.no_grad():
        for begin in range(0, len(texts), batch_size):
            members = by_length[begin : begin + batch_size]
            batch = tokenizer([texts[i] for i in members], truncation=True, max_length=max_length, padding=True, return_tensors="pt")
            logits[members] = model(**batch).logits
    return logits, [model.config.id2label[i] for i in range(model.config.num_labels)]


def main():
    parser = argparse.ArgumentParser(description="Compare `lathe predict` with transformers on a model folder.")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--predictions", type=pathlib.Path, required=True)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()

    texts = read_texts(arguments.data)
    predictions = [json.loads(line) for line in arguments.predictions.read_text(encoding="utf-8").splitlines()]
    numbers = [p["line"] for p in predictions]
    if not predictions or len(set(numbers)) != len(numbers) or not set(numbers) <= set(texts):
        sys.exit(f"{arguments.predictions}: {len(predictions)} predictions that don't number the lines of {arguments.data}")
    left = [n for n in texts if n not in set(numbers) and texts[n].strip()]
    if left:
        sys.exit(f"{arguments.predictions}: no prediction for {len(left)} texts, the first in line {left[0]}")

    logits, names = classify(arguments.model, [texts[n] for n in numbers], arguments.max_length)
    if any(set(p["scores"]) != set(names) for p in predictions):
        sys.exit(f"the classes differ: {sorted(predictions[0]['scores'])} and, by config.json, {names}")
    scores = torch.tensor([[p["scores"][name] for name in names] for p in predictions], dtype=torch.float64)
    expected = torch.softmax(logits.double(), dim=1)
    centered = lambda x: x - x.mean(dim=1, keepdim=True)
    probability = (scores - expected).abs().max().item()
    logit = (centered(scores.log()) - centered(logits.double())).abs().max().item()
    # A label may differ only where the two best classes are as near as the tolerance.
    best = expected.gather(1, torch.tensor([[names.index(p["label"])] for p in predictions])).squeeze(1)
    labels = int((best < expected.max(dim=1).values - arguments.tolerance).sum())
    reported = max(abs(p["score"] - p["scores"][p["label"]]) for p in predictions)
    print(f"{len(predictions)} texts, {len(names)} classes: probabilities differ by at most {probability:.2e}, logits by {logit:.2e}, "
          f"{labels} labels differ; score and scores differ by {reported:.1e}")
    # `not <=`: NaN is a difference.
    if not probability <= arguments.tolerance or not logit <= arguments.tolerance or labels or not reported <= 1e-9:
        sys.exit(1)


if __name__ == "__main__":
    main()
