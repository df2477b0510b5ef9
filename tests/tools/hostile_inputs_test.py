#!/usr/bin/env python3
"""Runs the command on every input of scripts/hostile_inputs.py and holds it to the outcome stated there.

    tests/tools/hostile_inputs_test.py COMMAND [--sanitized] [--only TEXT] [--jobs N]

Of each: no signal, at most 10 s and 1 GB of memory. Accepted: exit status 0, and the run or the prediction is there. Refused: exit
status 2, nothing on standard output, and as last line on standard error one that begins with "lathe: ", is shorter than 300
characters, names the file and states a fact; no control character anywhere; no output folder. With --sanitized, limits of time and
memory are those of an instrumented build.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import hostile_inputs  # noqa: E402

LONGEST_LINE = 300
MOST_TEXT = 4000  # of all that a run says before it ends


def run(command, line, given, folder, limit_s):
    """Exit status (negative: the signal), output, errors, seconds, peak memory in bytes."""
    (folder / "stdin").write_bytes(given)
    with open(folder / "stdin", "rb") as source, open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
        begin = time.monotonic()
        process = subprocess.Popen([command, *line], stdin=source, stdout=out, stderr=err)
        killer = threading.Timer(limit_s, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)  # else Popen waits for a process that is gone
    errors = (folder / "err").read_bytes()
    return process.returncode, (folder / "out").read_bytes(), errors, seconds, usage.ru_maxrss * 1024


def faults(case, folder, status, out, errors, seconds, memory, limits):
    """What is wrong with how the command behaved; empty where nothing is."""
    if seconds > limits["seconds"]:
        yield f"took {seconds:.1f} s"
    if memory > limits["bytes"]:
        yield f"took {memory / 1e6:.0f} MB of memory"
    if re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", errors):
        yield "a control character on standard error"
    try:
        text = errors.decode()
    except UnicodeDecodeError:
        yield "standard error is not UTF-8"
        return
    if len(text) > MOST_TEXT:
        yield f"{len(text)} characters on standard error"
    if case.outcome == hostile_inputs.ACCEPTED:
        if status != 0:
            yield f"exit status {status}, expected 0"
            return
        if case.command == "predict":
            if json.loads(out)["label"] not in ("positive", "negative"):
                yield "no prediction"
        elif not json.loads((folder / "run/results.json").read_bytes()) or not (folder / "run/model.safetensors").exists():
            yield "no results"
        return
    if status != 2:
        yield f"exit status {status}, expected 2"
    if out:
        yield "standard output is not empty"
    if (folder / "run").exists():
        yield "the output folder was made"
    lines = text.splitlines()
    if not text.endswith("\n") or sum(line.startswith("lathe: ") for line in lines) != 1 or not lines[-1].startswith("lathe: "):
        yield "the last line is not the one line of error"
        return
    if len(lines[-1]) >= LONGEST_LINE:
        yield f"a line of {len(lines[-1])} characters"
    if pathlib.Path(case.path).name not in lines[-1]:
        yield f"{pathlib.Path(case.path).name} is not named"
    if not any(re.search(fact, lines[-1]) for fact in case.facts):
        yield f"none of {case.facts} is stated"


def check(case, number, command, scratch, limits):
    folder = scratch / f"{number}"
    folder.mkdir()
    try:
        hostile_inputs.write(case, folder)
        line, given = hostile_inputs.arguments(case, folder)
        result = run(command, line, given, folder, limits["seconds"] + 1)
        found = list(faults(case, folder, *result, limits))
        return found, result[2].decode("utf-8", "backslashreplace"), result[3], result[4]
    finally:
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command")
    parser.add_argument("--sanitized", action="store_true")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print every message")
    options = parser.parse_args()
    limits = {"seconds": 60, "bytes": 8e9} if options.sanitized else {"seconds": 10, "bytes": 1e9}
    begin = time.monotonic()
    failed, counts, slowest, largest = 0, {"accepted": 0, "refused": 0}, (0, ""), (0, "")
    with tempfile.TemporaryDirectory(prefix="lathe-hostile-") as scratch, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        def checked(numbered):
            number, case = numbered
            return case, *check(case, number, options.command, pathlib.Path(scratch), limits)
        cases = [case for case in hostile_inputs.all_cases() if options.only in case.name]
        for case, found, errors, seconds, memory in pool.map(checked, enumerate(cases)):
            counts[case.outcome] += 1
            slowest, largest = max(slowest, (seconds, case.name)), max(largest, (memory, case.name))
            failed += bool(found)
            if found or options.show:
                print(f"{'FAILED' if found else 'passed'}: {case.name} (to be {case.outcome}): {'; '.join(found)}")
                print("    " + errors.strip().split("\n")[-1][:400])
    print(f"{len(cases)} inputs ({counts['refused']} to be refused, {counts['accepted']} accepted) in {time.monotonic() - begin:.1f} s: {failed} failed; "
          f"slowest {slowest[0]:.2f} s ({slowest[1]}), largest {largest[0] / 1e6:.0f} MB ({largest[1]})")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
