"""Programs that only some tests need, and the builds without Python that they make."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
REQUIRED = os.environ.get("FUSEDSTEP_REQUIRE_TOOLS", "") not in ("", "0")


def missing(what: str) -> None:
    """Skips the test; where ``FUSEDSTEP_REQUIRE_TOOLS`` is set, as in CI, fails it."""
    if REQUIRED:
        pytest.fail(f"{what}, and FUSEDSTEP_REQUIRE_TOOLS is set")
    pytest.skip(what)


def need(*programs: str) -> None:
    if absent := [p for p in programs if shutil.which(p) is None]:
        missing(f"not installed: {', '.join(absent)}")


def need_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        missing(f"not installed: {name}")


def run(*command: str | Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    if str(command[0]).startswith("qemu-"):
        environment.pop("OPENBLAS_CORETYPE", None)  # forced for the CPU of this machine, it is too wide for another
    result = subprocess.run(
        [str(c) for c in command],
        env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert not check or result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result


# The project's own CMake builds tests/replay, and with it the object of every target, for these machines.
BUILDS = {
    "native": ("FUSEDSTEP_SIMDE=ON", "FUSEDSTEP_CUDA=HOST" if platform.machine() == "x86_64" else "FUSEDSTEP_CUDA=OFF"),
    "aarch64": (
        "CMAKE_SYSTEM_NAME=Linux",
        "CMAKE_SYSTEM_PROCESSOR=aarch64",
        "CMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
        "CMAKE_EXE_LINKER_FLAGS=-static",
    ),
}


def build_replay(folder: Path, name: str) -> Path:
    need("cmake", "ninja", "aarch64-linux-gnu-g++" if name == "aarch64" else "c++")
    if name == "native":
        found = subprocess.run(["c++", "-xc++", "-E", "-"], input=b"#include <simde/x86/avx512.h>", capture_output=True)
        if found.returncode != 0:
            missing("not installed: SIMDe")
    run(
        "cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, "-DFUSEDSTEP_PROGRAMS=ON", "-DFUSEDSTEP_WERROR=ON",
        "-DFUSEDSTEP_EXTRAS=ON", "-DSKBUILD_PROJECT_VERSION=0",
        *(f"-D{d}" for d in BUILDS[name]),
    )  # fmt: skip
    run("cmake", "--build", folder)
    return folder


def built_replay(name: str, factory: pytest.TempPathFactory) -> Path:
    """The same, built once for all processes of a run: the first one builds, and others wait for it."""
    common = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent  # each worker has its own folder in that of the run
    folder, done = common / f"replay-{name}", common / f"replay-{name}.done"
    with FileLock(common / f"replay-{name}.lock"):
        if not done.exists():
            build_replay(folder, name)
            done.touch()
    return folder


def replay_with(build: Path, target: str, flags: str, folder: Path) -> Path:
    """The program of a build, but with the object of one target compiled anew with more flags, in ``folder``."""
    commands = run("ninja", "-C", build, "-t", "commands", "replay").stdout.splitlines()
    (compiling,) = (c for c in commands if f"fs_{target}.dir" in c and " -c " in c)
    linking, program = commands[-1], folder / "replay"
    made = compiling.split(" -o ")[1].split()[0]
    assert made in linking
    assert linking.count(" -o replay ") == 1
    for command in (f"{compiling} {flags}", linking.replace(" -o replay ", f" -o {program} ")):
        run("sh", "-c", f"cd {build} && {command.replace(made, str(folder / 'target.o'))}")
    return program
