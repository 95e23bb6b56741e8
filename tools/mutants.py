"""Plants one fault at a time in the sources and runs the tests that shall find it.

    python tools/mutants.py                 # all; exit status 1 if one survives
    python tools/mutants.py --quick         # a fixed part, as in CI
    python tools/mutants.py --only layout   # those whose name or file contains this
    python tools/mutants.py --list

A fault in Python is planted in a copy of the package beside the installed core. For those in C++ the core is compiled
once, without CMake. Then each fault recompiles the objects that it reaches. Faults in what only rules and formats of
tests/extras use are planted in tests/replay, which tests then find where they have CMake build it. The tree itself is
never written. Each core of this machine takes a fault at a time. ``FAULTS`` of tests/cuda/test_faults.py are those of
the CUDA kernels.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants_list import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
# The instruction sets of this machine, as in CMakeLists.txt. Faults are planted in the first, the one that then runs.
TARGETS: dict[str, list[str]] = {"neon": []}
if platform.machine() == "x86_64":
    TARGETS = {"avx2": ["-mavx2"], "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]}
WIDE = next(iter(TARGETS))
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-w"]


class Unusable(Exception):
    """The list does not fit the sources or the tests."""


def planted(mutant: Mutant) -> str:
    """The file with the fault in it."""
    text = (ROOT / mutant.file).read_text()
    if (found := text.count(mutant.text)) != 1:
        raise Unusable(f"{mutant.name}: its text is {found} times in {mutant.file}, expected once: {mutant.text!r}")
    return text.replace(mutant.text, mutant.instead)


def tests_of(mutant: Mutant) -> list[str]:
    """Arguments of pytest: files below tests/, and perhaps -k."""
    names, _, expression = mutant.tests.partition(" -k ")
    files = []
    for name in names.split():
        file = ROOT / "tests" / name
        if not file.is_file():
            raise Unusable(f"{mutant.name}: there is no tests/{name}")
        files.append(str(file))
    return [*files, *(["-k", expression] if expression else [])]


# ------------------------------------------------------------------------------------------------------- the C++ core


def units() -> dict[str, list[str]]:
    """Of each object of the core: its source below csrc/, and flags."""
    found = {
        str(path.relative_to(ROOT / "csrc")): [str(path.relative_to(ROOT / "csrc"))]
        for folder in ("bindings", "call", "cpu", "kernels")
        for path in sorted((ROOT / "csrc" / folder).glob("*.cpp"))
        if path.name != "target.cpp"
    }
    found["cuda/absent.cpp"] = ["cuda/absent.cpp"]
    found["cpu/dispatch.cpp"] += [f"-DFS_HAVE_{name.upper()}" for name in TARGETS]
    for name, flags in {"scalar": [], **TARGETS}.items():
        lanes = f'-DFS_LANES="../vec/{name}.h"'
        found[f"target {name}"] = ["cpu/target.cpp", f"-DFS_TARGET={name}", lanes, *flags]
    return found


def units_of_replay() -> dict[str, list[str]]:
    """Those of tests/replay, which knows no Python and has more rules and formats."""
    extras = [f'-DFS_EXTRA_{kind.upper()}="{ROOT}/tests/extras/{kind}.h"' for kind in ("rules", "formats")]
    found = {name: [*unit, *extras] for name, unit in units().items() if not name.startswith("bindings")}
    found["replay"] = ["../tests/replay/replay.cpp", *extras]
    if platform.machine() == "x86_64":
        found["cpu/dispatch.cpp"].append("-DFS_HAVE_SIMDE_AVX512")
        lanes = ["-DFS_TARGET=simde_avx512", '-DFS_LANES="../vec/avx512.h"', f"-I{ROOT}/tests/simde"]
        found["target simde_avx512"] = ["cpu/target.cpp", *lanes, *extras]
    return found


class Core:
    """The objects of the core, and modules or programs made of them."""

    def __init__(self, work: Path, units: dict[str, list[str]]) -> None:
        digest = hashlib.sha256(repr((FLAGS, sys.version, units)).encode())
        for path in sorted(
            [*(ROOT / "csrc").rglob("*.*"), *(ROOT / "tests").rglob("*.h"), *(ROOT / "tests/replay").glob("*")]
        ):
            digest.update(path.read_bytes())
        self.folder = work / digest.hexdigest()[:16]
        self.units = units

    def include(self) -> list[str]:
        import pybind11

        return [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]

    def compile(self, unit: str, to: Path, root: Path) -> Path:
        source, *flags = self.units[unit]
        out = to / (unit.replace("/", "_").replace(" ", "_") + ".o")
        if not out.exists():
            part = out.with_suffix(".part")
            command = ["c++", *FLAGS, *self.include(), *flags, "-c", str(root / "csrc" / source), "-o", str(part)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise Unusable(f"{unit} does not compile: {result.stderr[:2000]}")
            part.rename(out)
        return out

    def objects(self) -> dict[str, Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda unit: self.compile(unit, self.folder, ROOT), self.units)
            return dict(zip(self.units, made, strict=True))

    def link(self, objects: dict[str, Path], package: Path) -> None:
        """The module, in the package; the program, beside it, with a CMake that only gives it out."""
        name = "_core" + sysconfig.get_config_var("EXT_SUFFIX")
        to = [str(package.parent / "replay")] if "replay" in objects else [str(package / name), "-shared"]
        subprocess.run(["c++", *map(str, objects.values()), "-o", *to, "-lpthread", "-ldl"], check=True)
        if "replay" in objects:
            shutil.copy2(installed_core(), package)
            cmake = package.parent / "cmake"
            cmake.write_text(f'#!/bin/sh\n[ "$1" != --build ] || cp {shlex.quote(to[0])} "$2"\n')
            cmake.chmod(0o755)

    def plant(self, mutant: Mutant, text: str, package: Path) -> None:
        """The module with this fault, in the package."""
        objects, tree = self.objects(), package.parent / "tree"
        shutil.copytree(ROOT / "csrc", tree / "csrc")
        (tree / mutant.file).write_text(text)
        reached = mutant.units or (str(Path(mutant.file).relative_to("csrc")),)
        wide = [f"target {WIDE}" if unit == "target" else unit for unit in reached]
        for unit in wide:
            objects[unit] = self.compile(unit, tree, tree)
        self.link(objects, package)


# ---------------------------------------------------------------------------------------------------------- the tests


def package_in(folder: Path) -> Path:
    package = folder / "fusedstep"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "python/fusedstep", package, ignore=shutil.ignore_patterns("__pycache__", "_core*.so"))
    return package


def installed_core() -> Path:
    spec = importlib.util.find_spec("fusedstep._core")
    if spec is None or spec.origin is None:
        raise Unusable("fusedstep is not installed")
    return Path(spec.origin)


def run_tests(mutant: Mutant, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "FUSEDSTEP_TARGET": WIDE}
    env["PATH"] = f"{folder}:{env['PATH']}"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests_of(mutant)]
    try:
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, -1, "", "hangs")


def outcome(result: subprocess.CompletedProcess[str]) -> str:
    """ "killed", "survives", or "" where the tests could not be run."""
    if result.returncode == 0:
        return "survives"
    return "killed" if result.returncode == 1 or result.returncode < 0 else ""


def fair(mutant: Mutant, core: Core, folder: Path) -> None:
    """Without the fault the same tests pass: what they then find is the fault."""
    package = package_in(folder)
    if mutant.is_cpp:
        core.link(core.objects(), package)
    else:
        shutil.copy2(installed_core(), package)
    if outcome(result := run_tests(mutant, folder)) != "survives":
        raise Unusable(f"{mutant.tests} fails without a fault:\n{(result.stdout + result.stderr)[-3000:]}")


def check(mutant: Mutant, core: Core, folder: Path) -> str:
    text = planted(mutant)
    package = package_in(folder)
    if mutant.is_cpp:
        core.plant(mutant, text, package)
    else:
        (package / Path(mutant.file).relative_to("python/fusedstep")).write_text(text)
        shutil.copy2(installed_core(), package)
    result = run_tests(mutant, folder)
    found = outcome(result)
    if not found:
        raise Unusable(f"{mutant.name}: {mutant.tests} could not be run:\n{(result.stdout + result.stderr)[-3000:]}")
    return found


def chosen(args: argparse.Namespace) -> Iterator[Mutant]:
    for mutant in MUTANTS:
        if args.quick and not mutant.quick:
            continue
        if args.only and args.only not in mutant.name and args.only not in mutant.file:
            continue
        yield mutant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="those whose name or file contains it")
    parser.add_argument("--quick", action="store_true", help="the part that CI runs")
    parser.add_argument("--work", type=Path, help="keeps compiled objects there from run to run")
    args = parser.parse_args()
    mutants = list(chosen(args))
    if args.list:
        for m in mutants:
            print(f"{m.name:60} {m.file:40} {m.tests}")
        return 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        cores = {False: Core(work / "module", units()), True: Core(work / "replay", units_of_replay())}

        def folder() -> Path:
            return Path(temporary) / str(threading.get_ident())  # of a worker

        def without(m: Mutant) -> None:
            fair(m, cores[m.in_replay], folder())

        def tried(m: Mutant) -> str:
            since = time.monotonic()
            found = check(m, cores[m.in_replay], folder())
            print(f"{found:9} {time.monotonic() - since:5.1f} s  {m.name} ({m.file})", flush=True)
            return found

        try:
            for m in mutants:  # the whole list, before anything takes time
                planted(m)
                tests_of(m)
            print(f"{len(mutants)} faults", flush=True)
            for in_replay in {m.in_replay for m in mutants if m.is_cpp}:
                cores[in_replay].objects()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                try:
                    list(pool.map(without, {(m.tests, m.is_cpp): m for m in mutants}.values()))
                    outcomes = list(pool.map(tried, mutants))
                except Unusable:
                    pool.shutdown(cancel_futures=True)
                    raise
        except Unusable as error:
            print(error, file=sys.stderr)
            return 2
    survivors = [m for m, found in zip(mutants, outcomes, strict=True) if found == "survives"]
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} killed in {time.monotonic() - start:.0f} s")
    for m in survivors:
        print(f"survives: {m.name}; run by {shlex.join(['pytest', *tests_of(m)])}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
