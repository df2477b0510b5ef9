"""Prints each text beside its prediction, from `lathe predict`'s JSON lines."""

import json
import sys


def main(texts, predictions):
    with open(texts, encoding="utf-8") as file:
        lines = file.read().splitlines()
    with open(predictions, encoding="utf-8") as file:
        for record in map(json.loads, file):
            print(f"{record['label']:>8} {100 * record['score']:5.1f} %  {lines[record['line'] - 1]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
