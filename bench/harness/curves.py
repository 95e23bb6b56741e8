"""Curves of what a sweep varies, one per peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness import results
from harness.drawing import DARK, GREY, canvas, logarithmic, style
from harness.results import LIMIT, OURS, Entry, label, median_of, quartiles

Figures = dict[str, Figure]  # by what is added to the name of the file


def by_device(entries: list[Entry]) -> dict[str, list[Entry]]:
    """The entries of each device, under what its pictures are called."""
    devices = list(dict.fromkeys(entry["case"]["device"] for entry in entries))
    return {"-" + d if len(devices) > 1 else "": [e for e in entries if e["case"]["device"] == d] for d in devices}


Point = tuple[float, float, float, float]  # x, the median's y, and those of the quartiles
Curves = dict[str, list[Point]]  # of each peer


def curves(entries: list[Entry], x: Callable[[Entry], float], y: Callable[[Entry, float], float]) -> Curves:
    out: Curves = {}
    for entry in sorted(entries, key=x):
        for row in entry["rows"]:
            if "failed" not in row:
                values = (y(entry, seconds) for seconds in (median_of(row), *quartiles(row)))
                out.setdefault(row["peer"], []).append((x(entry), *values))
    return out


def relative(series: Curves) -> Curves:
    """Speed-up over one thread, from times; a peer without a time on one thread has none."""
    return {
        peer: [(x, base / y, base / low, base / high) for x, y, low, high in points]
        for peer, points in series.items()
        for base in [y for x, y, *_ in points if x == 1]
        if len(points) > 1
    }


def draw_curves(axes: Axes, series: Curves) -> dict[str, Any]:
    handles = {}
    order = [*(peer for peer in series if peer not in (OURS, LIMIT)), *(p for p in (LIMIT, OURS) if p in series)]
    for peer in order:  # fusedstep last: on top
        colour, marker = (DARK, "") if peer == LIMIT else style(peer)
        x, y, low, high = zip(*series[peer], strict=True)
        line, width = ("--", 1.0) if peer == LIMIT else ("-", 2.0 if peer == OURS else 1.1)
        handles[peer] = axes.plot(x, y, line, marker=marker, color=colour, linewidth=width, markersize=3.6, label=peer)[
            0
        ]
        if peer != LIMIT:
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    return handles


def sweep(
    result: dict[str, Any], name: str, title: str, shown: str, xlabel: str, ylabel: str,
    x: Callable[[Entry], float], y: Callable[[Entry, float], float],
) -> Figures:  # fmt: skip
    """Curves over what the sweep varies; axes for each set of cases that differ in nothing else."""
    figures = {}
    for suffix, entries in by_device([e for e in result["cases"] if e["sweep"] == name]).items():
        extras = [key for key in results.varying(entries) if key != name]
        facets: dict[str, list[Entry]] = {}
        for entry in entries:
            text, shapes = label(entry["case"], *extras), f", {entry['case']['shapes']},"
            facets.setdefault(text if name == "threads" else text.replace(shapes, ",", 1), []).append(entry)
        drawn = {text: curves(part, x, y) for text, part in facets.items()}
        if name == "threads":
            drawn = {text: relative(series) for text, series in drawn.items()}
        drawn = {text: series for text, series in drawn.items() if set(series) - {LIMIT}}
        if not drawn:
            continue
        xs = sorted({point[0] for series in drawn.values() for points in series.values() for point in points})
        scale = "linear" if name == "threads" and xs[-1] <= 8 else "log"
        columns = min(2, len(drawn))
        rows = -(-len(drawn) // columns)
        figure = canvas(result, title, shown, 0.7 + 2.6 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        handles: dict[str, Any] = {}
        for axes, (text, series) in zip(grid.flat, drawn.items(), strict=False):
            handles |= draw_curves(axes, series)
            axes.set(title=text, xscale=scale, yscale=scale)
            axes.xaxis.set_tick_params(labelbottom=True)
            if name == "threads":
                handles["ideal"] = axes.plot(xs, xs, ":", color=GREY, label="ideal")[0]
        for axes in grid.flat[len(drawn) :]:
            axes.set_visible(False)
        for axes in grid.flat[: len(drawn)]:  # after all have drawn: they share their limits
            if scale == "log":
                logarithmic(axes.xaxis, *axes.get_xlim(), si if name == "size" else "{:g}".format)
                logarithmic(axes.yaxis, *axes.get_ylim())
            if name == "threads":
                axes.set_xticks(xs, [f"{x:g}" for x in xs])
            axes.set_xlabel(xlabel)
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        peers = sorted(handles, key=lambda peer: (peer in ("ideal", LIMIT), peer != OURS))
        figure.legend(handles=[handles[p] for p in peers], loc="outside lower center", ncols=min(6, len(peers)))
        figures[suffix] = figure
    return figures


def si(value: float) -> str:
    unit, scale = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if value >= s), ("", 1))
    return f"{value / scale:g}{unit}"
