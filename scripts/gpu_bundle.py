"""Packs what scripts/gpu_check carries to a machine with a GPU: the CUDA backend's test programs and the command, stripped, with the
shared libraries that are neither the C library's nor CUDA's, and a manifest of what it is and what it needs there."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "gpu-bundle"
BYTES_AT_MOST = 64 << 20
COMPUTE_CAPABILITY = "8.0"
# In lib/cxx, for systems whose own is older: with the C library that it is made for it asks for a newer one than the programs do.
OF_THE_COMPILER = re.compile(r"lib(stdc\+\+|gcc_s)\.so")
# Not carried: the C library, which every system has, and CUDA's libraries, which belong to the machine's driver or are large.
OF_THE_SYSTEM = re.compile(r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|linux-vdso)\.so")
OF_CUDA = re.compile(r"lib(cu|nv|nccl)")


class Refused(Exception):
    """One line: why there is no bundle."""


def output(command):
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise Refused(f"`{' '.join(str(part) for part in command)}` ended with status {result.returncode}")
    return result.stdout


def cache(build):
    """The settings that CMake keeps of a build."""
    path = build / "CMakeCache.txt"
    if not path.exists():
        raise Refused(f"{build} is no build of Lathe: there is no CMakeCache.txt")
    return dict(re.findall(r"^([A-Za-z0-9_]+):[A-Z]+=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_programs(build):
    """The programs with tests on the CUDA backend."""
    listed = json.loads(output(["ctest", "--test-dir", build, "--label-regex", "^cuda$", "--show-only=json-v1"]))
    if not listed["tests"]:
        raise Refused(f"{build} has no tests on the CUDA backend: build the preset gpu-bundle or emulated")
    for test in listed["tests"]:
        if "command" not in test:  # CTest does not find the program
            raise Refused(f"test_{test['name']} is not built: build the target cuda_tests")
    return [pathlib.Path(test["command"][0]) for test in listed["tests"]]


def read_elf(path):
    """The libraries that a program asks for itself, and the version of the C library that it needs."""
    text = output(["objdump", "-p", path])
    versions = [tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", text)]
    return re.findall(r"NEEDED +(\S+)", text), max(versions, default=(2, 0))


def commit():
    described = output(["git", "-C", ROOT, "rev-parse", "HEAD"]).strip()
    changed = output(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"]).strip()
    return described + (" and changes" if changed else "")


def pack(folder, build):
    """Fills `folder`, which must be new or empty. Without `build` the preset gpu-bundle is built first."""
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder} is there already, and not an empty folder")
    if build is None:
        for command in (["cmake", "--preset", "gpu-bundle"], ["cmake", "--build", "--preset", "gpu-bundle"]):
            if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
                raise Refused(f"`{' '.join(command)}` failed")
    build = pathlib.Path(build).resolve() if build else BUILD
    settings = cache(build)
    emulated = settings.get("LATHE_CUDA") == "EMULATED"
    tests = test_programs(build)
    programs = tests + [build / "lathe"]
    for program in programs:
        if not program.exists():
            raise Refused(f"{program} is not built")

    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name in ("bin", "lib/cxx"):
            (beside / name).mkdir(parents=True)
        needs = copy(programs, beside, strip=not emulated)
        for name in ("gpu_check", "gpu_peers.py"):
            shutil.copy2(ROOT / "scripts" / name, beside / name)
        files = {str(path.relative_to(beside)): path.stat().st_size for path in sorted(beside.rglob("*")) if path.is_file()}
        total = sum(files.values())
        needs["rpath"] = [place for place in settings.get("CMAKE_INSTALL_RPATH", "").split(";") if place.startswith("/")]
        manifest = {
            "commit": commit(), "backend": "emulated" if emulated else "cuda",
            "compiler": output([settings["CMAKE_CXX_COMPILER"], "--version"]).splitlines()[0],
            "nvcc": None if emulated else nvcc_version(settings), "architectures": None if emulated else settings.get("CMAKE_CUDA_ARCHITECTURES"),
            "tests": [program.name for program in tests], "needs": {**needs, "compute_capability": COMPUTE_CAPABILITY,
                                                                   "cuda": None if emulated else nvcc_version(settings)},
            "bytes": total, "files": files,
            "sha256": {name: hashlib.sha256((beside / name).read_bytes()).hexdigest() for name in files if name.startswith("bin/")},
        }
        if total >= BYTES_AT_MOST and not emulated:  # that one is carried nowhere
            raise Refused(f"the bundle has {total / 2**20:.1f} MiB, and it must be under {BYTES_AT_MOST >> 20} MiB")
        (beside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    driver = "no GPU, being emulated" if emulated else f"a driver for CUDA {manifest['nvcc'].split('.')[0]}.0 or later"
    print(f"{folder}: {len(files) + 1} files, {total / 2**20:.1f} MiB, of {manifest['commit']}")
    print("needs there: " + ", ".join([driver, f"glibc {needs['glibc']} or later", "python3"] + needs["libraries"]))


def nvcc_version(settings):
    said = output([settings["CMAKE_CUDA_COMPILER"], "--version"])
    return re.search(r"release (\d+\.\d+)", said)[1]


def copy(programs, beside, strip):
    """Copies programs and their libraries. What the emulation prints names source lines, which a stripped program no longer knows."""
    glibc, of_cuda = (2, 0), set()
    for program in programs:
        target = beside / "bin" / program.name
        shutil.copy2(program, target)
        if strip:
            output(["strip", target])
        needed, version = read_elf(target)
        glibc = max(glibc, version)
        of_cuda |= {name for name in needed if OF_CUDA.match(name)}
        for name, place in re.findall(r"^\s*(\S+) => (\S+)", output(["ldd", program]), re.MULTILINE):
            if OF_THE_SYSTEM.match(name) or OF_CUDA.match(name):
                continue
            if place == "not":
                raise Refused(f"{program.name} needs {name}, which is not on this machine")
            if OF_THE_COMPILER.match(name):
                shutil.copy(place, beside / "lib" / "cxx" / name)
            else:
                shutil.copy(place, beside / "lib" / name)
                glibc = max(glibc, read_elf(place)[1])
    return {"glibc": ".".join(map(str, glibc)), "libraries": sorted(of_cuda)}
