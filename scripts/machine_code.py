#!/usr/bin/env python3
"""Reads what nvcc made of the kernels: registers, memory, occupancy and the instructions that touch memory.

usage: scripts/machine_code.py [--json | --check | --loops] [OBJECT...]   (default: the kernels of build/cuda)

A line for each kernel and architecture; --json for programs. --loops instead counts the instructions of each innermost loop that multiplies
on tensor cores, and how many of them each branch within it jumps over. --check instead names what no kernel of Lathe may have: local
memory and spilled registers (but what LOCAL allows, which is listed), and 16-byte kernels without 16-byte loads and stores of global
memory (but those of NARROW). Exit status: 0; 1 where --check found something; 2 for a misuse.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A processor of sm_80 and of sm_90a: registers, which are given out 8 a thread and 256 a warp at a time, and warps.
REGISTERS = 65536
WARPS = 64
BYTES_OF_SHARED_MEMORY = {"sm_80": 164 << 10, "sm_90a": 228 << 10}
SHARED_RESERVED = 1 << 10  # by the system, of each block

# Template arguments that say that a kernel moves 16 bytes at a time.
WIDE = re.compile(r"RowShape<\d+, (?:4|8), \d+>|(?:float, 4|Bf16, 8)>|^adamw_kernel<4>|^cross_entropy_|^attention_forward_kernel")

# Wide kernels that don't load, or don't store, 16 bytes at a time, and why.
NARROW = {
    "attention_statistics_kernel": (("STG",), "what is stored is two numbers of each row and head"),
    "cast_kernel": (("LDG", "STG"), "bf16's side of a cast is half as wide as fp32's"),
}

# Kernels that may have some bytes of local memory: more registers than a thread can have are of use to them.
LOCAL = {"attention_backward_kernel<96": 64, "attention_backward_kernel<128": 64}


class Misuse(Exception):
    """One line for the person at the terminal."""


def tools():
    """The environment in which cuobjdump and nvdisasm are found: the toolkit's, or those of the cache."""
    environment = dict(os.environ)
    if shutil.which("cuobjdump") is None or shutil.which("nvdisasm") is None:
        fetched = subprocess.run([sys.executable, ROOT / "scripts" / "fetch.py", "disassembler"], stdout=subprocess.PIPE,
                                 text=True, check=False)
        if fetched.returncode != 0:
            raise Misuse("cuobjdump and nvdisasm are not on PATH, and could not be fetched")
        folder = pathlib.Path(fetched.stdout.strip())
        environment["PATH"] = os.pathsep.join([str(folder / "cuobjdump"), str(folder / "nvdisasm"), environment["PATH"]])
    return environment


def output(command, environment, text=None):
    result = subprocess.run(command, env=environment, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            check=False)
    if result.returncode != 0:
        raise Misuse(f"{command[0]} failed: {result.stderr.strip().splitlines()[-1:] or result.returncode}")
    return result.stdout


def demangled(names):
    """Readable names without namespaces, return types and parameters."""
    lines = output(["c++filt"], dict(os.environ), "\n".join(names)).splitlines()
    readable = {}
    for name, line in zip(names, lines):
        line = line.replace("(anonymous namespace)::", "").replace("lathe::device::", "").replace("lathe::", "")
        line = re.sub(r"\((?:Activation|DropoutPlace|Drops|Source|Weighting)\)(\d+)", r"\1", line)  # an enumerator is printed as a cast
        depth, end = 0, len(line)
        for at, character in enumerate(line):
            depth += {"<": 1, ">": -1}.get(character, 0)
            if character == "(" and depth == 0:
                end = at
                break
        readable[name] = re.sub(r"^void ", "", line[:end])
    return readable


def resources(text):
    """(architecture, mangled name) -> numbers, from cuobjdump --dump-resource-usage."""
    found, architecture, name = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function (\S+?):?$", line):
            name = match[1]
        elif "REG:" in line and name is not None:
            numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line)}
            found[architecture, name] = numbers
            name = None
    return found


def instructions(text):
    """(architecture, mangled name) -> how often each instruction that matters stands in the code, from cuobjdump -sass."""
    found, architecture, counts = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\S+)", line):
            counts = found.setdefault((architecture, match[1]), collections.Counter())
        elif counts is not None and (match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", line)):
            counts["all"] += 1
            operation = match[1].split(".")
            if operation[0] in ("LDG", "LDGSTS", "STG", "LDS", "STS"):
                width = next((part for part in operation if part in ("64", "128")), "32 or less")
                counts[f"{operation[0]} {width}"] += 1
            elif operation[0] in ("LDL", "STL", "MUFU", "ATOMG", "ATOMS", "RED", "HMMA", "BAR", "SHFL", "LDSM"):
                counts[operation[0]] += 1
    return found


def product_loops(text):
    """(architecture, mangled name, instructions by name, instructions that each forward branch jumps over) of each innermost loop with HMMA, from
    cuobjdump -sass."""
    kernels, architecture, code = [], None, None
    for line in text.splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\S+)", line):
            code = []
            kernels.append((architecture, match[1], code))
        elif code is not None and (match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([^;]+);", line)):
            code.append((int(match[1], 16), match[2].split()))
    for architecture, name, code in kernels:
        branches = [(at, int(words[-1], 16)) for at, words in code if words[0] == "BRA" and words[-1].startswith("0x")]
        loops = [(to, at) for at, to in branches if to < at]
        for first, last in loops:
            if any((first, last) != (a, b) and first <= a and b <= last for a, b in loops):
                continue
            counts = collections.Counter(words[0].split(".")[0] for at, words in code if first <= at <= last)
            if counts["HMMA"]:
                skipped = [sum(at < other < to for other, _ in code) for at, to in branches if first <= at < to <= last]
                yield architecture, name, counts, skipped


def loop_lines(objects):
    """A line for each loop of product_loops()."""
    environment = tools()
    loops = [loop for path in objects for loop in product_loops(output(["cuobjdump", "-sass", path], environment))]
    names = demangled(sorted({name for _, name, _, _ in loops}))
    yield "| Kernel | | Instructions | HMMA | LDSM | MUFU | Jumped over by branches |"
    yield "|---|---|---|---|---|---|---|"
    for architecture, name, counts, skipped in sorted(loops, key=lambda loop: (names[loop[1]], loop[0])):
        numbers = " | ".join(str(counts[operation]) for operation in ("HMMA", "LDSM", "MUFU"))
        yield f"| {names[name]} | {architecture} | {counts.total()} | {numbers} | {', '.join(map(str, skipped)) or 'none'} |"


def threads_of(objects, environment):
    """Mangled name -> threads of a block, from the PTX, which states __launch_bounds__."""
    found = {}
    for path in objects:
        name = None
        for line in output(["cuobjdump", "-ptx", path], environment).splitlines():
            if match := re.search(r"\.entry (\S+?)\(", line):
                name = match[1]
            elif (match := re.match(r"\.maxntid (\d+)", line)) and name is not None:
                found[name] = int(match[1])
    return found


def occupancy(threads, registers, shared, architecture):
    """Share of a processor's warps that run at once, by registers and static shared memory."""
    warps = -(-threads // 32)
    registers_of_warp = -(-registers * 32 // 256) * 256
    blocks = REGISTERS // (registers_of_warp * warps)
    blocks = min(blocks, WARPS // warps, 32, BYTES_OF_SHARED_MEMORY.get(architecture, 164 << 10) // (shared + SHARED_RESERVED))
    return blocks * warps / WARPS


def collect(objects):
    environment = tools()
    kernels = {}
    for path in objects:
        used = resources(output(["cuobjdump", "--dump-resource-usage", path], environment))
        counted = instructions(output(["cuobjdump", "-sass", path], environment))
        for key, numbers in used.items():
            if key not in counted:
                raise Misuse(f"{path}: {key[1]} has no machine code for {key[0]}")
            kernels[key] = (pathlib.Path(path).name.removesuffix(".o"), numbers, counted[key])
    names = demangled(sorted({name for _, name in kernels}))
    threads = threads_of(objects, environment)
    result = []
    for (architecture, name), (file, numbers, counts) in kernels.items():
        if name not in threads:
            raise Misuse(f"{names[name]} in {file} states no __launch_bounds__")
        result.append({
            "file": file, "kernel": names[name], "architecture": architecture, "threads": threads[name],
            "registers": numbers["REG"], "stack": numbers["STACK"], "local": numbers["LOCAL"], "shared": numbers["SHARED"],
            "occupancy": occupancy(threads[name], numbers["REG"], numbers["SHARED"], architecture),
            "instructions": dict(counts), "wide": bool(WIDE.search(names[name]))})
    return sorted(result, key=lambda kernel: (kernel["file"], kernel["kernel"], kernel["architecture"]))


def local_accesses(kernel):
    """Whether a kernel uses local memory. A frame without loads and stores of it is what the compiler reserves and does not use."""
    counts = kernel["instructions"]
    return bool(kernel["local"] or counts.get("LDL", 0) + counts.get("STL", 0))


def faults(kernels):
    """One line for each rule that a kernel breaks."""
    for kernel in kernels:
        name = f"{kernel['file']}: {kernel['kernel']}, {kernel['architecture']}"
        counts = kernel["instructions"]
        allowed = LOCAL.get(kernel["kernel"].partition(",")[0], 0)
        if local_accesses(kernel) and kernel["stack"] > allowed:
            yield f"{name}: {counts.get('LDL', 0)} loads and {counts.get('STL', 0)} stores of local memory, {kernel['stack']} bytes of stack"
        excused, _ = NARROW.get(kernel["kernel"].partition("<")[0], ((), ""))
        if kernel["wide"]:
            for kind, instructions_of_kind in (("LDG", ("LDG", "LDGSTS")), ("STG", ("STG",))):
                if kind not in excused and not any(counts.get(f"{instruction} 128") for instruction in instructions_of_kind):
                    yield f"{name}: no {kind} of 16 bytes"


def table(kernels):
    yield "| Kernel | | Threads | Registers | Shared, bytes | Warps at once | Instructions | LDG 128 / 64 / less | STG 128 / 64 / less |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for kernel in kernels:
        counts = kernel["instructions"]
        widths = [" / ".join(str(counts.get(f"{kind} {width}", 0)) for width in ("128", "64", "32 or less")) for kind in ("LDG", "STG")]
        yield (f"| {kernel['kernel']} | {kernel['architecture']} | {kernel['threads']} | {kernel['registers']} | {kernel['shared']} "
               f"| {kernel['occupancy']:.0%} | {counts['all']} | {widths[0]} | {widths[1]} |")


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all numbers, for programs")
    form.add_argument("--check", action="store_true", help="what breaks a rule, and nothing else")
    form.add_argument("--loops", action="store_true", help="instructions of the loops that multiply on tensor cores")
    parser.add_argument("objects", nargs="*", type=pathlib.Path, help="default: the kernels of build/cuda")
    options = parser.parse_args(arguments)
    objects = options.objects or sorted((ROOT / "build/cuda/kernels/CMakeFiles/lathe_kernels.dir").glob("*.cu.o"))
    try:
        if not objects:
            raise Misuse("build/cuda has no kernels: cmake --preset cuda && cmake --build --preset cuda")
        if options.loops:
            print("\n".join(loop_lines([str(path) for path in objects])))
            return 0
        kernels = collect([str(path) for path in objects])
    except Misuse as misuse:
        print(f"machine_code: {misuse}", file=sys.stderr)
        return 2
    if options.check:
        found = list(faults(kernels))
        few = [f"{kernel['kernel']} ({kernel['architecture']}: {kernel['stack']} bytes)" for kernel in kernels if local_accesses(kernel)]
        but = f" but {', '.join(few)}" if few else ""
        print("\n".join(found) if found else f"{len(kernels)} kernels, none with local memory{but}, all wide ones with 16-byte accesses")
        return 1 if found else 0
    print(json.dumps(kernels, indent=1) if options.json else "\n".join(table(kernels)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
