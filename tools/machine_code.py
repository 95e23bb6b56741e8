"""Compiles the CUDA kernels for every shipped architecture and reads what the compiler made of them.

    python tools/machine_code.py [--arch 80 --arch 90]

Needs nvcc, cuobjdump and nvdisasm: ``pip install ".[nvcc]"`` brings them. For each kernel of a step, with what rides
along or without, of a norm or a first pass (of the rules in ``extras/``, since no shipped one has sums): nothing is
kept in local memory; each stream of a plain step is loaded and stored 16 bytes at a time; its loop has, for
float32, no float64 arithmetic; and no multiply-add is contracted: there is none in the PTX, nor, in the machine code,
in the rules that neither divide nor take roots (those two are made of multiply-adds). Nor does the PTX flush or
approximate.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")
CONTRACT = ("-O3", "-std=c++20", "-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false")
FILES: dict[str, tuple[str, ...]] = {
    "step.cu": (),
    "norm.cu": (),
    "ride.cu": (),
    "measure.cu": (f'-DFS_EXTRA_RULES="{ROOT}/tests/extras/rules.h"',),
}
EXACT_RULES = ("Clip", "Sgd", "SgdMomentum")  # neither division nor root


def tool(name: str) -> str:
    packaged = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"
    found = shutil.which(name) or shutil.which(name, path=str(packaged))
    if not found:
        sys.exit(f'{name} is not there, expected it on the PATH or from pip install ".[nvcc]"')
    return found


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def functions(listing: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Each function of ``cuobjdump -sass``: its demangled name, and addresses with instructions."""
    for part in listing.split("Function : ")[1:]:
        name, _, body = part.partition("\n")
        code = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][^;]*);", body, re.MULTILINE)
        yield run("c++filt", name.strip()).strip(), [(int(at, 16), text.strip()) for at, text in code]


def loops(code: list[tuple[int, str]]) -> Iterator[list[str]]:
    """The instructions of each loop: from the target of a branch backwards to the branch."""
    for at, text in code:
        if jump := re.match(r"BRA\S*\s+(?:!?U?P\w+,\s*)?(?:`\(\S+\)|(0x[0-9a-f]+))", text):
            target = int(jump[1], 16) if jump[1] else at
            if target < at:
                yield [t for a, t in code if target <= a <= at]


def is_float64(text: str) -> bool:
    return bool(re.match(r"D(ADD|MUL|FMA|SETP|MNMX)|F2F\S*F64|MUFU\.\S*64", text))


def faults(name: str, code: list[tuple[int, str]]) -> Iterator[str]:
    """What is wrong with one kernel."""
    texts = [text for _, text in code]
    if any(re.match(r"(LDL|STL)\b", t) for t in texts):
        yield "uses local memory"
    if "step_kernel" not in name:
        return
    found = re.search(r"step_kernel<fusedstep::(\w+).*?, (float|double), (?:true|false|\(bool\)[01]), \d+>", name)
    rule, dtype = found.groups()  # type: ignore[union-attr]
    wide_load, wide_store = r"LDG\.\S*(128|256)", r"STG\.\S*(128|256)"
    inner = [loop for loop in loops(code) if any(re.match(wide_store, t) for t in loop)]
    if not inner:
        yield "has no loop with 16-byte stores"
        return
    loop = min(inner, key=len)
    loads, stores = (sum(bool(re.match(p, t)) for t in loop) for p in (wide_load, wide_store))
    unrolled = loads - stores  # all streams are loaded, all but the gradient stored
    if unrolled < 1 or stores % unrolled:
        yield f"has {loads} 16-byte loads and {stores} stores in its loop"
    if any(re.match(r"(LDG|STG|LD|ST)\.E(\.64|\.32|\s)", t) for t in loop):
        yield "loads or stores fewer than 16 bytes in its loop"
    if dtype == "float" and (wide := [t for t in loop if is_float64(t)]):
        yield f"computes in float64 in its loop: {wide[0]}"
    if rule in EXACT_RULES and (fused := [t for t in loop if re.match(r"[FD]FMA", t)]):
        yield f"contracts a multiply-add: {fused[0]}"


def check(arch: str, file: str, folder: Path) -> tuple[int, list[str]]:
    """Kernels seen, and what is wrong with them."""
    source, cubin, ptx = ROOT / "csrc" / "cuda" / file, folder / f"{file}.{arch}.cubin", folder / f"{file}.{arch}.ptx"
    for flag, out in (("-cubin", cubin), ("-ptx", ptx)):
        if flag == "-cubin" or arch == ARCHITECTURES[0]:
            run(tool("nvcc"), *CONTRACT, *FILES[file], f"-arch=sm_{arch}", flag, source, "-o", out)
    wrong = []
    if ptx.exists():
        text = ptx.read_text()
        wrong += [
            f"{file}: PTX contracts: {t}" for t in re.findall(r"^\s*((?:fma|mad)\.\S*f(?:32|64).*)", text, re.MULTILINE)
        ]
        inexact = re.findall(r"^\s*(\S+\.(?:ftz|approx)\.f\S*.*)", text, re.MULTILINE)
        wrong += [f"{file}: PTX is not exact: {t}" for t in inexact]
        if not re.search(r"^\s*mul\.rn\.f32", text, re.MULTILINE) and file == "step.cu":
            wrong.append(f"{file}: no multiplication in the PTX: what has been read?")
    seen = 0
    for name, code in functions(run(tool("cuobjdump"), "-sass", cubin)):
        if re.search(r"(step|norm|measure|ride|stats)_kernel", name):
            seen += 1
            wrong += [f"sm_{arch}: {name} {fault}" for fault in faults(name, code)]
    return seen, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="instead of all; may be repeated")
    arguments = parser.parse_args()
    # The disassembler is found beside cuobjdump.
    os.environ["PATH"] = os.pathsep.join([str(Path(tool("nvdisasm")).parent), os.environ["PATH"]])
    jobs = [(arch, file) for arch in arguments.arch or ARCHITECTURES for file in FILES]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: check(*job, Path(folder)), jobs))
    wrong = [w for _, found in results for w in found]
    for (arch, file), (seen, _) in zip(jobs, results, strict=True):
        print(f"sm_{arch} {file}: {seen} kernels")
        if seen == 0:
            wrong.append(f"sm_{arch} {file}: no kernel found")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
