"""The results page, and the figures of README.md: written from the results in bench/results/, none copied by hand.

    python bench/tables.py            write bench/RESULTS.md, and in README.md what stands between the markers
    python bench/tables.py --check    change nothing; exit status 1 if a page is out of step with the results

What the page shows is listed here, in SECTIONS: a new result is one more entry.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

from harness.report import table_of
from harness.results import (
    OURS,
    Entry,
    besides,
    duration,
    formats,
    limit_share,
    load,
    median_of,
    provenance,
    ratio,
    row_of,
    significant,
    varying,
    worded,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "bench/results", ROOT / "bench/RESULTS.md"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
README_FILE, README_PEER = "xeon-2core-0.1.0.json", "torch fused"


class Section(NamedTuple):
    """A result on the page."""

    title: str
    file: str
    note: str


SECTIONS = (
    Section(
        "Two cores",
        "xeon-2core-0.1.0.json",
        "The optimizers of most models, on small tensors and on large ones. `numpy` was a loop written by hand then.",
    ),
    Section(
        "Two cores, by number of tensors, size and threads",
        "xeon-2core-sweeps-0.1.0.json",
        "How the time of AdamW grows. `numpy` was a loop written by hand then.",
    ),
    Section(
        "Two cores, two processes",
        "epyc-2core-distributed-0.1.0.json",
        "AdamW on DTensors over two ranks with a thread each, by gloo. `300x4` has two elements in each shard: the "
        "host's part. torch's `clip_grad_norm_` takes one collective too.",
    ),
    Section(
        "Two cores, in 16 bits",
        "epyc-2core-16bit-0.1.0.json",
        "`fusedstep float32` is the same step in float32. Both cores are threads of one: what memory does not bind is "
        "not twice as fast with two. torch's fused SGD does not update bfloat16 parameters (torch 2.13), and peers "
        "whose second moments are float16 are refused for their answer.",
    ),
    Section(
        "Two cores, the family",
        "epyc-2core-family-0.1.0.json",
        "Rules that torch has no fused kernel of. pytorch_optimizer by `torch._foreach` functions, its default, and as "
        "a loop. The machine is that of the figures in 16 bits; its memory changed its speed between cases, from 96 "
        "to 66 GB/s and back.",
    ),
    Section(
        "Two cores, what rides along",
        "epyc-2core-rides-0.1.0.json",
        "AdamW. `without` is the step alone and `passes` are torch's alone: 1 less `without` is what the ride costs.",
    ),
    Section(
        "H100",
        "h100-0.1.0.json",
        "A quick run: 300 tensors have three to eight samples. Times are of the device; `host` is the time until the "
        "call returns. bitsandbytes, and optimi with many tensors, wait for the device within a step, which the "
        "benchmark did not notice then: their times are left out.",
    ),
    Section("H200, every rule", "h200-0.1.0.json", "Beside torch, and as replays of a CUDA graph. Clipping is off."),
    Section(
        "H200, in 16 bits",
        "h200-16bit-0.1.0.json",
        "AdamW on a billion elements. torch keeps state in the parameter's dtype: beside a bfloat16 parameter with "
        "float32 state it moves 14 bytes per element, and fusedstep 22. Measured before the keys of random numbers and "
        "the addresses of a chunk were kept in shared memory.",
    ),
)
HEAD = """# Results

<!-- Written by bench/tables.py from bench/results/. -->

[README.md](README.md) says how these were measured. Ratios are the time of a peer divided by that of fusedstep: above
1 fusedstep is faster. A ratio in bold is a peer that is faster by more than the noise. `±` is twice the standard error
of the median, `B/elem` the bytes per element that a step cannot avoid, `of limit` compares with a loop that only moves
as many. `host` is a step of tensors with two elements, `core` the part of it that is spent in the compiled core; older
results have no `core`. On a GPU the ratio of `host` follows in brackets. Of a time with fewer than three samples no
error is known, and nothing is in bold.
"""


def markdown(head: list[str], *rows: list[str]) -> str:
    """A table, its first column to the left."""
    lines = [f"| {' | '.join(line)} |\n" for line in (head, *rows)]
    return lines[0] + "|---|" + "---:|" * (len(head) - 1) + "\n" + "".join(lines[1:])


def named(entries: list[Entry]) -> dict[str, Entry]:
    """By what tells them apart, each once: sweeps of older results had cases in common."""
    extras = varying(entries)
    cases = [{**e["case"], "dtype": formats(e["case"])} for e in entries]
    keys = [k for k in ("rule", "shapes", "dtype") if len({case[k] for case in cases}) > 1] or ["rule"]
    found: dict[str, Entry] = {}
    for entry, case in zip(entries, cases, strict=True):
        texts = [case[k] for k in keys] + [worded(k, case[k]) for k in extras if case.get(k) is not None]
        found.setdefault(", ".join(texts) + besides(case), entry)
    return found


def section(what: Section, result: dict[str, Any]) -> str:
    cases = named(result["cases"])
    text = markdown(*table_of(list(cases.values()), list(cases), "**{}**"))
    origin = f"{provenance(result)}; samples in [results/{what.file}](results/{what.file})."
    return f"\n## {what.title}\n\n{what.note}\n\n{text}\n{origin}\n"


def page(folder: Path = RESULTS, sections: tuple[Section, ...] = SECTIONS) -> str:
    return HEAD + "".join(section(what, load(folder / what.file)) for what in sections)


def figures(folder: Path = RESULTS) -> str:
    """The README's: AdamW that clips."""
    result = load(folder / README_FILE)
    rows = []
    for entry in result["cases"]:
        case, row = entry["case"], row_of(entry, OURS)
        if case["rule"] == "AdamW" and case["clip"] and case["shapes"] in ("300x1000", "32M") and row:
            share, times = limit_share(entry, OURS) or 0.0, ratio(entry, README_PEER) or 0.0
            rows.append([case["shapes"], duration(median_of(row)), f"{share:.0%}", significant(times)])
    versions, machine = result["versions"], result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores; fusedstep {versions['fusedstep']}, "
    where += f"torch {versions['torch']}, {versions['compiler']}; [samples](bench/results/{README_FILE}).\n"
    return markdown(["AdamW + clip", OURS, "of limit", README_PEER], *rows) + "\n" + where


def with_figures(readme: str, text: str) -> str:
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after:
        raise ValueError(f"README.md: expected {BEGIN.strip()} and {END.strip()}, once each")
    return before + begin + text + end + after


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--check", action="store_true", help="say what would change, and change nothing")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    try:
        new = {PAGE: page(), readme: with_figures(readme.read_text(), figures())}
    except (ValueError, OSError) as error:
        print(f"tables.py: error: {error}", file=sys.stderr)
        return 2
    changed = {path: text for path, text in new.items() if not path.exists() or path.read_text() != text}
    for path, text in changed.items():
        if args.check:
            print(f"out of step: {path.relative_to(ROOT)}; python bench/tables.py writes it", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"{path.relative_to(ROOT)}: written")
    return int(args.check and bool(changed))


if __name__ == "__main__":
    raise SystemExit(main())
