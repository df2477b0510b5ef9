#!/usr/bin/env python3
"""Makes malformed and odd inputs for every file that Lathe reads, each with what must become of it.

    scripts/hostile_inputs.py --list            # number, name and outcome of each
    scripts/hostile_inputs.py --write FOLDER    # each in a folder of its own, with its call in case.json

tests/tools/hostile_inputs_test.py runs the command on all of them. Outcomes follow from the formats' rules (safetensors' own, RFC 8259,
RFC 4180, Hugging Face's tokenizer files, and the limits that Lathe's headers state), never from what Lathe does: where bits are flipped
at random, the judges below (`judge_*`) read the result with Python's own parsers and decide, and flips that the rules leave open are
not used. The same seed gives the same inputs. Only the standard library is needed.
"""
import argparse
import json
import pathlib
import random
import re
import struct
import sys
import tomllib
from typing import Callable, Iterable, NamedTuple, Optional, Union

SEED = 20240607
ACCEPTED, REFUSED = "accepted", "refused"
Contents = Union[bytes, Callable[[], Iterable[bytes]]]  # a function makes the large ones piece by piece


class Case(NamedTuple):
    name: str
    command: str  # finetune or predict
    path: str  # the file that is odd, below the case's folder: model/config.json, train.tsv
    contents: Optional[Contents]  # None: a folder of that name
    outcome: str
    facts: tuple  # patterns of which one must be in the message


# --- A model and data that are in order ----------------------------------------------------------------------------------------------

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good", "bad", "great", "dull", "very", "not", "##ly", ".",
              "it", "is", "warm", "cold", "and", "fine"]
HIDDEN, HEADS, LAYERS, WIDE, POSITIONS, TYPES = 16, 2, 1, 32, 32, 2
CONFIG = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN, "initializer_range": 0.02, "intermediate_size": WIDE, "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS, "model_type": "bert", "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
    "pad_token_id": 0, "type_vocab_size": TYPES, "vocab_size": len(VOCABULARY),
}
LABELS = {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}}
TRAIN = [("a good film", "positive"), ("it is bad", "negative"), ("very warm .", "positive"), ("a dull film", "negative"),
         ("not good", "negative"), ("fine and warm", "positive"), ("it is cold", "negative"), ("great", "positive"),
         ("bad bad film", "negative"), ("very good", "positive"), ("dull and cold", "negative"), ("a great film", "positive")]


def shapes(head=False):
    """Names and shapes of a BERT's tensors, in the order of its forward pass."""
    result = {
        "embeddings.word_embeddings.weight": [len(VOCABULARY), HIDDEN],
        "embeddings.position_embeddings.weight": [POSITIONS, HIDDEN],
        "embeddings.token_type_embeddings.weight": [TYPES, HIDDEN],
        "embeddings.LayerNorm.weight": [HIDDEN], "embeddings.LayerNorm.bias": [HIDDEN],
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        for name, out, into in (("attention.self.query", HIDDEN, HIDDEN), ("attention.self.key", HIDDEN, HIDDEN),
                                ("attention.self.value", HIDDEN, HIDDEN), ("attention.output.dense", HIDDEN, HIDDEN),
                                ("attention.output.LayerNorm", HIDDEN, None), ("intermediate.dense", WIDE, HIDDEN),
                                ("output.dense", HIDDEN, WIDE), ("output.LayerNorm", HIDDEN, None)):
            result[f"{prefix}{name}.weight"] = [out] if into is None else [out, into]
            result[f"{prefix}{name}.bias"] = [out]
    result["pooler.dense.weight"], result["pooler.dense.bias"] = [HIDDEN, HIDDEN], [HIDDEN]
    if head:
        result["classifier.weight"], result["classifier.bias"] = [2, HIDDEN], [2]
    return result


def product(shape):
    result = 1
    for dimension in shape:
        result *= dimension
    return result


def values(name, shape):
    generator = random.Random(name)
    if name.endswith("LayerNorm.weight"):
        return [1.0] * product(shape)
    return [generator.gauss(0, 0.05) for _ in range(product(shape))]


CODES = {"F32": ("f", 4), "F64": ("d", 8), "F16": ("e", 2)}


def data_of(name, shape, dtype="F32"):
    numbers = values(name, shape)
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in numbers)
    return struct.pack(f"<{len(numbers)}{CODES[dtype][0]}", *numbers)


def weights(tensors=None, dtype="F32", head=False):
    """Header and data of a safetensors file of `tensors`, name -> shape."""
    header, data = {}, b""
    for name, shape in (tensors or shapes(head)).items():
        raw = data_of(name, shape, dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def safetensors(header, data, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tokenizer_json():
    special = [{"id": i, "content": VOCABULARY[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i in range(5)]
    cls, sep = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                       "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [cls, first, sep],
            "pair": [cls, first, sep, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (("[CLS]", 2), ("[SEP]", 3))}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": {token: i for i, token in enumerate(VOCABULARY)}},
    }


def vocab_txt(tokens=None):
    return "".join(token + "\n" for token in (tokens or VOCABULARY)).encode()


RUN_TOML = (b"# The settings of this run of Lathe, all resolved, in the names of the command line.\n\n[finetune]\n"
            b"text-column = \"text\"\npair-column = \"\"\nlabel-column = \"label\"\nbatch-size = 8\nmax-length = 16\n")


def tsv(rows=None):
    return ("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in (rows or TRAIN))).encode()


def csv(rows=None):
    return ("text,label\n" + "".join(f"{text},{label}\n" for text, label in (rows or TRAIN))).encode()


def jsonl(rows=None):
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in (rows or TRAIN)).encode()


def base_files(command):
    """What a case's folder holds before its odd file takes the place of one of these."""
    head = command == "predict"
    return {
        "model/config.json": json.dumps(CONFIG | (LABELS | {"architectures": ["BertForSequenceClassification"]} if head else {}),
                                        indent=2).encode(),
        "model/model.safetensors": safetensors(*weights(head=head)),
        "model/vocab.txt": vocab_txt(),
        "train.tsv": tsv(),
    }


# --- Judges: what the rules say of a file that was changed at random ------------------------------------------------------------------

def strict_json(data, repair=False):
    """RFC 8259 with the rules that all of Lathe's JSON shares: UTF-8, no duplicate keys, no NaN, no lone surrogates. ValueError."""
    def members(pairs):
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse(constant):
        raise ValueError(constant)

    text = data.decode("utf-8", "replace" if repair else "strict")
    if "\0" in text:
        raise ValueError("NUL")
    document = json.loads(text, object_pairs_hook=members, parse_constant=refuse)
    json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate from an escape can't be written
    return document


def judge_safetensors(raw):
    if len(raw) < 8:
        return REFUSED
    length = struct.unpack("<Q", raw[:8])[0]
    text = raw[8:8 + length] if length <= len(raw) - 8 else b""
    if not text.startswith(b"{"):
        return REFUSED
    try:
        header = strict_json(text)
    except ValueError:
        return REFUSED
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return REFUSED
    end = 0
    for tensor in header.values():
        if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"} or tensor["dtype"] != "F32":
            return REFUSED
        numbers = tensor["shape"] + tensor["data_offsets"] if isinstance(tensor["shape"], list) else [-1]
        if any(type(number) is not int or number < 0 for number in numbers):
            return REFUSED
    for tensor in sorted(header.values(), key=lambda tensor: tensor["data_offsets"]):
        begin, stop = tensor["data_offsets"]
        if begin != end or stop - begin != 4 * product(tensor["shape"]):
            return REFUSED
        end = stop
    if end != len(raw) - 8 - length:
        return REFUSED
    required = {name: shape for name, shape in shapes().items() if not name.startswith("pooler")}
    found = {name: tensor["shape"] for name, tensor in header.items()}
    return ACCEPTED if all(found.get(name) == shape for name, shape in required.items()) else REFUSED


def judge_config(raw):
    """None where the rules leave it open: a number or an activation that was changed into another that is fine as well."""
    try:
        config = strict_json(raw)
    except ValueError:
        return REFUSED
    if not isinstance(config, dict):
        return REFUSED
    for key, value in CONFIG.items():
        if key not in config and key in ("hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads",
                                         "num_hidden_layers", "vocab_size"):
            return REFUSED
        if key in config and config[key] != value:
            return REFUSED if isinstance(value, int) and key not in ("num_attention_heads", "pad_token_id") else None
    return ACCEPTED


def judge_vocabulary(raw):
    lines = raw.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    tokens = [line[:-1] if line.endswith(b"\r") else line for line in lines]
    try:
        tokens = [token.decode() for token in tokens]
    except UnicodeDecodeError:
        return REFUSED
    whole = all(tokens) and len(set(tokens)) == len(tokens) == len(VOCABULARY)
    return ACCEPTED if whole and {"[UNK]", "[CLS]", "[SEP]"} <= set(tokens) else REFUSED


def judge_tokenizer(raw):
    try:
        document = strict_json(raw)
    except ValueError:
        return REFUSED
    tokens = document.get("model", {}).get("vocab", {}) if isinstance(document, dict) else {}
    if not isinstance(tokens, dict):
        return None
    same = tokenizer_json()
    same["model"]["vocab"] = tokens
    ids = sorted(value for value in tokens.values() if type(value) is int)
    specials = all(tokens.get(VOCABULARY[i]) == i for i in range(5))
    return ACCEPTED if document == same and ids == list(range(len(VOCABULARY))) and specials and len(tokens) == len(ids) else None


def judge_rows(records):
    """Of (text, label) pairs: two classes, or more where each has ten records."""
    classes = {label for _, label in records}
    if not records or b"" in classes or len(classes) < 2 or (len(classes) > 2 and 10 * len(classes) > len(records)):
        return REFUSED
    return ACCEPTED


def judge_tsv(raw):
    lines = [line[:-1] if line.endswith(b"\r") else line for line in raw.split(b"\n")]
    rows = [line.split(b"\t") for line in lines if line]
    if not rows or any(len(row) != 2 for row in rows) or rows[0].count(b"label") != 1:
        return REFUSED
    if rows[0][0] != b"text":  # another name serves as well, where it is one: this is the only column beside the label's
        return None
    return judge_rows(rows[1:])


def judge_jsonl(raw):
    records = []
    for line in raw.split(b"\n"):
        if not line.strip():
            continue
        try:
            record = strict_json(line, repair=True)
            text, label = record["text"], record["label"]
        except (ValueError, KeyError, TypeError):
            return REFUSED
        if not isinstance(text, str) or not isinstance(label, str):
            return None
        records.append((text, label.encode()))
    return judge_rows(records)


def flips(raw, count, judge, generator, begin=0, end=None):
    """`count` different single-bit changes of which the judge knows what must happen: (name, contents, outcome)."""
    done = set()
    while len(done) < count:
        at, bit = generator.randrange(begin, len(raw) if end is None else end), generator.randrange(8)
        if (at, bit) in done:
            continue
        changed = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1:]
        outcome = judge(changed)
        if outcome is not None:
            done.add((at, bit))
            yield f"bit {bit} of byte {at} flipped", changed, outcome


# --- The cases -----------------------------------------------------------------------------------------------------------------------

PLACE = (r"offset \d+", r"byte \d+", r"line \d+", r"tensor\b", r"header", r"key ", r"\d+ bytes", r"has no ", r"missing")


def repeated(piece, count, before=b"", after=b""):
    """Contents of count pieces, made a mebibyte at a time."""
    def pieces():
        yield before
        many = max(1, (1 << 20) // len(piece))
        for _ in range(count // many):
            yield piece * many
        yield piece * (count % many)
        yield after
    return pieces


def safetensors_cases(generator):
    path, header, data = "model/model.safetensors", *weights()
    whole = safetensors(header, data)
    start = len(whole) - len(data)
    first, second = list(header)[:2]
    query, key = "encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.key.weight"

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"safetensors: {name}", "finetune", path, contents, outcome, facts or PLACE)

    def changed(tensor, **fields):
        copy = json.loads(json.dumps(header))
        copy[tensor].update(fields)
        for field in [field for field, value in fields.items() if value == "(absent)"]:
            del copy[tensor][field]
        return safetensors(copy, data)

    def named(tensor):
        return re.escape(tensor[:20])

    for size in [0, 1, 7, 8, 9, 20, start // 2, start - 1, start, start + 1] + generator.sample(range(start + 2, len(whole)), 20):
        facts = (rf"\b{size} bytes", rf"\b{size}\b") if size < 8 or size >= start else (rf"\b{size}\b", "header")
        yield case(f"cut to {size} of {len(whole)} bytes", whole[:size], REFUSED, *facts)
    for extra in (b"\0", b"\xff" * 4, bytes(1000), whole):
        yield case(f"{len(extra)} bytes behind the end", whole + extra, REFUSED, rf"offset {len(whole)}\b")
    for length in (0, 1, 2, start - 9, start - 7, start, len(whole) - 8, len(whole), 1 << 31, 1 << 32, 100_000_001, 10**18, (1 << 63) - 1,
                   1 << 63, (1 << 64) - 1, int.from_bytes(struct.pack("<Q", start - 8), "big")):
        yield case(f"a header length of {length}", safetensors(header, data, length), REFUSED, "header", "offset 0")
    for name, contents, outcome in flips(whole, 16, judge_safetensors, generator, 0, 8):
        yield case(name, contents, outcome, "header", "offset 0")
    for name, contents, outcome in flips(whole, 70, judge_safetensors, generator, 8, start):
        yield case(name, contents, outcome)
    for _ in range(20):
        at = start + 4 * generator.randrange(len(data) // 4)
        bit = generator.randrange(23)  # of the mantissa: another number, none that isn't one
        flipped = bytes([whole[at + bit // 8] ^ 1 << bit % 8])
        yield case(f"bit {bit} of the number at {at} flipped", whole[:at + bit // 8] + flipped + whole[at + bit // 8 + 1:], ACCEPTED)
    for tensor in (first, query, "pooler.dense.bias"):
        for name, number in (("NaN", b"\0\0\xc0\x7f"), ("infinity", b"\0\0\x80\x7f"), ("-infinity", b"\0\0\x80\xff")):
            at = start + header[tensor]["data_offsets"][0]
            yield case(f"{name} in {tensor}", whole[:at] + number + whole[at + 4:], REFUSED, named(tensor))

    for tensor in (first, query, "pooler.dense.bias"):
        begin, end = header[tensor]["data_offsets"]
        for name, offsets in (("reversed", [end, begin]), ("one short", [begin, end - 4]), ("one long", [begin, end + 4]),
                              ("negative", [-4, end]), ("fractional", [begin + 0.5, end]), ("an exponent", [float(begin), end]),
                              ("strings", [str(begin), str(end)]), ("null", None), ("one", [begin]), ("three", [begin, end, end]),
                              ("empty", []), ("nested", [[begin, end]]), ("2^63", [begin, 1 << 63]), ("2^64", [1 << 64, 1 << 65]),
                              ("10^400", [begin, 10**400]), ("absent", "(absent)")):
            yield case(f"data_offsets of {tensor} {name}", changed(tensor, data_offsets=offsets), REFUSED, named(tensor), r"header, byte \d+")
        for name, dtype in (("unknown", "F31"), ("in small letters", "f32"), ("empty", ""), ("a number", 32), ("null", None),
                            ("a list", ["F32"]), ("absent", "(absent)"), ("of 8 bits", "U8"), ("of 64 bits", "F64"),
                            ("1,000 bytes long", "F" * 1000), ("with an escape sequence", "\x1b[31mF32")):
            yield case(f"dtype of {tensor} {name}", changed(tensor, dtype=dtype), REFUSED, named(tensor))
        yield case(f"dtype of {tensor} integers of its size", changed(tensor, dtype="I32"), REFUSED, named(tensor))
        shape = header[tensor]["shape"]
        for name, other in (("negative", [-1] + shape), ("beyond 2^63", [1 << 63]), ("of an overflowing product", [1 << 32, 1 << 32]),
                            ("of 2^62 elements", [1 << 62]), ("fractional", [0.5]), ("strings", [str(d) for d in shape]),
                            ("null", None), ("absent", "(absent)"), ("nested", [shape]), ("of 65 dimensions", [1] * 65),
                            ("of 10,000 dimensions", [1] * 10_000), ("with a 0", shape + [0]), ("true", [True])):
            yield case(f"shape of {tensor} {name}", changed(tensor, shape=other), REFUSED, named(tensor))
    copy = json.loads(json.dumps(header))
    copy[first]["shape"] = copy[first]["shape"][::-1]
    yield case("a matrix's dimensions swapped", safetensors(copy, data), REFUSED, named(first))
    copy = json.loads(json.dumps(header))
    copy[first]["data_offsets"], copy[second]["data_offsets"] = copy[second]["data_offsets"], copy[first]["data_offsets"]
    yield case("offsets of two tensors of unlike size swapped", safetensors(copy, data), REFUSED, "tensor")
    copy = json.loads(json.dumps(header))
    copy[query]["data_offsets"], copy[key]["data_offsets"] = copy[key]["data_offsets"], copy[query]["data_offsets"]
    yield case("offsets of two tensors of one size swapped: an order is as good as another", safetensors(copy, data), ACCEPTED)
    copy = json.loads(json.dumps(header))
    copy[key]["data_offsets"] = copy[query]["data_offsets"]
    yield case("two tensors over one another", safetensors(copy, data), REFUSED, "tensor")
    for tensor in header:
        optional = tensor.startswith("pooler")
        rest = {name: shape for name, shape in shapes().items() if name != tensor}
        yield case(f"without {tensor}", safetensors(*weights(rest)), ACCEPTED if optional else REFUSED, named(tensor))
    for name, extra, outcome in (("unknown tensor", "something.else", ACCEPTED), ("pretraining head", "cls.predictions.bias", ACCEPTED),
                                 ("encoder layer beyond the last", "encoder.layer.7.output.dense.bias", REFUSED),
                                 ("tensor under two names", "bert." + query, REFUSED),
                                 ("name of 900 bytes", "n" * 900, ACCEPTED), ("name of 2,000 bytes", "n" * 2000, REFUSED),
                                 ("name with an escape sequence", "\x1b[2J\x07", ACCEPTED), ("name without letters", "", ACCEPTED)):
        yield case(f"one more tensor, {name}", safetensors(*weights(shapes() | {extra: [3]})), outcome)
    empty = dict(header, nothing={"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]})
    yield case("a tensor of no elements", safetensors(empty, data), ACCEPTED)
    for dtype in ("F64", "F16", "BF16"):
        yield case(f"all in {dtype}", safetensors(*weights(dtype=dtype)), ACCEPTED)

    text = json.dumps(header).encode()
    body = text[1:]
    for name, contents, outcome in (
            ("a space in front", b" " + text, REFUSED), ("a byte order mark in front", b"\xef\xbb\xbf" + text, REFUSED),
            ("spaces behind", text + b" " * 100, ACCEPTED), ("NUL bytes behind", text + bytes(8), REFUSED),
            ("text behind", text + b"{}", REFUSED), ("a comma behind", text[:-1] + b",}", REFUSED), ("a comment", b"{/*x*/" + body, REFUSED),
            ("single quotes", text.replace(b'"', b"'"), REFUSED), ("a list", b"[" + text + b"]", REFUSED), ("nothing", b"", REFUSED),
            ("an empty object", b"{}", REFUSED), ("null", b"null", REFUSED), ("a bad escape", b'{"\\x": 1,' + body, REFUSED),
            ("a lone surrogate", b'{"\\ud800": {"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + body, REFUSED),
            ("ill-formed UTF-8", b'{"\xff": {"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + body, REFUSED),
            ("a control character", b'{"\x01": {"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + body, REFUSED),
            ("metadata", b'{"__metadata__": {"format": "pt"},' + body, ACCEPTED),
            ("metadata twice", b'{"__metadata__": {}, "__metadata__": {},' + body, REFUSED),
            ("metadata of numbers", b'{"__metadata__": {"a": 1},' + body, REFUSED), ("metadata null", b'{"__metadata__": null,' + body, REFUSED),
            ("metadata nested", b'{"__metadata__": {"a": {"b": "c"}},' + body, REFUSED),
            ("a tensor twice", b"{" + json.dumps({first: header[first]}).encode()[1:-1] + b"," + body, REFUSED),
            ("a key twice in a tensor", text.replace(b'{"dtype": "F32"', b'{"dtype": "F32", "dtype": "F32"', 1), REFUSED),
            ("a key of no meaning in a tensor", text.replace(b'{"dtype": "F32"', b'{"note": "F32", "dtype": "F32"', 1), REFUSED),
            ("a tensor that is a list", b'{"x": [],' + body, REFUSED), ("a tensor that is a number", b'{"x": 1e999,' + body, REFUSED),
            ("1,000 levels of lists", b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b"," + body, REFUSED),
            ("100,000 levels of objects", b'{"x": ' + b'{"x":' * 100_000, REFUSED)):
        yield case(f"header with {name}", safetensors(contents, data), outcome)
    for name, contents in (("a zip file", b"PK\x03\x04" + bytes(200)), ("a pickle", b"\x80\x02}q\0." + bytes(200)),
                           ("a pointer of git-lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n"),
                           ("a web page", b"<!DOCTYPE html><html>Not Found</html>"), ("bytes without sense", generator.randbytes(5000))):
        yield case(f"is {name}", contents)
    yield Case("safetensors: is a folder", "finetune", path, None, REFUSED, ("folder", "no model.safetensors"))
    big = 100_000_000
    yield case("100 MB of open brackets", repeated(b"[", big, struct.pack("<Q", big)))
    yield case("100 MB of metadata", numbered_metadata(big))
    yield case("100 MB of spaces in the header", repeated(b" ", big - len(text), struct.pack("<Q", big) + text, data), ACCEPTED)


def numbered_metadata(size):
    """A header of `size` bytes: one object of millions of short strings under different keys."""
    def pieces():
        yield struct.pack("<Q", size) + b'{"__metadata__":{'
        left, number = size - 17, 0
        while left > 20_000:
            piece = b"".join(b'"%d":"",' % (number + i) for i in range(1000))
            number += 1000
            left -= len(piece)
            yield piece
        yield b'"x":""}}'.ljust(left)
    return pieces


def config_cases(generator):
    path, whole = "model/config.json", json.dumps(CONFIG, indent=2).encode()

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"config.json: {name}", "finetune", path, contents, outcome, facts or PLACE)

    def encoded(**fields):
        return json.dumps(CONFIG | fields, indent=2).encode()

    for size in generator.sample(range(1, len(whole)), 12):
        yield case(f"cut to {size} bytes", whole[:size], REFUSED, r"line \d+")
    for name, contents, outcome in flips(whole, 45, judge_config, generator):
        yield case(name, contents, outcome, *PLACE, "config.json", "tokens")
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
             "type_vocab_size")
    for key in sizes:
        for name, value in (("text", "12"), ("-1", -1), ("0", 0), ("fractional", 16.5), ("2^63", 1 << 63), ("2^64", 1 << 64),
                            ("true", True), ("a list", [16]), ("beyond all models", 2_000_000_000)):
            yield case(f"{key} {name}", encoded(**{key: value}), REFUSED, key)
        if key != "type_vocab_size":
            yield case(f"{key} null", encoded(**{key: None}), REFUSED, key)
            yield case(f"{key} absent", json.dumps({k: v for k, v in CONFIG.items() if k != key}).encode(), REFUSED, key)
    for key in ("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
        for name, value in (("text", '"0.1"'), ("-0.1", "-0.1"), ("1e400", "1e400"), ("NaN", "NaN"), ("100", "100")):
            yield case(f"{key} {name}", re.sub(rf'"{key}": [^,\n]+'.encode(), f'"{key}": {value}'.encode(), whole), REFUSED, key, r"line \d+")
    for key, value in (("model_type", "gpt2"), ("model_type", 5), ("hidden_act", "swish2"), ("hidden_act", 1),
                       ("position_embedding_type", "relative_key"), ("is_decoder", True), ("add_cross_attention", True),
                       ("pruned_heads", {"0": [1]}), ("quantization_config", {}), ("architectures", "BertModel"), ("num_labels", -1),
                       ("num_labels", 10**9), ("id2label", {"0": "a", "2": "b"}), ("id2label", {"0": "a", "1": "a"}),
                       ("id2label", {"0": 1, "1": 2}), ("id2label", {"00": "a", "1": "b"}), ("id2label", ["a", "b"]),
                       ("id2label", {"x" * 5000: "a"}), ("pad_token_id", 21), ("pad_token_id", -1), ("problem_type", 3)):
        yield case(f"{key} is {json.dumps(value)[:40]}", encoded(**{key: value}), REFUSED, key)
    yield case("label2id contradicts id2label", encoded(id2label={"0": "a", "1": "b"}, label2id={"a": 1, "b": 0}), REFUSED, "label2id")
    yield case("num_labels contradicts id2label", encoded(id2label={"0": "a", "1": "b"}, num_labels=3), REFUSED, "num_labels")
    for key, value, fact in (("hidden_size", 32, "tensor"), ("intermediate_size", 33, "tensor"), ("max_position_embeddings", 31, "tensor"),
                             ("type_vocab_size", 3, "tensor"), ("num_hidden_layers", 2, "tensor"), ("vocab_size", 22, "22")):
        yield case(f"{key} {value} where the weights have another", encoded(**{key: value}), REFUSED, fact)
    for name, contents, outcome in (
            ("a byte order mark", b"\xef\xbb\xbf" + whole, ACCEPTED), ("CRLF", whole.replace(b"\n", b"\r\n"), ACCEPTED),
            ("UTF-16", whole.decode().encode("utf-16"), REFUSED), ("a NUL byte at the end", whole + b"\0", REFUSED),
            ("a NUL byte inside", whole[:40] + b"\0" + whole[40:], REFUSED), ("text behind", whole + b"x", REFUSED),
            ("another document behind", whole + whole, REFUSED),
            ("a key twice", whole.replace(b"{", b'{"hidden_size": 16,', 1), REFUSED),
            ("ill-formed UTF-8", encoded(note="x").replace(b'"x"', b'"\xc3"'), REFUSED),
            ("an escape sequence in a key", encoded(**{"\x1b[2J": 1}), ACCEPTED),
            ("20 levels under a key of no meaning", whole.replace(b"{", b'{"x": ' + b"[" * 20 + b"]" * 20 + b",", 1), ACCEPTED),
            ("1,000 levels", whole.replace(b"{", b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b",", 1), REFUSED),
            ("100,000 levels", whole.replace(b"{", b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b",", 1), REFUSED),
            ("nothing", b"", REFUSED), ("spaces", b" \n ", REFUSED), ("null", b"null", REFUSED), ("a list", b"[]", REFUSED),
            ("an empty object", b"{}", REFUSED), ("a number", b"42", REFUSED), ("a comment", b"// x\n" + whole, REFUSED)):
        yield case(f"with {name}", contents, outcome, *PLACE, "expected an object")
    yield Case("config.json: is a folder", "finetune", path, None, REFUSED, ("folder", "no config.json"))
    yield case("100 MB in one line", repeated(b"x", 100_000_000, b'{"x": "', b'"}'), REFUSED, r"\d+ bytes")
    yield case("8 MB of zeros under a key of no meaning", repeated(b"0,", 4_000_000, b'{"x": [', b"0]," + whole[1:]), ACCEPTED)


def tokenizer_cases(generator):
    path, document = "model/tokenizer.json", tokenizer_json()
    whole = json.dumps(document, ensure_ascii=False).encode()
    vocab_at, vocab_end = whole.index(b'"vocab"'), len(whole)

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"tokenizer.json: {name}", "finetune", path, contents, outcome, facts or PLACE)

    def changed(where, value):
        """`document` with the value at the dotted path replaced; "(absent)" takes it away."""
        copy = json.loads(json.dumps(document))
        *parents, last = [int(part) if part.isdigit() else part for part in where.split("/")]
        holder = copy
        for part in parents:
            holder = holder[part]
        if value == "(absent)":
            del holder[last]
        else:
            holder[last] = value
        return json.dumps(copy).encode()

    yield case("in order", whole, ACCEPTED)
    for size in generator.sample(range(1, len(whole)), 12):
        yield case(f"cut to {size} bytes", whole[:size], REFUSED, r"byte \d+")
    for name, contents, outcome in flips(whole, 25, judge_tokenizer, generator):
        yield case(name, contents, outcome)
    for name, contents, outcome in flips(whole, 15, judge_tokenizer, generator, vocab_at, vocab_end):
        yield case("vocabulary: " + name, contents, outcome)
    for where in ("model", "normalizer", "pre_tokenizer", "post_processor", "model/unk_token", "model/vocab",
                  "model/continuing_subword_prefix", "model/max_input_chars_per_word", "normalizer/type", "normalizer/lowercase",
                  "normalizer/clean_text", "pre_tokenizer/type", "post_processor/type", "post_processor/single", "post_processor/pair",
                  "post_processor/special_tokens", "added_tokens/0/content", "added_tokens/0/id", "added_tokens/0/normalized"):
        field = where.split("/")[-1]
        yield case(f"{where} absent", changed(where, "(absent)"), REFUSED, field)
        yield case(f"{where} a fraction", changed(where, 0.5), REFUSED, field)
    for where, value, fact in (
            ("version", "2.0", "version"), ("model/type", "BPE", "model.type"), ("model/type", 1, "model.type"),
            ("model/unk_token", "<unk>", "unk_token"), ("model/vocab", {}, "vocab"), ("model/vocab", [], "vocab"),
            ("model/max_input_chars_per_word", -1, "max_input"), ("model/max_input_chars_per_word", 1 << 64, "max_input"),
            ("model/vocab/film", -1, "vocab"), ("model/vocab/film", 6.0, "vocab"), ("model/vocab/film", "6", "vocab"),
            ("model/vocab/film", None, "vocab"), ("model/vocab/film", 5, "vocab"), ("model/vocab/film", 1 << 22, "vocab"),
            ("model/vocab/film", 1 << 63, "vocab"), ("model/vocab/film", 1 << 64, "vocab"), ("model/vocab/film", [], "vocab"),
            ("model/vocab/film", {"a": 1}, "vocab"), ("model/vocab/film", 1000, "1001"), ("model/vocab/" + "x" * 10_000, -1, "vocab"),
            ("model/vocab/\x1b[2J", -1, r"\\x1B"), ("normalizer/type", "NFC", "normalizer"), ("pre_tokenizer/type", "Whitespace", "pre_tok"),
            ("pre_tokenizer", None, "pre_tok"), ("post_processor", None, "post_processor"), ("post_processor/type", "Roberta", "post_pro"),
            ("post_processor/single", [], "single"), ("post_processor/pair", [], "pair"), ("post_processor/single/1", {}, "single"),
            ("post_processor/single/1/Sequence/id", "C", "single"), ("post_processor/single/1/Sequence/type_id", -1, "single"),
            ("post_processor/special_tokens/[CLS]/ids", [99], "ids"), ("post_processor/special_tokens/[CLS]", {}, "special_tokens"),
            ("added_tokens", {}, "added_tokens"), ("added_tokens/4/id", 77, "added_tokens"), ("added_tokens/1/content", "", "added_tokens"),
            ("added_tokens/1/content", "[PAD]", "added_tokens")):
        yield case(f"{where[:30]} is {json.dumps(value)[:30]}", changed(where, value), REFUSED, fact)
    yield case("no normalizer", changed("normalizer", None), ACCEPTED)
    for name, contents, outcome in (
            ("a byte order mark", b"\xef\xbb\xbf" + whole, ACCEPTED), ("CRLF", json.dumps(document, indent=1).replace("\n", "\r\n").encode(), ACCEPTED),
            ("UTF-16", whole.decode().encode("utf-16"), REFUSED), ("text behind", whole + b"x", REFUSED), ("a NUL byte inside", whole[:9] + b"\0" + whole[9:], REFUSED),
            ("a NUL byte at the end", whole + b"\0", REFUSED), ("a token twice", whole.replace(b'"vocab": {', b'"vocab": {"film": 30, ', 1), REFUSED),
            ("a key twice", whole.replace(b'"type": "WordPiece"', b'"type": "WordPiece", "type": "WordPiece"', 1), REFUSED),
            ("ill-formed UTF-8 in a token", whole.replace(b'"film"', b'"fi\xffm"', 1), REFUSED),
            ("a lone surrogate in a token", whole.replace(b'"film"', b'"\\udc00"', 1), REFUSED),
            ("nothing", b"", REFUSED), ("null", b"null", REFUSED), ("a list", b"[]", REFUSED), ("an empty object", b"{}", REFUSED),
            ("60 levels under a key of no meaning", whole.replace(b"{", b'{"x": ' + b"[" * 60 + b"]" * 60 + b",", 1), ACCEPTED),
            ("1,000 levels", whole.replace(b"{", b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b",", 1), REFUSED),
            ("100,000 levels", whole.replace(b"{", b'{"x": ' + b'{"x":' * 100_000, 1), REFUSED)):
        yield case(f"with {name}", contents, outcome, *PLACE, "model", "object", "nested", "vocab", "film", "x")
    yield Case("tokenizer.json: is a folder", "finetune", path, None, REFUSED, ("folder",))
    yield case("100 MB in one line", repeated(b"x", 100_000_000, b'{"x": "', b'"}'), REFUSED, r"\d+ bytes")
    yield case("30 MB of zeros", repeated(b"0,", 15_000_000, b'{"x": [', b"0]," + whole[1:]), ACCEPTED)


def vocabulary_cases(generator):
    path, whole = "model/vocab.txt", vocab_txt()

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"vocab.txt: {name}", "finetune", path, contents, outcome, facts or (r"line \d+", r"\d+ tokens"))

    for size in generator.sample(range(1, len(whole) - 1), 10):
        yield case(f"cut to {size} bytes", whole[:size], judge_vocabulary(whole[:size]))
    for name, contents, outcome in flips(whole, 40, judge_vocabulary, generator):
        yield case(name, contents, outcome)
    for name, contents, outcome in (
            ("CRLF", whole.replace(b"\n", b"\r\n"), ACCEPTED), ("a byte order mark", b"\xef\xbb\xbf" + whole, ACCEPTED),
            ("both", b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"), ACCEPTED), ("no end of the last line", whole[:-1], ACCEPTED),
            ("an empty line", whole.replace(b"film", b"", 1), REFUSED), ("an empty line at the end", whole + b"\n", REFUSED),
            ("a token twice", whole.replace(b"film", b"good", 1), REFUSED), ("one token more", whole + b"more\n", REFUSED),
            ("one token less", whole.replace(b"fine\n", b""), REFUSED), ("ill-formed UTF-8", whole.replace(b"film", b"f\xfflm", 1), REFUSED),
            ("an overlong form", whole.replace(b"film", b"f\xc0\xaf", 1), REFUSED), ("a surrogate", whole.replace(b"film", b"\xed\xa0\x80", 1), REFUSED),
            ("UTF-16", whole.decode().encode("utf-16"), REFUSED), ("lone CRs", whole.replace(b"\n", b"\r"), REFUSED),
            ("a NUL byte in a token", whole.replace(b"film", b"f\0lm", 1), ACCEPTED), ("without [UNK]", whole.replace(b"[UNK]", b"[unk]"), REFUSED),
            ("without [CLS]", whole.replace(b"[CLS]", b"[cls]"), REFUSED), ("without [SEP]", whole.replace(b"[SEP]", b"[sep]"), REFUSED),
            ("without [MASK]", whole.replace(b"[MASK]", b"[mask]"), ACCEPTED), ("nothing", b"", REFUSED), ("one line end", b"\n", REFUSED),
            ("an escape sequence twice", whole.replace(b"film", b"\x1b[2J", 1).replace(b"good", b"\x1b[2J"), REFUSED),
            ("a token of 10,000 bytes twice", whole.replace(b"film", b"x" * 10_000, 1).replace(b"good", b"x" * 10_000), REFUSED),
            ("a token of a million bytes", whole.replace(b"film", b"x" * 1_000_000, 1), ACCEPTED), ("bytes without sense", generator.randbytes(3000), REFUSED)):
        yield case(f"with {name}", contents, outcome)
    yield Case("vocab.txt: is a folder", "finetune", path, None, REFUSED, ("folder",))
    yield case("a line of 100 MB", repeated(b"x", 100_000_000, whole, b"\n"), REFUSED, r"\d+ bytes")
    yield case("5,000,000 tokens", numbered_lines(5_000_000, whole), REFUSED, r"\d+ bytes", r"line \d+")


def numbered_lines(count, before):
    def pieces():
        yield before
        for first in range(0, count, 10_000):
            yield b"".join(b"%d\n" % number for number in range(first, min(count, first + 10_000)))
    return pieces


def tsv_cases(generator):
    whole = tsv()
    end = len(b"text\tlabel\n")

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"TSV: {name}", "finetune", "train.tsv", contents, outcome, facts or (r"line \d+",))

    for size in generator.sample(range(end + 1, len(whole)), 8):
        yield case(f"cut to {size} bytes", whole[:size], judge_tsv(whole[:size]), r"line \d+", "labels are", "label is empty")
    for name, contents, outcome in flips(whole, 35, judge_tsv, generator):
        yield case(name, contents, outcome, r"line \d+", "different labels", "labels are", "column")
    long_word = b"x" * 10_000
    for name, contents, outcome in (
            ("CRLF", whole.replace(b"\n", b"\r\n"), ACCEPTED), ("a byte order mark", b"\xef\xbb\xbf" + whole, ACCEPTED),
            ("both", b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"), ACCEPTED), ("no end of the last line", whole[:-1], ACCEPTED),
            ("empty lines", whole.replace(b"\n", b"\n\n"), ACCEPTED), ("UTF-16", whole.decode().encode("utf-16"), REFUSED),
            ("UTF-16, the other order", b"\xfe\xff" + whole.decode().encode("utf-16-be"), REFUSED), ("lone CRs", whole.replace(b"\n", b"\r"), REFUSED),
            ("a NUL byte in a text", whole.replace(b"good", b"go\0d", 1), ACCEPTED), ("NUL bytes alone", bytes(1000), REFUSED),
            ("ill-formed UTF-8 in a text", whole.replace(b"good", b"go\xff\xc3", 1), ACCEPTED), ("an escape sequence in a text", whole.replace(b"good", b"\x1b[2J", 1), ACCEPTED),
            ("a word of 10,000 letters", whole.replace(b"good", long_word, 1), ACCEPTED), ("an empty text", whole.replace(b"very good", b"", 1), ACCEPTED),
            ("a text of spaces", whole.replace(b"very good", b"   ", 1), ACCEPTED), ("quotes, which mean nothing here", whole.replace(b"good", b'"good', 1), ACCEPTED),
            ("a field more", whole.replace(b"good", b"go\tod", 1), REFUSED), ("a field less", whole.replace(b"\tpositive", b"", 1), REFUSED),
            ("an empty label", whole.replace(b"\tpositive", b"\t", 1), REFUSED), ("100,000 fields", whole + b"x\t" * 100_000 + b"\n", REFUSED),
            ("nothing", b"", REFUSED), ("a header alone", b"text\tlabel\n", REFUSED), ("empty lines alone", b"\n\n\n", REFUSED),
            ("a byte order mark alone", b"\xef\xbb\xbf", REFUSED), ("no label column", whole.replace(b"label", b"stars", 1), REFUSED),
            ("no text column", b"label\npositive\nnegative\n", REFUSED), ("a column twice", whole.replace(b"text\tlabel", b"label\tlabel", 1), REFUSED),
            ("a header of escape sequences", whole.replace(b"text\tlabel", b"\x1b[2J\t\x1b]0;x\x07", 1), REFUSED),
            ("a header of 5,000 bytes", whole.replace(b"label", b"l" * 5000, 1), REFUSED), ("one class", tsv([(text, "same") for text, _ in TRAIN]), REFUSED),
            ("scores", tsv([(text, f"0.{i}1") for i, (text, _) in enumerate(TRAIN)]), REFUSED),
            ("labels of 5,000 bytes", tsv([(text, f"{i}" * 5000) for i, (text, _) in enumerate(TRAIN)]), REFUSED),
            ("one label written in two ways", tsv([(text, "1" if i % 2 else "1.0") for i, (text, _) in enumerate(TRAIN)]), REFUSED),
            ("labels of ill-formed UTF-8", whole.replace(b"positive", b"\xff").replace(b"negative", b"\xfe"), REFUSED), ("a column of ill-formed UTF-8", whole.replace(b"text", b"t\xff", 1), REFUSED),
            ("bytes without sense", generator.randbytes(5000), REFUSED)):
        yield case(f"with {name}", contents, outcome, r"line \d+", "empty", "no records", "label", "column")
    yield case("a line of 100 MB", repeated(b"x", 100_000_000, whole, b"\tpositive\n"))
    yield case("a header of 100 MB", repeated(b"x", 100_000_000))
    yield case("a text of 10 MB", repeated(b"good ", 2_000_000, whole, b"\tpositive\n"), ACCEPTED)
    yield case("100 MB of line ends", repeated(b"\n", 100_000_000, whole), ACCEPTED)


def csv_cases(generator):
    whole = csv()

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"CSV: {name}", "finetune", "train.csv", contents, outcome, facts or (r"line \d+",))

    for name, contents, outcome in (
            ("in order", whole, ACCEPTED), ("CRLF", whole.replace(b"\n", b"\r\n"), ACCEPTED), ("a byte order mark", b"\xef\xbb\xbf" + whole, ACCEPTED),
            ("all quoted", "".join(f'"{text}","{label}"\n' for text, label in [("text", "label")] + TRAIN).encode(), ACCEPTED),
            ("commas in quotes", whole.replace(b"very good", b'"very, good"', 1), ACCEPTED), ("doubled quotes", whole.replace(b"very good", b'"a ""good"" film"', 1), ACCEPTED),
            ("line ends in quotes", whole.replace(b"very good", b'"very\ngood\r\n"', 1), ACCEPTED), ("empty quotes", whole.replace(b"very good", b'""', 1), ACCEPTED),
            ("a quote inside a bare field", whole.replace(b"very good", b'very "good"', 1), ACCEPTED),
            ("a quote that is never closed", whole.replace(b"a good", b'"a good', 1), REFUSED), ("a quote at the end", whole + b'"', REFUSED),
            ("text behind a closing quote", whole.replace(b"very good", b'"very" good', 1), REFUSED), ("a field more", whole.replace(b"very good", b"very, good", 1), REFUSED),
            ("a field less", whole.replace(b",positive", b"", 1), REFUSED), ("an empty label", whole.replace(b",positive", b",", 1), REFUSED),
            ("a NUL byte in a text", whole.replace(b"good", b"go\0d", 1), ACCEPTED), ("ill-formed UTF-8", whole.replace(b"good", b"\xf5\x80", 1), ACCEPTED),
            ("UTF-16", whole.decode().encode("utf-16"), REFUSED), ("lone CRs", whole.replace(b"\n", b"\r"), REFUSED), ("tabs instead", tsv(), REFUSED),
            ("semicolons instead", whole.replace(b",", b";"), REFUSED), ("nothing", b"", REFUSED), ("a header alone", b"text,label\n", REFUSED),
            ("a quote alone", b'"', REFUSED), ("100,000 fields", whole + b"x," * 100_000 + b"\n", REFUSED), ("100,000 quoted fields", whole + b'"",' * 100_000 + b"\n", REFUSED),
            ("a column twice", whole.replace(b"text,label", b"label,label", 1), REFUSED), ("bytes without sense", generator.randbytes(5000), REFUSED)):
        yield case(f"with {name}", contents, outcome, r"line \d+", "empty", "no records")
    opened = generator.sample(range(len(TRAIN)), 8)
    while opened:
        row = opened.pop()
        rows = [(text if i != row else '"' + text, label) for i, (text, label) in enumerate(TRAIN)]
        yield case(f"a quote opened in row {row + 1}", csv(rows), REFUSED, rf"line {row + 2}\b", r"line \d+")
    yield case("a line of 100 MB", repeated(b"x", 100_000_000, whole, b",positive\n"))
    yield case("100 MB after an open quote", repeated(b"good\n", 20_000_000, whole + b'"'))


def jsonl_cases(generator):
    whole = jsonl()

    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"JSON lines: {name}", "finetune", "train.jsonl", contents, outcome, facts or (r"line \d+",))

    for size in generator.sample(range(1, len(whole) - 1), 8):
        yield case(f"cut to {size} bytes", whole[:size], judge_jsonl(whole[:size]), r"line \d+", "labels are")
    for name, contents, outcome in flips(whole, 40, judge_jsonl, generator):
        yield case(name, contents, outcome, r"line \d+", "labels are", "different labels")
    for name, line, outcome in (
            ("numbers as text", '{"text": 1.50, "label": "positive"}', ACCEPTED), ("true as text", '{"text": true, "label": "positive"}', ACCEPTED),
            ("null as text", '{"text": null, "label": "positive"}', REFUSED), ("a list as text", '{"text": [], "label": "positive"}', REFUSED),
            ("an object as text", '{"text": {}, "label": "positive"}', REFUSED), ("no text", '{"label": "positive"}', REFUSED),
            ("no label", '{"text": "good"}', REFUSED), ("a null label", '{"text": "good", "label": null}', REFUSED),
            ("an empty label", '{"text": "good", "label": ""}', REFUSED), ("an empty object", "{}", REFUSED), ("a list", "[1]", REFUSED),
            ("a number", "7", REFUSED), ("two objects in a line", '{"text": "a", "label": "positive"} {}', REFUSED),
            ("a trailing comma", '{"text": "a", "label": "positive",}', REFUSED), ("single quotes", "{'text': 'a'}", REFUSED),
            ("NaN", '{"text": NaN, "label": "positive"}', REFUSED),
            ("an open string", '{"text": "a', REFUSED), ("an open object", '{"text": "a"', REFUSED),
            ("the text twice", '{"text": "a", "text": "b", "label": "positive"}', REFUSED),
            ("a bad escape", '{"text": "\\x", "label": "positive"}', REFUSED), ("a lone surrogate", '{"text": "\\ud800", "label": "positive"}', REFUSED),
            ("an escaped NUL", '{"text": "a\\u0000b", "label": "positive"}', ACCEPTED), ("a NUL byte", '{"text": "a\0b", "label": "positive"}', REFUSED),
            ("a tab in a string", '{"text": "a\tb", "label": "positive"}', REFUSED), ("keys of no meaning", '{"id": [1, {"a": 2}], "text": "a", "label": "positive"}', ACCEPTED),
            ("60 levels", '{"text": "a", "label": "positive", "x": ' + "[" * 60 + "]" * 60 + "}", ACCEPTED),
            ("1,000 levels", '{"text": "a", "label": "positive", "x": ' + "[" * 1000 + "]" * 1000 + "}", REFUSED),
            ("100,000 levels", '{"x": ' * 100_000, REFUSED), ("100,000 keys", "{" + ",".join(f'"{i}": 0' for i in range(100_000)) + "}", REFUSED),
            ("a key of 100,000 bytes", '{"' + "k" * 100_000 + '": 1}', REFUSED), ("an escape sequence as key", '{"\\u001b[2J": 1}', REFUSED)):
        yield case(f"with {name}", whole + line.encode() + b"\n", outcome)
    for name, contents, outcome in (
            ("CRLF", whole.replace(b"\n", b"\r\n"), ACCEPTED), ("a byte order mark", b"\xef\xbb\xbf" + whole, ACCEPTED), ("empty lines", whole.replace(b"\n", b"\n \n"), ACCEPTED),
            ("no end of the last line", whole[:-1], ACCEPTED), ("ill-formed UTF-8 in a string", whole.replace(b"good", b"\xff\xfe", 1), ACCEPTED),
            ("UTF-16", whole.decode().encode("utf-16"), REFUSED), ("nothing", b"", REFUSED), ("empty lines alone", b"\n\n", REFUSED),
            ("one list of all", b"[" + whole.replace(b"\n", b",")[:-1] + b"]", REFUSED), ("indented objects", json.dumps({"text": "a", "label": "b"}, indent=1).encode(), REFUSED),
            ("bytes without sense", generator.randbytes(5000), REFUSED)):
        yield case(f"with {name}", contents, outcome, r"line \d+", "empty", "no records")
    yield case("a line of 100 MB", repeated(b"x", 100_000_000, whole + b'{"text": "', b'"}\n'))
    yield case("a string of 50 MB", repeated(b"good ", 10_000_000, whole + b'{"label": "positive", "x": "', b'", "text": "good"}\n'), ACCEPTED)


def judge_toml(raw):
    """TOML 1.0 by Python's own reader; None where a setting was changed into another that may be fine as well."""
    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return REFUSED
    return ACCEPTED if document == tomllib.loads(RUN_TOML.decode()) else None


def toml_cases(generator):
    """run.toml of a model that predict reads. Integers out of the command line's bounds and texts in their place must be refused."""
    def case(name, contents, outcome=REFUSED, *facts):
        return Case(f"run.toml: {name}", "predict", "model/run.toml", contents, outcome, facts or (r"key ", r"line \d+", r"\d+ bytes"))

    yield case("in order", RUN_TOML, ACCEPTED)
    for key, before in (("batch-size", b"8"), ("max-length", b"16")):
        line = key.encode() + b" = "
        for name, value in (("0", b"0"), ("-1", b"-1"), ("a fraction", b"1.5"), ("a text", b'"many"'), ("2^31", b"2147483648"), ("2^64", b"18446744073709551616"),
                            ("true", b"true"), ("an exponent", b"1e2"), ("10,000 digits", b"9" * 10_000), ("an escape sequence", b'"\\u001b[2J"')):
            yield case(f"{key} {name}", RUN_TOML.replace(line + before, line + value), REFUSED, key, r"line \d+")
    yield case("max-length beyond the model's positions", RUN_TOML.replace(b"= 16", b"= 33"), REFUSED, "max-length")
    for name, contents, outcome in (
            ("CRLF", RUN_TOML.replace(b"\n", b"\r\n"), ACCEPTED), ("nothing", b"", ACCEPTED), ("comments alone", b"# nothing\n", ACCEPTED),
            ("another section", RUN_TOML + b"\n[chosen]\nversion = \"0.1.0\"\n", ACCEPTED), ("a key of no meaning", RUN_TOML + b"note = \"x\"\n", ACCEPTED)):
        yield case(f"with {name}", contents, outcome)
    for name, contents, outcome in flips(RUN_TOML, 40, judge_toml, generator):
        yield case(name, contents, outcome)
    for name, contents in (("a key twice", RUN_TOML + b"batch-size = 8\n"), ("an open string", RUN_TOML + b'note = "x\n'),
                           ("no value", RUN_TOML + b"note =\n"), ("no key", RUN_TOML + b"= 1\n"), ("an open section", RUN_TOML + b"[chosen\n"),
                           ("a section twice", RUN_TOML + b"[finetune]\n"), ("a NUL byte", RUN_TOML + b"\0"),
                           ("ill-formed UTF-8", RUN_TOML + b'note = "\xff"\n'), ("UTF-16", RUN_TOML.decode().encode("utf-16")),
                           ("1,000 levels", RUN_TOML + b"x = " + b"[" * 1000 + b"]" * 1000), ("lone CRs", RUN_TOML.replace(b"\n", b"\r"))):
        yield case(f"with {name}", contents)
    yield Case("run.toml: is a folder", "predict", "model/run.toml", None, REFUSED, ("folder",))
    yield case("100 MB in one line", repeated(b"x", 100_000_000, RUN_TOML + b"note = \"", b"\"\n"), REFUSED, r"\d+ bytes")


def all_cases(seed=SEED):
    """Every case; the same for the same seed."""
    for make in (safetensors_cases, config_cases, tokenizer_cases, vocabulary_cases, tsv_cases, csv_cases, jsonl_cases, toml_cases):
        yield from make(random.Random(f"{seed} {make.__name__}"))


def write_contents(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for piece in [contents] if isinstance(contents, bytes) else contents():
            file.write(piece)


def arguments(case, folder):
    """The command line of a case whose files lie in `folder`, and what it gets as standard input."""
    if case.command == "predict":
        return ["predict", "--model", str(folder / "model"), "--threads", "1"], b"a good film\n"
    data = case.path if case.path.startswith("train") else "train.tsv"
    return ["finetune", "--model", str(folder / "model"), "--train", str(folder / data), "--output", str(folder / "run"), "--max-steps", "1",
            "--batch-size", "4", "--max-length", "16", "--threads", "1"], b""


def write(case, folder):
    """Puts the files of a case into `folder`."""
    for name, contents in base_files(case.command).items():
        if name != case.path:
            write_contents(folder / name, contents)
    if case.contents is None:
        (folder / case.path).mkdir(parents=True)
    else:
        write_contents(folder / case.path, case.contents)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument("--write", type=pathlib.Path, metavar="FOLDER", help="write each case into a folder of its own")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for number, case in enumerate(all_cases(options.seed)):
        if options.list:
            print(f"{number}\t{case.name}\t{case.outcome}")
        if options.write:
            folder = options.write / f"{number:04}"
            write(case, folder)
            line, _ = arguments(case, folder)
            (folder / "case.json").write_text(json.dumps({"name": case.name, "outcome": case.outcome, "arguments": line}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
