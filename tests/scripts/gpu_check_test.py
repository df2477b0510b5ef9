#!/usr/bin/env python3
"""scripts/gpu_check beside stand-ins: a driver that is missing, too old or without a GPU, a stage that fails, one that is too slow, one
that is stopped. With --build FOLDER (an emulated build) also a true bundle, packed and run.

usage: gpu_check_test.py [--build FOLDER]
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
BUILD = None
ONE_PASSES = """
    echo '[ RUN      ] Norm/cuda_f32.Forward'
    echo '[       OK ] Norm/cuda_f32.Forward (3 ms)'
"""
DRIVER = """
    extern "C" {
    int cuInit(unsigned) { return %(init)d; }
    int cuDriverGetVersion(int* version) { return *version = %(version)d, 0; }
    int cuDeviceGetCount(int* count) { return *count = %(count)d, 0; }
    int cuDeviceGet(int* device, int index) { return *device = index, 0; }
    int cuDeviceGetName(char* name, int, int) { return __builtin_strcpy(name, "Stand-in"), 0; }
    int cuDeviceTotalMem_v2(unsigned long* bytes, int) { return *bytes = 1ul << 33, 0; }
    int cuDeviceGetAttribute(int* value, int attribute, int) { return *value = attribute == 75 ? %(major)d : 0, 0; }
    }
"""


class Bundle:
    """A folder as --pack leaves it, of stand-ins."""

    def __init__(self, work, backend="emulated", **needs):
        self.folder = work / "bundle"
        (self.folder / "bin").mkdir(parents=True)
        for name in ("gpu_check", "gpu_peers.py"):
            shutil.copy2(SCRIPTS / name, self.folder / name)
        self.program("lathe", "")
        self.manifest = {"commit": "0123abc", "backend": backend, "tests": [],
                         "needs": {"glibc": "2.17", "cuda": "13.0", "compute_capability": "8.0", "libraries": [], "rpath": [], **needs}}

    def program(self, name, script):
        path = self.folder / "bin" / name
        starts = '[ "$1" != --version ] || exit 0\n' if name == "lathe" else ""
        path.write_text("#!/bin/sh\n" + starts + textwrap.dedent(script), encoding="utf-8")
        path.chmod(0o755)
        if name.startswith("test_"):
            self.manifest["tests"].append(name)

    def command(self, stage, *options):
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest), encoding="utf-8")
        return [sys.executable, self.folder / "gpu_check", "--stage", stage, "--json", self.folder / "json", *options]

    def run(self, stage, *options, **environment):
        result = subprocess.run(self.command(stage, *options), env={**os.environ, **environment}, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, check=False)
        return result, self.read(stage)

    def read(self, stage):
        return json.loads((self.folder / "json" / f"{stage}.json").read_text(encoding="utf-8"))


class GpuCheckTest(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))
        self.addCleanup(shutil.rmtree, self.work)

    def driver(self, **properties):
        """The path of a driver of which only the answers exist."""
        source, library = self.work / "driver.cc", self.work / "libstandin.so"
        source.write_text(DRIVER % {"init": 0, "version": 13000, "count": 1, "major": 9, **properties}, encoding="utf-8")
        subprocess.run([os.environ.get("CXX", "c++"), "-shared", "-fPIC", "-o", library, source], check=True)
        return str(library)

    def expect(self, result, status, exit_status, reason=""):
        done, found = result
        self.assertEqual(found["status"], status, done.stdout + done.stderr)
        self.assertEqual(done.returncode, exit_status, done.stdout + done.stderr)
        self.assertIn(reason, found.get("reason", ""))
        if status == "passed":
            self.assertNotIn("reason", found)
        else:
            self.assertIn(reason, done.stdout)
        return found

    def test_all_pass(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", ONE_PASSES)
        bundle.program("test_b", ONE_PASSES)
        found = self.expect(bundle.run("tests"), "passed", 0)
        self.assertEqual([(run["name"], run["passed"]) for run in found["runs"]], [("test_a", 1), ("test_b", 1)])
        self.assertTrue(found["emulated"])
        self.assertEqual(found["bundle"]["commit"], "0123abc")

    def test_driver_missing(self):
        bundle = Bundle(self.work, backend="cuda")
        bundle.program("test_a", ONE_PASSES)
        for stage in ("tests", "sanitize", "bench", "peers"):
            found = self.expect(bundle.run(stage, LATHE_GPU_DRIVER="libnothere.so.1"), "unavailable", 77, "no NVIDIA driver was found")
            self.assertEqual(found["runs"], [])

    def test_driver_too_old_or_without_gpu(self):
        for properties, reason in (({"version": 12080}, "is for CUDA 12.8, and this bundle needs one for CUDA 13.0 or later"),
                                   ({"count": 0}, "no GPU was found"), ({"init": 100}, "(cuInit: error 100)"),
                                   ({"major": 7}, "Stand-in has compute capability 7.0, and Lathe's kernels need 8.0 or later")):
            shutil.rmtree(self.work / "bundle", ignore_errors=True)
            bundle = Bundle(self.work, backend="cuda")
            self.expect(bundle.run("tests", LATHE_GPU_DRIVER=self.driver(**properties)), "unavailable", 77, reason)

    def test_gpu_is_described(self):
        bundle = Bundle(self.work, backend="cuda")
        bundle.program("test_a", ONE_PASSES)
        found = self.expect(bundle.run("tests", LATHE_GPU_DRIVER=self.driver()), "passed", 0)
        self.assertEqual(found["machine"]["gpus"][0]["name"], "Stand-in")
        self.assertEqual(found["machine"]["driver_cuda"], "13.0")
        self.assertFalse(found["emulated"])

    def test_libraries_and_glibc(self):
        bundle = Bundle(self.work, libraries=["libcublasLt.so.99"])
        self.expect(bundle.run("tests"), "unavailable", 77, "libcublasLt.so.99 was not found")
        (self.work / "libcublasLt.so.99").touch()
        bundle.program("test_a", 'echo "$LD_LIBRARY_PATH"' + ONE_PASSES)
        found = self.expect(bundle.run("tests", CUDA_HOME="", LD_LIBRARY_PATH=str(self.work)), "passed", 0)
        self.assertEqual(found["machine"]["libraries"], {"libcublasLt.so.99": str(self.work / "libcublasLt.so.99")})
        bundle.manifest["needs"]["glibc"] = "9.99"
        self.expect(bundle.run("tests"), "unavailable", 77, "needs 9.99 or later")

    def test_programs_that_do_not_start(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", ONE_PASSES)
        script = bundle.folder / "bin" / "lathe"
        script.write_text("#!/bin/sh\ncase \"$LD_LIBRARY_PATH\" in */lib/cxx) exit 0 ;; esac\necho 'GLIBCXX_3.4.30 not found'; exit 1\n", encoding="utf-8")
        self.assertEqual(self.expect(bundle.run("tests"), "passed", 0)["machine"]["cxx_library"], "the bundle's")
        script.write_text("#!/bin/sh\necho 'GLIBC_2.99 not found'; exit 1\n", encoding="utf-8")
        self.expect(bundle.run("tests"), "unavailable", 77, "programs do not start here: GLIBC_2.99 not found")

    def test_a_failure(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", ONE_PASSES + """
            echo '[ RUN      ] Norm/cuda_f32.Backward'
            echo 'norm_test.cc:7: Failure'
            echo '[  FAILED  ] Norm/cuda_f32.Backward, where TypeParam = Case<float> (5 ms)'
            exit 1""")
        bundle.program("test_b", ONE_PASSES)
        found = self.expect(bundle.run("tests"), "failed", 1, "test_a: 1 tests failed")
        self.assertEqual(found["runs"][0]["failed"], [{"test": "Norm/cuda_f32.Backward", "message": "norm_test.cc:7: Failure"}])
        self.assertEqual(found["runs"][1]["status"], "passed", "the others run all the same")

    def test_a_crash_is_named(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", "echo '[ RUN      ] Norm/cuda_f32.Forward'\nkill -SEGV $$")
        found = self.expect(bundle.run("tests"), "failed", 1, "test_a: ended by signal 11 (SIGSEGV)")
        self.assertEqual(found["runs"][0]["during"], "Norm/cuda_f32.Forward")

    def test_a_program_that_cannot_start(self):
        bundle = Bundle(self.work)
        bundle.manifest["tests"] = ["test_absent"]
        self.expect(bundle.run("tests"), "failed", 1, "test_absent: could not be started: No such file or directory")

    def test_skips_for_want_of_a_gpu_are_failures(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", ONE_PASSES + """
            echo '[ RUN      ] Norm/cuda_f32.Backward'
            echo 'tests/needs_gpu.cc:44: Skipped'
            echo 'no GPU was found'
            echo
            echo '[  SKIPPED ] Norm/cuda_f32.Backward (0 ms)'""")
        found = self.expect(bundle.run("tests"), "failed", 1, "1 tests found no GPU: no GPU was found")
        self.assertEqual(found["runs"][0]["skipped"], [{"test": "Norm/cuda_f32.Backward", "reason": "no GPU was found"}])

    def test_nothing_run_is_no_success(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", "exit 0")
        self.expect(bundle.run("tests"), "failed", 1, "no test ran")

    def test_a_filter_may_leave_a_program_without_tests(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", ONE_PASSES)
        bundle.program("test_b", "echo '[==========] Running 0 tests from 0 test suites.'")
        found = self.expect(bundle.run("tests", "--filter", "Norm*"), "passed", 0)
        self.assertEqual(found["runs"][1]["status"], "not selected")
        self.expect(bundle.run("tests"), "failed", 1, "test_b: no test ran")
        bundle.manifest["tests"] = ["test_b"]
        self.expect(bundle.run("tests", "--filter", "Norm*"), "failed", 1, "no program had anything to run")

    def test_too_slow(self):
        bundle = Bundle(self.work)
        # Its children end with it, also one that ignores the polite way.
        bundle.program("test_a", ONE_PASSES + "echo '[ RUN      ] Norm/cuda_f32.Backward'\n(trap '' TERM; sleep 61) & sleep 60")
        bundle.program("test_b", ONE_PASSES)
        begin = time.monotonic()
        found = self.expect(bundle.run("tests", "--limit", "1.5"), "too slow", 1, "in Norm/cuda_f32.Backward")
        self.assertLess(time.monotonic() - begin, 15)
        self.assertEqual([run["status"] for run in found["runs"]], ["too slow", "not run"])
        self.assertEqual(found["runs"][0]["passed"], 1, "what had ended is counted")

    def test_stopped(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", "sleep 60")
        child = subprocess.Popen(bundle.command("tests"), stdout=subprocess.DEVNULL)
        path = bundle.folder / "json" / "tests.json"
        while not (path.exists() and bundle.read("tests")["runs"]):
            time.sleep(0.05)
        self.assertEqual(bundle.read("tests")["status"], "unfinished", "it is written from the beginning")
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(timeout=15), 1)
        self.assertEqual(bundle.read("tests")["reason"], "stopped by SIGTERM")

    def sanitizer(self, script):
        tools = self.work / "tools"
        tools.mkdir(exist_ok=True)
        path = tools / "compute-sanitizer"
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script), encoding="utf-8")
        path.chmod(0o755)
        return f"{tools}:{os.environ['PATH']}"

    def test_sanitize(self):
        bundle = Bundle(self.work)
        bundle.program("test_a", 'test "$LATHE_TEST_REPEATS" = 2 || exit 5' + ONE_PASSES)
        run_last = 'shift 8; "$@"; '  # the options before the program
        clean = self.sanitizer(run_last + "echo '========= ERROR SUMMARY: 0 errors'")
        found = self.expect(bundle.run("sanitize", PATH=clean), "passed", 0)
        self.assertEqual([run["name"] for run in found["runs"]], ["memcheck_test_a", "racecheck_test_a", "synccheck_test_a"])
        bad = self.sanitizer("tool=$2; " + run_last + 'if [ $tool = racecheck ]; then echo "= RACECHECK SUMMARY: 3 hazards displayed"; exit 99; fi\n'
                             'echo "= ERROR SUMMARY: 0 errors"')
        self.expect(bundle.run("sanitize", PATH=bad), "failed", 1, "racecheck found 3 errors")
        silent = self.sanitizer(run_last)
        self.expect(bundle.run("sanitize", PATH=silent), "failed", 1, "memcheck printed no summary")

    def test_sanitizer_missing(self):
        bundle = Bundle(self.work)
        self.expect(bundle.run("sanitize", PATH="/nowhere", CUDA_HOME="/nowhere", CUDA_PATH="/nowhere"), "unavailable", 77, "compute-sanitizer was not found")

    def test_bench(self):
        bundle = Bundle(self.work)
        bundle.program("lathe", """echo "{\\"rows\\":[" && echo "{\\"said\\": \\"$*\\"}" && echo '],"complete":true}'; echo a warning >&2""")
        found = self.expect(bundle.run("bench"), "passed", 0)
        self.assertEqual([run["name"] for run in found["runs"]], ["step", "fine_tuning", "bench"])
        self.assertEqual(found["bench"], {"rows": [{"said": "bench --device cuda --json"}], "complete": True})
        self.assertEqual(found["step"]["rows"][0]["said"], "bench step --device cuda --json")
        self.assertEqual(found["fine_tuning"]["rows"][0]["said"], "bench step --task classify --lengths sst2 --device cuda --json")
        self.assertEqual((bundle.folder / "json" / "bench" / "bench.log").read_text(encoding="utf-8"), "a warning\n")
        bundle.program("lathe", "echo 'lathe: no such command: bench' >&2; exit 2")
        self.assertIsNone(self.expect(bundle.run("bench"), "failed", 1, "bench: lathe: no such command: bench")["bench"])
        bundle.program("lathe", "echo nothing")
        self.expect(bundle.run("bench"), "failed", 1, "printed no JSON")
        bundle.program("lathe", """echo '{"rows":[' && echo '{"task":"mlm","error":"no memory"}' && echo '],"complete":true}'""")
        self.expect(bundle.run("bench"), "failed", 1, "step: 1 rows failed: no memory")

    def test_steps_on_a_gpu_are_brief_enough_for_all_rows(self):
        bundle = Bundle(self.work, backend="cuda")
        bundle.program("lathe", """echo "{\\"rows\\":[{\\"said\\": \\"$*\\"}]}" """)
        found = self.expect(bundle.run("bench", LATHE_GPU_DRIVER=self.driver()), "passed", 0)
        self.assertEqual(found["step"]["rows"][0]["said"], "bench step --warmup-steps 20 --steps 20 --seconds 4 --device cuda --json")
        self.assertIn("--tokens 512", found["fine_tuning"]["rows"][0]["said"])

    def test_rows_before_a_cut_are_kept(self):
        bundle = Bundle(self.work)
        for ending in ("", ",", ",\n{\"ker"):
            printed = '{"device":"d","rows":[\n{"kernel":"a","seconds":1},\n{"kernel":"b","seconds":2}' + ending
            (self.work / "printed").write_text(printed, encoding="utf-8")
            bundle.program("lathe", f"cat {self.work}/printed; sleep 60")
            found = self.expect(bundle.run("bench", "--limit", "2"), "too slow", 1, "step: had not ended after")
            self.assertEqual(found["step"], {"complete": False, "device": "d", "rows": [{"kernel": "a", "seconds": 1}, {"kernel": "b", "seconds": 2}]})
        bundle.program("lathe", """echo '{"device":"d","rows":['; kill -SEGV $$""")
        found = self.expect(bundle.run("bench"), "failed", 1, "step: ended by signal 11 (SIGSEGV)")
        self.assertEqual(found["step"], {"complete": False, "device": "d", "rows": []})

    def test_peers(self):
        bundle = Bundle(self.work)
        bundle.program("lathe", "echo '{}'")
        bundle.program("python", """case "$1" in -c) exit 0 ;; *) echo '{"rows": []}' ;; esac""")
        found = self.expect(bundle.run("peers", "--python", str(bundle.folder / "bin" / "python")), "passed", 0)
        self.assertEqual([run["name"] for run in found["runs"]],
                         ["lathe_step", "peers_step", "lathe_attention", "peers_attention", "lathe_operators", "peers_operators"])
        self.assertEqual((found["step"], found["peers"]["rows"], found["comparison"]), ({}, [], []))
        found = self.expect(bundle.run("peers", "--part", "attention", "--python", str(bundle.folder / "bin" / "python")), "passed", 0)
        self.assertEqual([run["name"] for run in found["runs"]], ["lathe_attention", "peers_attention"])
        bundle.program("python", "exit 1")
        self.expect(bundle.run("peers", "--python", str(bundle.folder / "bin" / "python")), "unavailable", 77, "has no PyTorch")

    def test_peers_are_compared_with_the_kernels_that_do_the_same(self):
        bundle = Bundle(self.work, backend="cuda")
        driver = self.driver()
        ours = [{"kernel": f"gelu_erf_{direction}", "dtype": "bf16", "shape": {"F": 8, "T": 2}, "seconds": seconds}
                for direction, seconds in (("forward", 2e-6), ("backward", 3e-6))]
        common = {"operator": "gelu_erf", "dtype": "bf16", "shape": {"T": 2, "F": 8}, "mode": "eager", "microseconds": 10.0}
        peers = [{**common, "direction": "forward", "kernels": ["gelu_erf_forward"]},
                 {**common, "direction": "both", "kernels": ["gelu_erf_forward", "gelu_erf_backward"]},
                 {**common, "direction": "both", "kernels": ["gelu_erf_forward"], "dtype": "f32"}, {"operator": "adamw", "unavailable": "why"}]
        bundle.program("lathe", f"echo '{json.dumps({'rows': ours})}'")
        bundle.program("python", f"""case "$1" in -c) exit 0 ;; *) echo '{json.dumps({'rows': peers})}' ;; esac""")
        options = ("--part", "operators", "--python", str(bundle.folder / "bin" / "python"))
        found = self.expect(bundle.run("peers", *options, LATHE_GPU_DRIVER=driver), "passed", 0)
        self.assertEqual([(row["direction"], row["times_as_fast"]) for row in found["comparison"]], [("forward", 5.0), ("both", 2.0)])
        bundle.program("lathe", "echo '{}'")
        self.expect(bundle.run("peers", *options, LATHE_GPU_DRIVER=driver), "failed", 1, "no kernel of lathe bench has a peer of its shape")
        peers.append({"operator": "adamw", "error": "it failed"})
        bundle.program("python", f"""case "$1" in -c) exit 0 ;; *) echo '{json.dumps({'rows': peers})}'; exit 1 ;; esac""")
        found = self.expect(bundle.run("peers", *options, LATHE_GPU_DRIVER=driver), "failed", 1, "peers_operators: 1 rows failed: it failed")
        self.assertEqual(len(found["peers"]["rows"]), 5, "the others are kept")

    def test_steps_are_compared_by_real_tokens(self):
        bundle = Bundle(self.work, backend="cuda")
        step = {"task": "mlm", "model": "base", "lengths": "fixed:512", "step_tokens": 32768, "dropout": 0.1, "dtype": "bf16", "tokens_per_second": 8e5}
        peers = [{"operator": "step", **step, "mode": "eager", "tokens_per_second": 2e5}, {"operator": "step", "mode": "compile", "unavailable": "why"},
                 {"operator": "step", **step, "lengths": "wiki", "mode": "eager"}]
        bundle.program("lathe", f"echo '{json.dumps({'rows': [step]})}'")
        bundle.program("python", f"""case "$1" in -c) exit 0 ;; *) cp "${{7}}" {self.work}/given; echo '{json.dumps({'rows': peers})}' ;; esac""")
        done, found = bundle.run("peers", "--part", "step", "--python", str(bundle.folder / "bin" / "python"), LATHE_GPU_DRIVER=self.driver())
        self.expect((done, found), "passed", 0)
        self.assertEqual(json.loads((self.work / "given").read_text(encoding="utf-8")), {"rows": [step]}, "the peer is told of Lathe's rows")
        self.assertEqual([(row["mode"], row["times_as_fast"]) for row in found["comparison"]], [("eager", 4.0)])
        self.assertIn("mlm base, fixed:512, bf16: 800,000 tokens/s, Hugging Face eager 200,000: 4.00 times as fast", done.stdout)

    def test_misuse(self):
        done = subprocess.run([sys.executable, SCRIPTS / "gpu_check", "--stage", "tests"], stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no manifest.json beside this file", done.stderr)
        (self.work / "full").mkdir()
        (self.work / "full" / "file").touch()
        done = subprocess.run([sys.executable, SCRIPTS / "gpu_check", "--pack", self.work / "full"], stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("not an empty folder", done.stderr)

    def test_true_bundle(self):
        if BUILD is None:
            self.skipTest("no --build")
        folder = self.work / "bundle"
        packed = subprocess.run([sys.executable, SCRIPTS / "gpu_check", "--pack", folder, "--build", BUILD], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(packed.returncode, 0, packed.stdout + packed.stderr)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.assertIn("test_kernels_elementwise", manifest["tests"])
        self.assertEqual(manifest["bytes"], sum((folder / name).stat().st_size for name in manifest["files"]))
        run = subprocess.run([sys.executable, folder / "gpu_check", "--stage", "tests", "--filter", "CudaDevice.*:CastKernel*:OptimizerTest*ClipScaleIs*"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        found = json.loads((folder / "results" / "tests.json").read_text(encoding="utf-8"))
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        status = {program["name"]: program["status"] for program in found["runs"]}
        self.assertEqual(sorted(status), sorted(manifest["tests"]))
        for name in ("test_kernels_elementwise", "test_kernels_products", "test_runtime"):
            self.assertEqual(status[name], "passed")
        self.assertGreater(sum(program.get("passed", 0) for program in found["runs"]), 6)
        self.assertIn("tests, emulated: passed", run.stdout)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--build")
    options, rest = arguments.parse_known_args()
    BUILD = options.build
    unittest.main(argv=[sys.argv[0]] + rest)
