#!/usr/bin/env python3
"""Writes tests/golden/tokenizer: what Hugging Face's `tokenizers` makes of the inputs of tests/text/wordpiece_golden_test.cc.

    scripts/golden_tokenizer.py --data DIR [--output tests/golden/tokenizer] [--only NAME]...

DIR holds sst2/{train,dev}.tsv, wiki-sample/wiki_0{0,1,2,3}, zh-reviews/{train,dev}.tsv and
vocab/bert-base-{uncased,cased,chinese}/vocab.txt. Each file NAME.txt holds one digest per 1,000 inputs, so that a difference is
found within a thousand. Inputs, random ones included, are made here and in the test by the same rules, written down below.
"""
import argparse
import itertools
import json
import os
import pathlib

import numpy
import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

GROUP = 1000
UNLIMITED = 1 << 20
FACTOR = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


# Digests ----------------------------------------------------------------------------------------------------------------------
class Digest:
    """h = h * FACTOR + x modulo 2^64 over a sequence of integers x, beginning with 0."""

    def __init__(self):
        self.values = []

    def add(self, values):
        """A sequence: each value plus 1, then 0."""
        self.values.append(numpy.asarray(values, dtype=numpy.uint64) + numpy.uint64(1))
        self.values.append(numpy.zeros(1, dtype=numpy.uint64))

    def hex(self):
        values = numpy.concatenate(self.values)
        powers = numpy.full(len(values), FACTOR, dtype=numpy.uint64)
        powers[0] = 1
        powers = numpy.cumprod(powers, dtype=numpy.uint64)[::-1]
        return f"{int((values * powers).sum(dtype=numpy.uint64)):016x}"


def digests(count, add):
    """A digest for each 1,000 of `count` inputs; add(i, digest) adds what became of input i."""
    for begin in range(0, count, GROUP):
        digest = Digest()
        for i in range(begin, min(begin + GROUP, count)):
            add(i, digest)
        yield digest.hex()


def add_encoding(digest, encoding):
    digest.add(encoding.ids)
    digest.add(encoding.type_ids)


def add_offsets(digest, encoding):
    digest.add(encoding.ids)
    digest.add([bound for span in encoding.offsets for bound in span])


def encoded_digests(tokenizer, texts, add=add_encoding):
    for begin in range(0, len(texts), GROUP):
        digest = Digest()
        for encoding in tokenizer.encode_batch(texts[begin:begin + GROUP]):
            add(digest, encoding)
        yield digest.hex()


# Tokenizers -------------------------------------------------------------------------------------------------------------------
def bert(vocabulary, **normalizer):
    lines = vocabulary.read_text(encoding="utf-8").split("\n")[:-1]
    return bert_of({token: i for i, token in enumerate(lines)}, **normalizer)


def bert_of(vocab, **normalizer):
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    frame(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def frame(tokenizer, cls, sep):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)])


def with_added_tokens():
    """A tiny vocabulary with an added token for each combination of flags."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *".,;:!?-'\"()[]<>#", "the", "##ing"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]", max_input_chars_per_word=12))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    tokenizer.add_tokens([
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<right>  ", normalized=False),
        AddedToken("<", single_word=True, normalized=False),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("\u3000", normalized=False),
        AddedToken("Caf\u00e9", normalized=True),
        AddedToken("Caf\u00e9s", single_word=True, lstrip=True, normalized=True),
        AddedToken("\u4e2d", normalized=True),
        AddedToken("<Norm>", rstrip=True, normalized=True, special=True),
    ])
    frame(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


# Inputs -----------------------------------------------------------------------------------------------------------------------
def lines_of(path):
    return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")


def first_column(path):
    return [line.split("\t")[0] for line in lines_of(path)[1:]]


def code_points():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


class Random:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state + FACTOR) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % bound


SPACES = " \t\n\r\u000b\u0085\u00a0\u1680\u2003\u2028\u202f\u3000\u200b\ufeff\u00ad\ufffd"
TYPED = ["[SEP]", "[CLS]", "[UNK]", "[MASK]", "[PAD]", "[sep]", "[SEP", "##ing", "[unused1]", "\u0130", "\u1e9e", "\u212b", "<both>", "<right>",
         "<right>  ", "<", "word", "Caf\u00e9", "CAFE\u0301s", "\u4e2d", "<NORM>", "<norm> "]


def random_text(random):
    pieces = []
    for _ in range(random.below(24)):
        kind = random.below(20)
        if kind < 6:
            word = "".join(chr(97 + random.below(26)) for _ in range(1 + random.below(9)))
            pieces.append(word.capitalize() if random.below(4) == 0 else word)
        elif kind == 6:
            pieces.append(" ")
        elif kind == 7:
            pieces.append(SPACES[random.below(len(SPACES))])
        elif kind == 8:
            pieces.append(chr(33 + random.below(94)))
        elif kind == 9:
            pieces.append(chr(0xC0 + random.below(0x190)))  # Latin with accents
        elif kind == 10:
            pieces.append(chr(0x300 + random.below(0x70)))  # combining marks
        elif kind == 11:
            pieces.append(chr(0x4E00 + random.below(0x5200)))  # ideographs
        elif kind == 12:
            pieces.append(chr(0x1F300 + random.below(0x800)))  # emoji
        elif kind == 13:
            pieces.append(chr(random.below(0xA0)))  # control characters among others
        elif kind == 14:
            code = random.below(0x110000)
            pieces.append("x" if 0xD800 <= code < 0xE000 else chr(code))
        elif kind == 15:
            pieces.append(TYPED[random.below(len(TYPED))])
        elif kind == 16:
            pieces.append(chr(0x370 + random.below(0x1C00)))  # Greek to Vedic
        elif kind == 17:
            pieces.append(chr(0xAC00 + random.below(11172)))  # Hangul
        elif kind == 18:
            pieces.append(chr(0x2000 + random.below(0x1000)))  # punctuation and symbols
        elif random.below(50) == 0:
            pieces.append("e" * (95 + random.below(12)))  # around the longest word
        else:
            pieces.append(chr(0x10000 + random.below(0x10000)))
    return "".join(pieces)


def random_encoding(tokenizer, seed):
    """Input `seed` of a random set: None where it can't be truncated as asked."""
    random = Random(seed)
    mode = random.below(4)
    first = random_text(random)
    if mode == 0:
        tokenizer.no_truncation()
        return tokenizer.encode(first)
    if mode == 1:
        tokenizer.enable_truncation(2 + random.below(30))
        return tokenizer.encode(first)
    second = random_text(random)
    strategy = "longest_first" if mode == 2 else ("only_first", "only_second")[random.below(2)]
    tokenizer.enable_truncation(3 + random.below(60), strategy=strategy)
    try:
        return tokenizer.encode(first, second)
    except Exception as error:  # `tokenizers` raises no narrower type
        if "too short" not in str(error):
            raise
        return None


def random_digests(tokenizer, count, add=add_encoding):
    def add_input(i, digest):
        encoding = random_encoding(tokenizer, i)
        if encoding is None:
            digest.add([0xFFFFFFFF])
        else:
            add(digest, encoding)

    return digests(count, add_input)


def code_point_texts():
    return [text for c in code_points() for text in (chr(c), f"a{chr(c)}b")]


def among_marks(c):
    """A character alone, between letters, and among marks of several combining classes."""
    return f"{c} a{c}b e\u0301\U0001d16d{c}\u302e\U0001d165\u0323d"


def letters_and_marks():
    """A vocabulary of single characters, so that words which stay marks and letters give a token for each."""
    characters = [chr(c) for c in code_points() if 0x20 < c < 0x3000 or 0x1D100 <= c < 0x1D200 or 0x3020 <= c < 0x3040]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters)]
    return {token: i for i, token in enumerate(tokens)}


def normal_form_digests(**options):
    """The normal forms of every code point."""
    normalize = normalizers.BertNormalizer(**options).normalize_str
    codes = code_points()

    def add(i, digest):
        digest.add(numpy.frombuffer(normalize(among_marks(chr(codes[i]))).encode(), dtype=numpy.uint8))

    return digests(len(codes), add)


def word_digests():
    """The words around every code point, without normalization."""
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    codes = code_points()

    def add(i, digest):
        c = chr(codes[i])
        for word, _ in words(f"{c} a{c}b{c}{c}"):
            digest.add(numpy.frombuffer(word.encode(), dtype=numpy.uint8))

    return digests(len(codes), add)


def sets(data):
    """(name, what it is, digests)"""
    vocabulary = {name: data / "vocab" / f"bert-base-{name}" / "vocab.txt" for name in ("uncased", "cased", "chinese")}

    def uncased():
        return bert(vocabulary["uncased"])

    def cased():
        return bert(vocabulary["cased"], lowercase=False)

    def chinese(lowercase):
        return bert(vocabulary["chinese"], lowercase=lowercase)

    sst2 = [data / "sst2" / name for name in ("train.tsv", "dev.tsv")]
    wiki = [data / "wiki-sample" / f"wiki_0{i}" for i in range(4)]
    reviews = [data / "zh-reviews" / name for name in ("train.tsv", "dev.tsv")]

    def columns(paths):
        return [text for path in paths for text in first_column(path)]

    def lines(paths):
        return [line for path in paths for line in lines_of(path)]

    yield "sst2", "SST-2, train then dev, uncased", lambda: encoded_digests(uncased(), columns(sst2))
    yield "wiki", "the wiki sample's lines, uncased", lambda: encoded_digests(uncased(), lines(wiki))
    yield "wiki_cased", "wiki_00's lines, cased", lambda: encoded_digests(cased(), lines(wiki[:1]))
    yield "zh_reviews", "zh-reviews, train then dev, Chinese vocabulary, case kept", lambda: encoded_digests(chinese(False), columns(reviews))
    yield "zh_reviews_lower", "the same, lower-cased", lambda: encoded_digests(chinese(True), columns(reviews))
    yield "code_points", "every code point alone and as a_b, uncased", lambda: encoded_digests(uncased(), code_point_texts())
    yield "code_points_cased", "the same, cased", lambda: encoded_digests(cased(), code_point_texts())
    yield "normal_uncased", "normal forms of every code point, BERT uncased", lambda: normal_form_digests()
    yield "normal_cased", "the same, BERT cased", lambda: normal_form_digests(lowercase=False)
    yield "normal_lowercase", "the same, lower-cased only", lambda: normal_form_digests(
        clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=True)
    yield "normal_stripped", "the same, accents stripped only", lambda: normal_form_digests(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    yield "words", "words around every code point", word_digests
    yield "random", "100,000 random texts and pairs, uncased", lambda: random_digests(uncased(), 100000)
    yield "random_cased", "the first 20,000 of them, cased", lambda: random_digests(cased(), 20000)
    yield "random_added", "the first 50,000 of them, by tokenizer.json in the folder added_tokens", lambda: random_digests(with_added_tokens(), 50000)


def offset_sets(data):
    """The same for offsets into the texts."""
    vocabulary = {name: data / "vocab" / f"bert-base-{name}" / "vocab.txt" for name in ("uncased", "cased", "chinese")}
    sst2 = [text for name in ("train.tsv", "dev.tsv") for text in first_column(data / "sst2" / name)]
    wiki = lines_of(data / "wiki-sample" / "wiki_00")

    def every_code_point(**options):
        texts = [among_marks(chr(c)) for c in code_points()]
        return encoded_digests(bert_of(letters_and_marks(), **options), texts, add_offsets)

    def random(tokenizer, count):
        return random_digests(tokenizer, count, add_offsets)

    yield "offsets_sst2", "ids and offsets of SST-2, train then dev, uncased", lambda: encoded_digests(
        bert(vocabulary["uncased"]), sst2, add_offsets)
    yield "offsets_wiki", "ids and offsets of wiki_00's lines, uncased", lambda: encoded_digests(
        bert(vocabulary["uncased"]), wiki, add_offsets)
    yield "offsets_code_points", "ids and offsets of every code point among marks, a vocabulary of single characters", every_code_point
    yield "offsets_code_points_lowercase", "the same, lower-cased only", lambda: every_code_point(
        clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=True)
    yield "offsets_random", "ids and offsets of 50,000 random texts and pairs, uncased", lambda: random(bert(vocabulary["uncased"]), 50000)
    yield "offsets_random_cased", "of the first 20,000 of them, cased", lambda: random(bert(vocabulary["cased"], lowercase=False), 20000)
    yield "offsets_random_chinese", "of the first 20,000 of them, Chinese vocabulary", lambda: random(bert(vocabulary["chinese"]), 20000)
    yield "offsets_random_added", "of the first 50,000 of them, by tokenizer.json in the folder added_tokens", lambda: random(with_added_tokens(), 50000)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/golden/tokenizer"))
    parser.add_argument("--only", action="append", help="write this set alone; may be repeated")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    folder = arguments.output / "added_tokens"
    folder.mkdir(parents=True, exist_ok=True)
    description = json.loads(with_added_tokens().to_str())
    (folder / "tokenizer.json").write_text(json.dumps(description, separators=(",", ":")) + "\n", encoding="ascii")
    for name, what, make in itertools.chain(sets(arguments.data), offset_sets(arguments.data)):
        if arguments.only and name not in arguments.only:
            continue
        lines = [f"# {what}. scripts/golden_tokenizer.py, tokenizers {tokenizers.__version__}.", *make()]
        (arguments.output / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
        print(f"{name}: {len(lines) - 1} digests", flush=True)


if __name__ == "__main__":
    main()
