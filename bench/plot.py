"""Two pictures of a result: how much faster fusedstep is than each peer, and what share of the limit each reaches.

python bench/plot.py results/mine.json                      mine-speedup.png and mine-limit.png beside it
python bench/plot.py results/mine.json --out pictures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from compare import found
from harness.results import OURS, Entry, label, limit_share, load, peers_of, provenance, ratio, varying

MARKERS = "osD^vP*X<>hp"
COLOURS = [f"tab:{c}" for c in ("blue", "orange", "green", "red", "purple", "brown", "pink", "gray", "olive", "cyan")]
CAPTIONS = {
    "speedup": "time of the peer / time of fusedstep: to the right of the line fusedstep is faster",
    "limit": "share of the speed of a loop that only moves the same bytes",
}


def dots(entries: list[Entry], peers: list[str], value: Callable[[Entry, str], float | None], caption: str) -> Figure:
    """A line for each case, on it a mark for each peer."""
    figure = Figure(figsize=(10, 1.8 + 0.32 * len(entries)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for peer, marker, colour in zip(peers, cycle(MARKERS), cycle(COLOURS)):
        points = [(v, k) for k, entry in enumerate(entries) if (v := value(entry, peer)) is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=colour, label=peer, zorder=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    extras = varying(entries)
    axes.set_yticks(range(len(entries)), [label(entry["case"], *extras) for entry in entries])
    axes.invert_yaxis()
    axes.grid(alpha=0.4)
    axes.set_xlabel(caption)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def picture(result: dict[str, Any], name: str) -> Figure:
    """One of the two; ValueError if the result has no times for it."""
    value, first = {"speedup": (ratio, []), "limit": (limit_share, [OURS])}[name]
    peers = [*first, *peers_of(result["cases"])]
    entries = [entry for entry in result["cases"] if any(value(entry, peer) is not None for peer in peers)]
    if not entries:
        raise ValueError(f"no times for the picture {name!r}")
    return dots(entries, peers, value, f"{CAPTIONS[name]}\n{provenance(result).split(';')[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: that of the result")
    args = parser.parse_args()
    folder = args.out or found(args.result).parent
    try:
        result = load(found(args.result))
        drawn = {name: picture(result, name) for name in CAPTIONS}
    except ValueError as error:
        print(f"plot.py: error: {error}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        path = folder / f"{args.result.stem}-{name}.png"
        figure.savefig(path, metadata={"Software": None})
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
