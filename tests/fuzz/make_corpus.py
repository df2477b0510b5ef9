#!/usr/bin/env python3
"""Writes tests/fuzz/corpus: for each fuzz target a few small inputs from which libFuzzer starts, sound ones and broken ones.

usage: make_corpus.py [FOLDER]
"""
import json
import pathlib
import shutil
import struct
import sys


def safetensors():
    def file(header, data=b"", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def tensor(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    floats = struct.pack("<4f", 1, -2, float("nan"), 1e-40)
    yield "empty", file({})
    yield "metadata", file({"__metadata__": {"format": "pt"}, "w": tensor("F32", [2, 2], 0, 16)}, floats)
    yield "many_types", file(
        {"d": tensor("F64", [1], 0, 8), "f": tensor("F32", [], 8, 12), "h": tensor("F16", [2], 12, 16), "b": tensor("BF16", [2, 1], 16, 20),
         "i": tensor("I64", [1], 20, 28), "q": tensor("F4", [2, 1], 28, 29), "none": tensor("U8", [0, 7], 29, 29)},
        struct.pack("<d", 1e300) + bytes(range(21)))
    yield "gap", file({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 3, 5)}, bytes(5))
    yield "overlap", file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, bytes(6))
    yield "overflow", file({"a": tensor("F32", [1 << 40, 1 << 40, 0], 0, 0), "b": tensor("F32", [1 << 62], 0, 0)})
    yield "long_header", file({}, length=1 << 63)
    yield "truncated", file({"w": tensor("F32", [4], 0, 16)}, bytes(7))
    yield "twice", file(b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"ab")


def config():
    bert = {
        "architectures": ["BertForSequenceClassification"], "attention_probs_dropout_prob": 0.1, "classifier_dropout": None,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 384, "id2label": {"0": "negative", "1": "positive"},
        "initializer_range": 0.02, "intermediate_size": 1536, "label2id": {"negative": 0, "positive": 1}, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0,
        "position_embedding_type": "absolute", "problem_type": "single_label_classification", "torch_dtype": "float32",
        "transformers_version": "4.8.2", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522}
    least = {key: bert[key] for key in ("hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads",
                                        "num_hidden_layers", "vocab_size")}
    yield "whole", json.dumps(bert, indent=2)
    yield "least", json.dumps(least)
    yield "num_labels", json.dumps(least | {"num_labels": 3, "label2id": {"LABEL_0": 0}})
    yield "labels", json.dumps(least | {"id2label": {"0": "a", "1": "b", "2": "c"}})
    yield "unknown_keys", json.dumps(least | {"x": [[], {}, {"y": [1, -2.5e-3, 12345678901234567890, "\u0000\U0001F600"]}], "dtype": "bf16"})
    yield "refused", json.dumps(least | {"is_decoder": True, "pruned_heads": {"0": [1]}, "hidden_act": "swish"})
    yield "deep", "[" * 40 + "]" * 40
    yield "cut", json.dumps(bert)[:200]


def tokenizer():
    def added(number, content, **flags):
        return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} | flags

    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "##s": 5, "caf": 6, "\u4e2d": 7, ".": 8}
    bert = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [added(2, "[CLS]"), added(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                       "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": vocabulary}}

    def sequence(name, kind):
        return {"Sequence": {"id": name, "type_id": kind}}

    def special(name, kind):
        return {"SpecialToken": {"id": name, "type_id": kind}}

    template = {
        "type": "TemplateProcessing",
        "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
        "pair": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", 1), special("[SEP]", 1)],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                           "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}}
    compact = {"separators": (",", ":")}
    yield "bert", json.dumps(bert, **compact)
    yield "template", json.dumps(bert | {"post_processor": template}, **compact)
    yield "added", json.dumps(bert | {"normalizer": None, "added_tokens": [
        added(9, "<a>", lstrip=True), added(10, "<b>", rstrip=True, single_word=True), added(11, "\u00c9", normalized=True)]}, **compact)
    yield "gaps", json.dumps(bert | {"model": bert["model"] | {"vocab": {"[UNK]": 3, "a": 900}}}, **compact)
    yield "other_model", json.dumps(bert | {"model": {"type": "BPE", "vocab": {}, "merges": []}}, **compact)
    yield "bad_ids", '{"model":{"type":"WordPiece","vocab":{"a":0,"a":1,"b":-1,"c":4194304,"d":1.5}}}'


def tokenizer_config():
    yield "bert", json.dumps({"do_lower_case": True, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
                              "cls_token": "[CLS]", "mask_token": "[MASK]", "tokenize_chinese_chars": True, "strip_accents": None,
                              "model_max_length": 512, "tokenizer_class": "BertTokenizer"})
    yield "decoder", json.dumps({"do_lower_case": False, "added_tokens_decoder": {
        "0": {"content": "[PAD]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True},
        "10": {"content": "new", "lstrip": True, "normalized": True, "rstrip": False, "single_word": True, "special": False}}})
    yield "refused", json.dumps({"do_basic_tokenize": False, "never_split": ["a"], "unk_token": {"content": "the"}})


def vocabulary():
    special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
    yield "uncased", "\0" + special + "the\ncafe\n##s\n##1\n.\n\u4e2d\n"
    yield "cased", "\4" + special + "The\nthe\n\u00c9\n##\n"
    yield "crlf", "\0\ufeff" + special.replace("\n", "\r\n") + "a\r\n##b"
    yield "twice", "\0" + special + "a\nb\na\n"
    yield "gap", "\0" + special + "a\n\nb\n"
    yield "invalid", b"\0" + special.encode() + b"\xc3\n\xff\n"


def records():
    # Two letters before the data choose the options (records_fuzz.cc): format and columns, limit and piece.
    yield "text", "`@one line\n\nthree\r\nfour"
    yield "tsv", "a@text\tlabel\ngood\t1\n\nbad \"quote\t0\n"
    yield "tsv_pair", "mdtext\tpair\tlabel\tother\na b\tc\t1\tx y z\n\xff\t\t0\t\n".encode("latin-1")
    yield "csv", "b@id,text,label\n1,\"a, \"\"b\"\"\nc\",x\n2,plain,y\r\n"
    yield "csv_open", "b@text,label\n\"never closed,1\n"
    yield "csv_long", "bctext,label\n\"" + "long " * 30 + "\",1\n"
    yield "json_lines", 'c@{"text": "a", "label": 1, "x": [1, {"y": null}]}\n\n{"label": 0.50, "text": "\\u00e9"}\n'
    yield "json_pair", 'oP{"text": "a", "pair": "b", "label": true}\n{"text": 1e400, "pair": "b"}\n'
    yield "json_nul", 'c@{"text": "a", "label": 1}\0{}\n'
    yield "mark", "a@\ufefftext\tlabel\r\na\t1\r\n"
    yield "utf16", b"a@\xff\xfet\0e\0"
    yield "no_end", "a@text\tlabel\na\t1\r"
    yield "macintosh", "a@text\tlabel\ra\t1\r"


def documents():
    yield "two", "One line.\nAnother.\n\nA second document\n"
    yield "crlf", "\ufeffa b\r\n\r\n \t\r\nab\r"
    yield "special", "[CLS] [SEP]\n[MASK]\n\na [MASK] \u4e2d"
    yield "long", "ab a b . 1 " * 40 + "\n\n\n" + "a" * 101
    yield "empty", "\n \n\t\n"
    yield "invalid", b"a\n\n\xc3\nb"
    yield "utf16", b"\xff\xfea\0"


def toml():
    yield "run", ('# A run.\n\n[run]\nmodel = "/models/bert"\nepochs = 3\nlr = 5e-05\nwarmup = 0.1\namp = true\ntext = "a \\"b\\" \\u0001"\n'
                  '\n[data]\ntrain = "xxh64:0123456789abcdef"\n')
    yield "kinds", "[run]\na = [1, 2.5, 'x']\nb = 1979-05-27T07:32:00Z\nc = {d = 1, e = \"f\"}\ng.h = 0xFF\n"
    yield "strings", '[run]\na = """\nmany\nlines"""\nb = \'\'\'raw\'\'\'\n"c d" = ""\n'
    yield "tables", "[[run]]\na = 1\n[[run]]\na = 2\n[run.b]\nc = inf\n"
    yield "broken", "[run\na = \nb = \"\n= 3\n"


def wordpiece():
    yield "plain", "The cafe isn't far."
    yield "accents", "Caf\u00e9 ABC \u0130 \u00df \u03a3\u0391\u03a3 a\u0301\u0327"
    yield "scripts", "\u4e2d\u6587 \u1100\u1161\u11a8 \U0001F600\U0001F1E9 \u0e01\u0e33 \u202eabc"
    yield "special", "a [SEP]b[CLS] [MASK]x  <l>\t<r>  one oneone n\u00e9 N\u00c9 <lr>"
    yield "controls", "a\0b\ufffd\r\n\u00a0\u2028\x7f\u200b"
    yield "invalid", b"ab\xc3 \xe4\xb8 \xf0\x9f\x98 \xff\xed\xa0\x80"
    yield "long", "ab" * 60 + " " + "a" * 100 + " " + "a" * 101


def token_file():
    """The target puts in what makes a header a true one, but for the counts, and cuts the file to what they ask for."""
    def part(data):
        return data + bytes(-len(data) % 64)

    def file(samples, tokens, types, groups, offsets=(), cuts=(), ids=(), kinds=()):
        header = struct.pack("<8sIIQQQQQQ4qQ2QQ", b"LatheTok", 1, 128, 0, 3, samples, tokens, types, groups, 1, 2, 3, 4, 0, 0, 0, 0)
        return header + part(b"key") + b"".join(
            part(struct.pack(f"<{len(numbers)}{letter}", *numbers)) for numbers, letter in ((offsets, "q"), (cuts, "q"), (ids, "i"), (kinds, "i")))

    yield "none", file(0, 0, 0, 0, [0])
    yield "texts", file(2, 5, 5, 0, [0, 3, 5], (), [2, 900, 3, 2, 3], [0, 0, 0, 1, 1])
    yield "documents", file(3, 6, 0, 3, [0, 2, 4, 6], [0, 1, 3], [2, 3, 2, 3, 2, 3])
    yield "unordered", file(3, 6, 0, 0, [0, 4, 2, 6], (), [2, 3, 2, 3, 2, 3])
    yield "no_word", file(1, 2, 0, 0, [0, 2], (), [2, 1000])
    yield "huge", file(1 << 61, 1 << 62, 0, (1 << 64) - 1, [0])
    yield "cut", file(2, 5, 5, 0, [0, 3, 5])[:100]


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus"
    for target in (config, documents, records, safetensors, token_file, tokenizer, tokenizer_config, toml, vocabulary, wordpiece):
        place = folder / target.__name__
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name, contents in target():
            (place / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())


if __name__ == "__main__":
    main()
