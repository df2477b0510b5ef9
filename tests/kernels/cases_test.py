#!/usr/bin/env python3
"""Compares the cases that kernels are tested for on each backend.

usage: tests/kernels/cases_test.py CPU EMULATED [CUDA]     (build folders)

What is instantiated for a CudaStream must be the same, to the element type, emulated and for CUDA, and have a twin on the CPU; what is
instantiated for a CpuStream must have one on CUDA, but for CPU_ALONE. Each in fp32, on CUDA in bf16 too, but for FP32_ALONE. Exit status: 0; 1
where they differ, each difference a line; 2 for a misuse.
"""

import pathlib
import re
import subprocess
import sys

PROGRAMS = ("elementwise", "products", "attention_forward", "attention_backward")
CPU_ALONE = {"CpuMatmulTest": "what Eigen and oneDNN are told"}
FP32_ALONE = {"OptimizerTest": "masters and moments are of fp32", "CastKernel": "a test has both types"}


def cases(build):
    """{(suite, test)} -> the streams and element types that it is instantiated for."""
    found = {}
    for name in PROGRAMS:
        program = pathlib.Path(build) / "tests" / f"test_kernels_{name}"
        if not program.is_file():
            sys.exit(f"cases_test: {program} is not built")
        listed = subprocess.run([program, "--gtest_list_tests"], stdout=subprocess.PIPE, text=True, check=True).stdout
        suite = parameter = None
        for line in listed.splitlines():
            if match := re.match(r"(\w+)(?:/\w+)?\.(?:\s+# TypeParam = (.*))?$", line):
                suite, parameter = match[1], match[2]
            elif line.startswith("  ") and parameter and "Stream" in parameter:
                of = parameter.replace("emulated::", "").replace("lathe::", "").replace("test::", "")
                found.setdefault((suite, line.split()[0]), set()).add(of)
    return found


def differences(cpu, emulated, cuda):
    yield from (f"{suite}.{test}: on the CPU alone" for suite, test in sorted(cpu.keys() - emulated.keys()) if suite not in CPU_ALONE)
    yield from (f"{suite}.{test}: not on the CPU" for suite, test in sorted(emulated.keys() - cpu.keys()))
    for (suite, test), types in sorted(emulated.items()):
        if suite not in FP32_ALONE and not any("Bf16" in of for of in types):
            yield f"{suite}.{test}: not in bf16"
        if suite not in FP32_ALONE and not any("float" in of for of in types):
            yield f"{suite}.{test}: not in fp32"
    for case in sorted(emulated.keys() | cuda.keys()):
        if emulated.get(case) != cuda.get(case):
            yield f"{'.'.join(case)}: emulated {sorted(emulated.get(case, []))}, for CUDA {sorted(cuda.get(case, []))}"


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__.strip())
    lists = [cases(build) for build in sys.argv[1:]]
    if any(len(found) < 50 for found in lists):
        print(f"few cases: {[len(found) for found in lists]}")
        return 1
    found = list(differences(lists[0], lists[1], lists[-1]))
    for line in found:
        print(line)
    print(f"{len(lists[1])} tests on {len(lists)} lists, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
