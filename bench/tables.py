"""Tables of documents, written from the results in bench/results/, so that no figure is copied by hand.

Between such lines a table is written anew, and below it the machine, the versions and the command:

  <!-- table: zen4-2core-0.2.json kind=speedup rows=rule,shapes,clip where=cache:warm,device:cpu -->
  <!-- end -->

kind=speedup    time of fusedstep, its share of the limit's speed, and for each peer: time of the peer / of fusedstep
kind=bandwidth  time, GB/s, share of the limit's speed, host overhead
kind=memory     bytes per parameter of each peer: state + the most that a step needs beside it
kind=training   time of optimizer and clipping in a training step, and their share
kind=incache    nanoseconds per 1,000 elements of each kernel on each target, float32 in L1, of bench/incache.py
kind=losses     every peer and case where fusedstep is slower, by more than the noise; in sweeps too

rows=   what of a case its row says: rule, shapes, dtype, clip, device, threads, target, cache
where=  which cases, KEY:VALUE|VALUE,KEY:VALUE; without a sweep: in it those of none (in losses: all)
peers=  which columns: peers="torch fused|torch foreach"; in bandwidth and losses which rows

Examples:
  python bench/tables.py README.md bench/README.md
  python bench/tables.py --check README.md bench/README.md   # changes nothing; exit status 1 if a table is out of step
"""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from harness import results
from harness.results import (
    CASE_KEYS,
    EXTRAS,
    LIMIT,
    OURS,
    Entry,
    duration,
    label,
    median_of,
    ratio,
    row_of,
    significant,
)

START, END = "<!-- table:", "<!-- end -->"
Table = list[list[str]]  # the first row: the heads of the columns


class Request(NamedTuple):
    """What a marker asks for."""

    file: str
    kind: str
    rows: list[str]
    where: dict[str, list[str]]
    peers: list[str]


def read_marker(line: str) -> Request:
    if not line.endswith("-->"):
        raise ValueError(f"the marker has to end in --> on its line: {line}")
    file, *options = shlex.split(line.removeprefix(START).removesuffix("-->")) or [""]
    pairs = dict(option.partition("=")[::2] for option in options)
    if unknown := [key for key in pairs if key not in ("kind", "rows", "where", "peers")]:
        raise ValueError(f"unknown {', '.join(unknown)}, expected kind=, rows=, where=, peers=")
    if (kind := pairs.get("kind", "")) not in KINDS:
        raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(KINDS)}")
    rows = list(filter(None, pairs.get("rows", "").split(",")))
    if unknown := [key for key in rows if key not in CASE_KEYS]:
        raise ValueError(f"unknown {', '.join(unknown)} in rows=, expected {', '.join(CASE_KEYS)}")
    peers = list(filter(None, pairs.get("peers", "").split("|")))
    return Request(file, kind, rows, results.read_filter(pairs.get("where", "")), peers)


def named(entries: list[Entry], rows: list[str]) -> list[tuple[str, Entry]]:
    """Each case under what its row says; ValueError where two would read alike."""
    out: dict[str, Entry] = {}
    extras = results.varying(entries)
    for entry in entries:
        case = entry["case"]
        clip = " + clip" if "clip" in rows and case["clip"] else ""
        texts = [EXTRAS.get(k, "{}").format(case[k]) for k in rows if k != "clip" and case.get(k) is not None]
        name = ", ".join(texts) + clip if rows else label(case, *extras)
        if name in out:
            other = out[name]["case"]
            differ = [key for key in CASE_KEYS if case.get(key) != other.get(key)]
            raise ValueError(
                f"two cases are {name!r}; they differ in {', '.join(differ) or 'nothing'}: rows= or where="
            )
        out[name] = entry
    return list(out.items())


def peers_of(entries: list[Entry], request: Request) -> list[str]:
    """Those that are asked for, or all that have a time somewhere but fusedstep and the limit."""
    names = dict.fromkeys(row["peer"] for entry in entries for row in entry["rows"] if "failed" not in row)
    if absent := [p for p in request.peers if p not in {row["peer"] for e in entries for row in e["rows"]}]:
        raise ValueError(f"no peer {absent[0]!r} in these cases, expected of {', '.join(names)}")
    return request.peers or [name for name in names if name not in (OURS, LIMIT)]


def chosen(result: dict[str, Any], request: Request) -> list[Entry]:
    wanted = (
        request.where if "sweep" in request.where or request.kind == "losses" else {**request.where, "sweep": ["null"]}
    )
    entries = results.select(result["cases"], wanted)
    if not entries:
        raise ValueError("no case passes where=")
    return entries


def share(entry: Entry, row: dict[str, Any] | None) -> str:
    value = None if row is None else results.limit_share(entry, row)
    return "-" if value is None else f"{value:.0%}"


def speedup(result: dict[str, Any], request: Request) -> Table:
    entries = chosen(result, request)
    peers = peers_of(entries, request)
    table = [["case", "fusedstep", "of limit", *peers]]
    for name, entry in named(entries, request.rows):
        ours = row_of(entry, OURS)
        ratios = [ratio(entry, peer) for peer in peers]
        cells = ["-" if value is None else significant(value) for value in ratios]
        table.append([name, "-" if ours is None else duration(median_of(ours)), share(entry, ours), *cells])
    return table


def bandwidth(result: dict[str, Any], request: Request) -> Table:
    entries = chosen(result, request)
    peers = peers_of(entries, request) if request.peers else [OURS]
    table = [["case", *(["peer"] if request.peers else []), "time", "GB/s", "of limit", "host"]]
    for name, entry in named(entries, request.rows):
        for peer in peers:
            cells, row = ["-"] * 4, row_of(entry, peer)
            if row is not None:
                moved = (row.get("bytes_per_element") or entry["bytes_per_element"]) * entry["elements"]
                host = duration(median_of(row, "host_seconds")) if row.get("host_seconds") else "-"
                cells = [duration(median_of(row)), significant(moved / median_of(row) / 1e9), share(entry, row), host]
            table.append([name, *([peer] if request.peers else []), *cells])
    return table


def memory(result: dict[str, Any], request: Request) -> Table:
    entries = chosen(result, request)
    peers = peers_of(entries, request)
    if not request.peers:
        peers.insert(0, OURS)
    table = [["case", *peers]]
    for name, entry in named(entries, request.rows):
        cells = []
        for row in (row_of(entry, peer) for peer in peers):
            state = None if row is None else row.get("state_bytes_per_element")
            peak = None if row is None else row.get("peak_bytes")
            passing = "?" if peak is None else significant(peak / entry["elements"])
            cells.append("-" if state is None else f"{significant(state)} + {passing}")
        table.append([name, *cells])
    return table


def training(result: dict[str, Any], request: Request) -> Table:
    if request.rows or request.where:
        raise ValueError("rows= and where= say nothing of training")
    measured = {row["peer"] for entry in result.get("training", []) for row in entry["rows"]}
    if absent := [peer for peer in request.peers if peer not in measured]:
        raise ValueError(f"no peer {absent[0]!r} in training, expected of {', '.join(sorted(measured))}")
    table = [["model", "peer", "optimizer and clipping", "step", "share"]]
    for entry in result.get("training", []):
        name = f"{entry['model']}, {entry['optimizer']}, {entry['parameters']:,d} parameters, {entry['device']}"
        for row in entry["rows"]:
            if request.peers and row["peer"] not in (OURS, *request.peers):
                continue
            cells = ["-"] * 3
            if "failed" not in row:
                update, step = median_of(row, "update_seconds"), median_of(row, "step_seconds")
                cells = [duration(update), duration(step), f"{update / step:.1%}"]
            table.append([name, row["peer"], *cells])
    if len(table) == 1:
        raise ValueError("no training in this result")
    return table


def losses(result: dict[str, Any], request: Request) -> Table:
    entries = chosen(result, request)
    peers, keys = peers_of(entries, request), results.varying(entries)
    table = [["case", "peer", "of", "time / time of fusedstep"]]
    for entry in entries:
        name = label(entry["case"], *keys)
        for peer in peers:
            table += [[name, peer, what, significant(value)] for what, value in results.faster(entry, peer).items()]
    return table


def incache(result: dict[str, Any], request: Request) -> Table:
    rows = [r for r in result["results"] if (r["cache"], r["dtype"]) == ("L1", "float32")]
    targets = list(rows[0]["samples"])
    heads = [t.replace("plain_", "compiler, ") for t in targets]
    table = [["kernel", *heads]]
    return table + [[r["name"], *(significant(median(r["samples"][t])) for t in targets)] for r in rows]


KINDS: dict[str, Callable[[dict[str, Any], Request], Table]] = {
    f.__name__: f for f in (speedup, bandwidth, memory, training, losses, incache)
}


def written(request: Request, folder: Path) -> list[str]:
    """The lines of a table, and the one below it."""
    plain = request.kind == "incache"  # a file of its own kind
    try:
        result = json.loads((folder / request.file).read_text()) if plain else results.load(folder / request.file)
        table = KINDS[request.kind](result, request)
    except (KeyError, OSError) as error:
        raise ValueError(f"{request.file}: not a result for kind={request.kind}: {error}") from error
    words = sum(head in ("case", "model", "kernel", "peer", "of") for head in table[0])  # columns of text: to the left
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|" + "---|" * words + "---:|" * (len(table[0]) - words))
    if len(table) == 1:
        lines = ["None."]
    if request.kind == "training":  # has origins of its own
        result = {**result, **{k: v for k, v in result["training"][-1].items() if k in ("command", "versions")}}
    origin = [result["processor"]] if plain else [text for text in results.provenance(result) if text]
    return [*lines, "", "; ".join([*origin, f"`{result['command']}`", f"samples in `{request.file}`."])]


def rewritten(text: str, document: str, folder: Path) -> str:
    """A document with its tables made anew; what stands in fenced code is left alone."""
    out: list[str] = []
    fence, start = False, 0
    for number, line in enumerate(text.split("\n"), 1):
        fence ^= line.startswith("```")
        try:
            if not fence and line.startswith(START):
                if start:
                    raise ValueError(f"the table of line {start} has no {END}")
                start = number
                out += [line, *written(read_marker(line.rstrip()), folder)]
            elif not fence and line.rstrip() == END:
                if not start:
                    raise ValueError(f"{END} without a table")
                start = 0
        except ValueError as error:
            raise ValueError(f"{document}:{number}: {error}") from error
        if not start:
            out.append(line)
    if start:
        raise ValueError(f"{document}:{start}: no {END}")
    return "\n".join(out)


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("document", type=Path, nargs="+", help="Markdown to write tables into")
    parser.add_argument("--check", action="store_true", help="say what would change, and change nothing")
    default = Path(__file__).parent / "results"
    parser.add_argument("--results", type=Path, default=default, help="default: bench/results", metavar="FOLDER")
    return parser.parse_args()


def main() -> int:
    args = parse()
    try:
        old = {path: path.read_bytes().decode() for path in args.document}  # line ends as they are
        new = {path: rewritten(text, str(path), args.results) for path, text in old.items()}
        changed = [path for path in old if old[path] != new[path]]
        for path in changed:
            if args.check:
                before, after = (text.splitlines() for text in (old[path], new[path]))
                print(*difflib.unified_diff(before, after, str(path), f"{path}, from results", lineterm=""), sep="\n")
            else:
                path.write_bytes(new[path].encode())
                print(f"{path}: written")
    except (ValueError, OSError) as error:
        print(f"tables.py: error: {error}", file=sys.stderr)
        return 2
    if args.check and changed:
        print(f"out of step: {', '.join(map(str, changed))}", file=sys.stderr)
    return int(args.check and bool(changed))


if __name__ == "__main__":
    raise SystemExit(main())
