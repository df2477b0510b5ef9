#!/usr/bin/env python3
"""What the Unicode of Hugging Face's `tokenizers` is, code point by code point, and where a given utf8proc differs from it.

    scripts/unicode_corrections.py                                     # how many code points differ, by property
    scripts/unicode_corrections.py --list                              # every one of them
    scripts/unicode_corrections.py --write text/unicode_tables.inc     # the tables that the tokenizer is built from

`tokenizers` is several Unicode versions at once: its categories, its decompositions and its lower-casing come from libraries of
different ages. Categories, lower-casing and what is assigned at all change from version to version, so a list of differences to one
utf8proc would be wrong for the next. The tables therefore hold those properties whole. What Unicode promises never to change once a
code point is assigned, how it decomposes and its combining class, is left to utf8proc, and only for the code points that the tables
name; that the installed utf8proc agrees there is checked below.

Every property is observed through the public functions of `tokenizers`, none is read from its source. Needs the Python package
`tokenizers` and the library utf8proc. Neither the build nor the tests need this script.
"""
import argparse
import ctypes
import ctypes.util
import os
import sys

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ASCII_PUNCTUATION = {c for c in range(33, 127) if not chr(c).isalnum()}


def observe():
    """The properties as `tokenizers` applies them: sets of code points, and lower-case mappings."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    def bert(**on):
        off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**{**off, **on}).normalize_str

    clean, strip, lower = bert(clean_text=True), bert(strip_accents=True), bert(lowercase=True)
    ideographs, nfd = bert(handle_chinese_chars=True), normalizers.NFD().normalize_str
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    names = ("white_space", "dropped", "punctuation", "nonspacing_marks", "decomposing", "reordering", "ideographs", "word")
    sets = {name: set() for name in names}
    lowercase = {}
    for code in CODE_POINTS:
        c = chr(code)
        between = "a" + c + "b"
        cleaned = clean(between)
        if cleaned == "ab":
            sets["dropped"].add(code)
        split = [word for word, _ in words(between)]
        if split == ["a", c, "b"]:
            sets["punctuation"].add(code)
        elif split == ["a", "b"]:
            sets["white_space"].add(code)
        elif split != [between]:
            sys.exit(f"U+{code:04X}: pre-tokenized into {split!r}")
        expected = "ab" if code in sets["dropped"] else "a b" if code in sets["white_space"] else between
        if cleaned != expected:
            sys.exit(f"U+{code:04X}: cleaned to {cleaned!r}")
        if ideographs(c) == " " + c + " ":
            sets["ideographs"].add(code)
        if nfd(c) != c:
            sets["decomposing"].add(code)
        else:
            if strip(c) == "":
                sets["nonspacing_marks"].add(code)
            # U+0334 has combining class 1, U+0345 has 240, and nothing lies outside.
            if nfd(c + "\u0334") != c + "\u0334" or nfd("\u0345" + c) != "\u0345" + c:
                sets["reordering"].add(code)
        if lower(c) != c:
            lowercase[code] = lower(c)

    # \w as an added token's single_word has it: beside such a character the token is not found.
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.add_tokens([AddedToken("QQ", single_word=True, normalized=False)])
    for begin in range(0, len(CODE_POINTS), 65536):
        chunk = CODE_POINTS[begin:begin + 65536]
        for code, encoding in zip(chunk, tokenizer.encode_batch(["." + chr(code) + "QQ" for code in chunk])):
            if 1 not in encoding.ids:
                sets["word"].add(code)
    return sets, lowercase, nfd


class Utf8proc:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16)  # category, combining class, ...
        self.library.utf8proc_category_string.restype = ctypes.c_char_p
        self.library.utf8proc_unicode_version.restype = ctypes.c_char_p
        self.library.utf8proc_version.restype = ctypes.c_char_p
        self.library.utf8proc_decompose_char.argtypes = (
            ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_ssize_t, ctypes.c_int, ctypes.POINTER(ctypes.c_int))
        self.library.utf8proc_decompose_char.restype = ctypes.c_ssize_t
        self.buffer = (ctypes.c_int32 * 16)()

    def name(self):
        return f"utf8proc {self.library.utf8proc_version().decode()} (Unicode {self.library.utf8proc_unicode_version().decode()})"

    def category(self, code):
        return self.library.utf8proc_category_string(code).decode()

    def combining_class(self, code):
        return self.library.utf8proc_get_property(code)[1]

    def decompose(self, code):
        decompose = 1 << 4  # UTF8PROC_DECOMPOSE
        count = self.library.utf8proc_decompose_char(code, self.buffer, 16, decompose, None)
        return "".join(map(chr, self.buffer[:count]))

    def lower(self, code):
        return chr(self.library.utf8proc_tolower(code))


def check_stable(sets, nfd, utf8proc):
    """The promise that the tokenizer relies on: where the tables say that a code point decomposes or reorders, utf8proc knows how."""
    for code in sorted(sets["decomposing"]):
        if utf8proc.decompose(code) != nfd(chr(code)):
            sys.exit(f"U+{code:04X}: decomposes to {nfd(chr(code))!r}, by {utf8proc.name()} to {utf8proc.decompose(code)!r}")
    classes = {code: utf8proc.combining_class(code) for code in sets["reordering"]}
    one_of = {value: code for code, value in sorted(classes.items())}
    for code, value in classes.items():
        for other, representative in one_of.items():
            swapped = nfd(chr(code) + chr(representative)) != chr(code) + chr(representative)
            if swapped != (value > other):
                sys.exit(f"U+{code:04X}: combining class {value} by {utf8proc.name()}, but not so against U+{representative:04X}")


def differences(sets, lowercase, nfd, utf8proc):
    """(property, code point, tokenizers, utf8proc) wherever utf8proc alone would give another answer."""
    for code in CODE_POINTS:
        category = utf8proc.category(code)
        decomposition = utf8proc.decompose(code)
        theirs = {
            "white_space": category.startswith("Z") or code in range(9, 14) or code == 0x85,
            "dropped": category in ("Cc", "Cf", "Co") and code not in (9, 10, 13) or code == 0xFFFD,
            "punctuation": category.startswith("P") or code in ASCII_PUNCTUATION,
            "nonspacing_marks": category == "Mn" and decomposition == chr(code),
            "reordering": utf8proc.combining_class(code) != 0 and decomposition == chr(code),
        }
        for name, value in theirs.items():
            if (code in sets[name]) != value:
                yield name, code, code in sets[name], value
        if nfd(chr(code)) != decomposition:
            yield "decomposition", code, ascii(nfd(chr(code))), ascii(decomposition)
        if lowercase.get(code, chr(code)) != utf8proc.lower(code):
            yield "lowercase", code, ascii(lowercase.get(code, chr(code))), ascii(utf8proc.lower(code))


def ranges(codes):
    result = []
    for code in sorted(codes):
        if result and result[-1][1] == code - 1:
            result[-1][1] = code
        else:
            result.append([code, code])
    return result


def lowercase_runs(lowercase):
    """Runs of (first, last, step, shift): first, first + step ... last each map to themselves plus shift."""
    runs = []
    for code in sorted(lowercase):
        if len(lowercase[code]) != 1:
            continue
        shift = ord(lowercase[code]) - code
        if runs:
            first, last, step, run_shift = runs[-1]
            if shift == run_shift and code - last in (1, 2) and (step == 0 or code - last == step):
                runs[-1] = (first, code, code - last, shift)
                continue
        runs.append((code, code, 0, shift))
    return [(first, last, step or 1, shift) for first, last, step, shift in runs]


def write(path, sets, lowercase):
    import tokenizers

    several = {code: text for code, text in lowercase.items() if len(text) != 1}
    if several != {0x130: "i\u0307"}:
        sys.exit(f"more than U+0130 lower-cases to several characters: {several!r}")
    titles = {
        "white_space": "White_Space.",
        "dropped": "Removed by clean_text.",
        "punctuation": "Punctuation of any kind, and every ASCII symbol.",
        "nonspacing_marks": "Removed after decomposition where accents are stripped (Mn).",
        "decomposing": "Decomposed canonically.",
        "reordering": "Of a combining class other than 0.",
        "ideographs": "Given a space on either side.",
        "word": "What a single_word token must not touch.",
    }
    lines = ["// Written by scripts/unicode_corrections.py from tokenizers " + tokenizers.__version__ + "; not to be edited.", ""]
    for name, title in titles.items():
        lines.append(f"// {title}")
        lines.append("constexpr Range k" + "".join(part.capitalize() for part in name.split("_")) + "[] = {")
        lines += wrap([f"{{0x{first:X}, 0x{last:X}}}" for first, last in ranges(sets[name])])
        lines += ["};", ""]
    lines.append("// Lower-casing, except U+0130, the one that becomes two characters.")
    lines.append("constexpr LowercaseRun kLowercase[] = {")
    lines += wrap([f"{{0x{first:X}, 0x{last:X}, {step}, {shift}}}" for first, last, step, shift in lowercase_runs(lowercase)])
    lines.append("};")
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


def wrap(items):
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 130:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    return lines + [line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utf8proc", default=ctypes.util.find_library("utf8proc") or "libutf8proc.so.2", help="the library to compare")
    parser.add_argument("--list", action="store_true", help="print every code point that differs")
    parser.add_argument("--write", metavar="FILE", help="write the tables")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    utf8proc = Utf8proc(arguments.utf8proc)
    sets, lowercase, nfd = observe()
    check_stable(sets, nfd, utf8proc)
    counts, differing = {}, set()
    for name, code, ours, theirs in differences(sets, lowercase, nfd, utf8proc):
        counts[name] = counts.get(name, 0) + 1
        differing.add(code)
        if arguments.list:
            print(f"U+{code:04X} {name}: tokenizers {ours}, utf8proc {theirs}")
    summary = ", ".join(f"{name} {count}" for name, count in counts.items())
    print(f"tokenizers {tokenizers.__version__} against {utf8proc.name()}: {len(differing)} code points differ ({summary})")
    if arguments.write:
        write(arguments.write, sets, lowercase)


if __name__ == "__main__":
    main()
