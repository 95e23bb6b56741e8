"""Pictures of results that bench/compare.py wrote: PNG and SVG of each, made again from the JSON alone.

  speedup   each peer's time by fusedstep's, and how far the memory limit is
  roofline  operations per second against operations per byte, under the roofs of the machine
  tensors   time of a step against the number of tensors
  size      time per element against the number of elements
  threads   speed-up over one thread
  memory    bytes of state, and at most allocated by a step, per parameter
  training  the share of optimizer and clipping in a training step

What a file holds no measurements for is left out. Where it has several devices, or more cases than fit, there is a
picture of each device or set of shapes, and its name says which.

Examples:
  python bench/plot.py bench/results/zen4-2core-0.2.json
  python bench/plot.py a.json b.json --out pictures --only speedup roofline
  python bench/plot.py a.json --where "cache:warm,shapes:32M|gpt2" --out pictures
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness import results
from harness.curves import Figures, by_device, sweep
from harness.drawing import (
    DARK,
    GREY,
    RC,
    THICK,
    THIN,
    Bar,
    Group,
    canvas,
    draw_groups,
    draw_roofs,
    inches,
    name_rules,
    style,
)
from harness.results import LIMIT, OURS, Entry, Row, duration, label, median_of, quartiles, significant

PAGE = 150  # bars and lines of text that one picture holds
SPLITS = ("device", "shapes", "dtype", "cache", "threads", "rule")  # what large pictures are split by, in this order


def timed(entry: Entry) -> list[Row]:
    """The rows that have times, but for the limit."""
    return [row for row in entry["rows"] if "failed" not in row and row["peer"] != LIMIT]


def plain(result: dict[str, Any]) -> list[Entry]:
    """The cases that belong to no sweep and that fusedstep has a time for."""
    return [e for e in result["cases"] if e["sweep"] is None and results.row_of(e, OURS)]


def pages(
    entries: list[Entry], groups_of: Callable[[list[Entry]], list[Group]], keys: tuple[str, ...] = SPLITS
) -> dict[str, list[Group]]:
    """The groups of each picture: split by device, and by more where they are too many for one."""
    groups = groups_of(entries)
    if not keys or (keys != SPLITS and sum(group.lines for group in groups) <= PAGE):
        return {"": groups}
    out: dict[str, list[Group]] = {}
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(str(entry["case"].get(keys[0])), []).append(entry)
    for value, part in parts.items():
        prefix = "-" + re.sub(r"[^A-Za-z0-9]+", "-", value) if len(parts) > 1 else ""
        out |= {prefix + suffix: page for suffix, page in pages(part, groups_of, keys[1:]).items()}
    return out


def time_groups(entries: list[Entry]) -> list[Group]:
    extras = results.varying(entries)
    groups = []
    for entry in entries:
        ours = results.row_of(entry, OURS)
        assert ours is not None
        time, bars = median_of(ours), []
        for row in timed(entry):
            if row is not ours:
                low, high = (q / time for q in quartiles(row))
                value = median_of(row) / time
                bars.append(
                    Bar(row["peer"], [(0, value, style(row["peer"])[0], THICK)], significant(value), (low, high))
                )
        share = results.limit_share(entry, ours)
        failed = [row["peer"] for row in entry["rows"] if "failed" in row]
        note = f"fusedstep {duration(time)}" + (f", {share:.0%} of the limit" if share else "")
        note += f"; {', '.join(failed)}: none" if failed else ""
        low, high = (q / time for q in quartiles(ours))
        groups.append(Group(label(entry["case"], *extras), note, bars, share, (low, high)))
    return [group for group in groups if group.bars]


def speedup(result: dict[str, Any]) -> Figures:
    figures = {}
    for suffix, groups in pages(plain(result), time_groups).items():
        if not groups:
            continue
        values = [bar.parts[0][1] for group in groups for bar in group.bars]
        values += [1.0, *(group.limit for group in groups if group.limit)]
        low, log = min(values), max(values) / min(values) > 6
        shown = (
            "Length: the peer's time by fusedstep's, medians; above 1 fusedstep is faster. Dark lines: quartiles. "
            "Blue: fusedstep, and its quartiles."
        )
        figure = canvas(result, "Time of one optimizer step, fusedstep = 1", shown, inches(groups) + 0.2)
        left, right = (low / 1.25, max(values) * 2.2) if log else (0, max(values) * 1.22)
        if log:  # bars begin at 1: there is no 0
            groups = [
                group._replace(bars=[bar._replace(parts=[(1, *bar.parts[0][1:])]) for bar in group.bars])
                for group in groups
            ]
        draw_groups(figure, groups, "time / time of fusedstep" + (", logarithmic" if log else ""), log, left, right)
        handles = [Line2D([], [], color=style(OURS)[0], label="fusedstep")]
        if any(group.limit for group in groups):
            dashed = {"color": DARK, "linestyle": "--", "marker": "D", "markersize": 4, "linewidth": 0.8}
            handles.append(Line2D([], [], **dashed, label="the limit: as many bytes moved, nothing computed"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        figures[suffix] = figure
    return figures


MARKERS = "oDs^vP*Xphd<>"


def roofline(result: dict[str, Any]) -> Figures:
    figures = {}
    for suffix, entries in by_device(plain(result)).items():
        if not (limits := result["limits"].get(entries[0]["case"]["device"])):
            continue
        shapes = list(dict.fromkeys(entry["case"]["shapes"] for entry in entries))
        points: list[tuple[float, float, str, str, str]] = []  # x, y, peer, marker, rule
        for entry in entries:
            marker = MARKERS[shapes.index(entry["case"]["shapes"]) % len(MARKERS)]
            others = sorted((row for row in timed(entry) if row["peer"] != OURS), key=median_of)
            for row in (*others[:1], *(row for row in timed(entry) if row["peer"] == OURS)):
                x = entry["flops_per_element"] / (row.get("bytes_per_element") or entry["bytes_per_element"])
                y = entry["elements"] * entry["flops_per_element"] / median_of(row) / 1e9
                points.append((x, y, row["peer"], marker, entry["case"]["rule"]))
        shown = "One point per case: fusedstep filled, the fastest peer hollow."
        figure = canvas(result, "Roofline of the optimizer step", shown, 4.3)
        axes = figure.subplots()
        for x, y, peer, marker, _ in points:
            colour = style(peer)[0]
            axes.plot(x, y, marker, color=colour, markerfacecolor=colour if peer == OURS else "none", markersize=5.5)
        low, high = min(y for _, y, *_ in points), max(y for _, y, *_ in points)
        draw_roofs(axes, limits, min(x for x, *_ in points) / 1.4, max(x for x, *_ in points) * 1.4, low, high)
        name_rules(axes, sorted((x, rule) for x, *_, rule in points))
        peers = sorted({peer for _, _, peer, *_ in points}, key=lambda peer: (peer != OURS, peer))
        handles: list[Any] = [Patch(color=style(peer)[0], label=peer) for peer in peers]
        for marker, name in zip(MARKERS, shapes, strict=False):
            handles.append(Line2D([], [], color=GREY, marker=marker, linestyle="", label=name))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)))
        figures[suffix] = figure
    return figures


def tensors(result: dict[str, Any]) -> Figures:
    shown = "Medians; bands: quartiles. Dashed: the time to move as many bytes."
    return sweep(
        result, "tensors", "Time of one step against the number of tensors", shown, "tensors", "milliseconds",
        lambda entry: entry["tensors"], lambda _, seconds: 1e3 * seconds,
    )  # fmt: skip


def size(result: dict[str, Any]) -> Figures:
    shown = (
        "Time of a step by the number of elements. Medians; bands: quartiles. Dashed: the time to move as many bytes."
    )
    return sweep(
        result, "size", "Time per element against size", shown, "elements", "ns per element",
        lambda entry: entry["elements"], lambda entry, seconds: 1e9 * seconds / entry["elements"],
    )  # fmt: skip


def threads(result: dict[str, Any]) -> Figures:
    shown = "Time of one thread by time of so many, of the same peer. Dashed: the limit, as many bytes moved."
    return sweep(
        result, "threads", "Speed-up over one thread", shown, "threads", "speed-up",
        lambda entry: entry["case"]["threads"], lambda _, seconds: seconds,
    )  # fmt: skip


def largest(entries: list[Entry]) -> list[Entry]:
    """The largest case of each rule, dtype and clipping: in small ones a page or a block would count."""
    found: dict[tuple[Any, ...], Entry] = {}
    for entry in entries:
        key = tuple(entry["case"][key] for key in ("device", "rule", "dtype", "clip"))
        found[key] = max(found.get(key, entry), entry, key=lambda entry: entry["elements"])
    return list(found.values())


def memory_groups(entries: list[Entry]) -> list[Group]:
    groups = []
    for entry in entries:
        bars = []
        for row in timed(entry):
            if (state := row.get("state_bytes_per_element")) is not None:
                peak, colour = row.get("peak_bytes"), style(row["peer"])[0]
                passing = (peak or 0) / entry["elements"]
                text = f"{significant(state)} + {'?' if peak is None else significant(passing)}"
                bars.append(Bar(row["peer"], [(0, state, colour, THICK), (state, state + passing, colour, THIN)], text))
        groups.append(Group(label(entry["case"]), "", bars))
    return [group for group in groups if group.bars]


def memory(result: dict[str, Any]) -> Figures:
    shown = "Thick: state that is kept. Thin: the most that one step needs beside it; ?: not measured."
    figures = {}
    for suffix, groups in pages(largest(plain(result)), memory_groups).items():
        if groups:
            figure = canvas(result, "Optimizer memory, bytes per parameter", shown, inches(groups))
            high = max(part[1] for group in groups for bar in group.bars for part in bar.parts)
            draw_groups(figure, groups, "bytes per parameter: state + peak of a step", False, 0, high * 1.25 or 1)
            figures[suffix] = figure
    return figures


def training(result: dict[str, Any]) -> Figures:
    groups = []
    for entry in result.get("training", []):
        rows = [row for row in entry["rows"] if "failed" not in row]
        if not rows:
            continue
        longest, bars = max(median_of(row, "step_seconds") for row in rows) / 100, []
        for row in rows:
            update, whole = median_of(row, "update_seconds"), median_of(row, "step_seconds")
            split, end = update / longest, whole / longest
            parts = [(0, split, style(row["peer"])[0], THICK), (split, end, "#D9D9D9", THICK)]
            bars.append(Bar(row["peer"], parts, f"{update / whole:.1%}: {duration(update)} of {duration(whole)}"))
        sizes = f"{entry['optimizer']}, {entry['parameters']:,d} parameters in {entry['tensors']} tensors"
        groups.append(Group(f"{entry['model']}, {entry['device']}", sizes, bars))
    if not groups:
        return {}
    shown = "Coloured: optimizer and clipping, with their share of the step; grey: all else. Medians."
    figure = canvas(result, "The optimizer's share of a training step", shown, inches(groups))
    draw_groups(figure, groups, "% of the longest step of the model", False, 0, 100)
    for axes in figure.axes:
        axes.set_xlim(0, 128)
        axes.set_xticks(range(0, 101, 20))
    return {"": figure}


PICTURES: dict[str, Callable[[dict[str, Any]], Figures]] = {
    f.__name__: f for f in (speedup, roofline, tensors, size, threads, memory, training)
}


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    parser.add_argument("result", type=Path, nargs="+", help="JSON of bench/compare.py", metavar="RESULT.json")
    parser.add_argument("--out", type=Path, help="default: where the JSON is", metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=PICTURES, help="these pictures, which then have to have data")
    parser.add_argument("--where", default="", help="cases to draw, as KEY:VALUE|VALUE,KEY:VALUE", metavar="FILTER")
    return parser.parse_args()


def write(args: argparse.Namespace) -> None:
    wanted, figures, skipped = results.read_filter(args.where), {}, []
    for path, result in [(path, results.load(path)) for path in args.result]:
        result["cases"] = results.select(result["cases"], wanted)
        for name in args.only or PICTURES:
            drawn = PICTURES[name](result)
            if not drawn and args.only:
                raise ValueError(f"{path}: holds nothing for the picture {name!r}")
            if not drawn:
                skipped.append(f"{path.name}: nothing for {name}, skipped")
            for suffix, figure in drawn.items():
                target = (args.out or path.parent) / f"{path.stem}-{name}{suffix}"
                if target in figures:
                    raise ValueError(f"{path}: {target} would be written twice")
                figures[target] = figure
    for path, figure in figures.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(f"{path}.png")
        figure.savefig(f"{path}.svg", metadata={"Date": None})
        print(f"{path}.png, .svg")
    print("".join(line + "\n" for line in skipped), end="")


def main() -> int:
    args = parse()
    try:
        with matplotlib.rc_context(RC):
            write(args)
    except (ValueError, OSError) as error:
        print(f"plot.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
