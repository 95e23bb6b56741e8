"""How pictures of results look: colours, titles, and bars in groups that fill one column or two."""

from __future__ import annotations

import math
import re
import textwrap
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness import results
from harness.results import OURS

WIDTH = 9.0  # inches; 200 dots each: twice the 900 pixels of a README
LINE = 0.152  # inches per bar
GREY, DARK = "#777777", "#333333"
# Hues of Okabe and Ito, which differ for colour-blind eyes; within a family lightness differs, and markers.
STYLES = {
    OURS: ("#0072B2", "o"),
    "torch fused": ("#D55E00", "s"),
    "torch foreach": ("#E69F00", "D"),
    "torch default": ("#F7CF8D", "v"),
    "torch compiled": ("#7A3600", "^"),
    "numpy": ("#999999", "P"),
    "bitsandbytes 32-bit": ("#00604A", "<"),
    "bitsandbytes 8-bit": ("#2FB890", ">"),
    "torchao 8-bit": ("#8C3C69", "p"),
    "torchao 4-bit": ("#CC79A7", "h"),
    "torchao fp8": ("#EBC3DA", "H"),
    "DeepSpeed CPUAdam": ("#56B4E9", "X"),
    "optimi": ("#D9CC1F", "*"),
    "apex": ("#000000", "d"),
    "flashoptim": ("#5E4FA2", "8"),
}
THICK, THIN = 0.78, 0.3  # bars, of the height of a line
OTHERS = ("#4D4D4D", "1"), ("#8B7500", "2"), ("#6A8CAF", "3"), ("#B07AA1", "4"), ("#5C8A3A", "+"), ("#A14D4D", "x")
RC = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#AAAAAA",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "fusedstep",  # else the names inside an SVG are random
}


def style(peer: str) -> tuple[str, str]:
    """Colour and marker: the peer's own, or for a name not known one that the name alone decides."""
    name = peer.split(" + ")[0]
    return STYLES.get(name) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


class Bar(NamedTuple):
    name: str
    parts: list[tuple[float, float, str, float]]  # from, to, colour, height
    text: str
    error: tuple[float, float] | None = None


class Group(NamedTuple):
    title: str
    note: str
    bars: list[Bar]
    limit: float | None = None
    band: tuple[float, float] | None = None

    @property
    def first(self) -> float:
        """Where its first bar is, below its title and note."""
        return 1.65 + 0.85 * len(wrap_note(self.note))

    @property
    def lines(self) -> float:
        return self.first + len(self.bars) + 0.3


def wrap_note(note: str) -> list[str]:
    return textwrap.wrap(note, 78)


def canvas(result: dict[str, Any], title: str, shown: str, body: float) -> Figure:
    """A figure of which ``body`` inches are left below title, explanation, machine and versions."""
    machine, versions = results.provenance(result)
    kept = re.sub(r"(?<=[^,;]) ", "\u00a0", f"{machine}; {versions}")  # broken between names only
    lines = [line for text in (shown, kept) for line in textwrap.wrap(text, 152)]
    head = 0.42 + 0.155 * len(lines)
    figure = Figure(figsize=(WIDTH, body + head), dpi=200, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, body / (body + head)), w_pad=0.06, h_pad=0.06)
    figure.text(0.09 / WIDTH, 1 - 0.1 / (body + head), title, va="top", size=11.5, weight="bold")
    for number, line in enumerate(lines):
        figure.text(
            0.09 / WIDTH, 1 - (0.33 + 0.155 * number) / (body + head), line, va="top", size=7.5, color="#555555"
        )
    return figure


def ticks(low: float, high: float, steps: Sequence[float] = (1, 2, 5)) -> FixedLocator:
    values = [step * 10.0**power for power in range(-12, 16) for step in steps]
    return FixedLocator([value for value in values if low <= value <= high])


def logarithmic(axis: Any, low: float, high: float, form: Callable[[float], str] = "{:g}".format) -> None:
    axis.set_major_locator(ticks(low, high, (1, 2, 5) if high / low < 500 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))


def draw_group(axes: Axes, group: Group, top: float, indent: float, origin: float) -> None:
    """Title, note and bars of a group, downwards from ``top``."""
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    place["bbox"] = {"color": "white", "pad": 0.6}  # else the grid runs through the text
    axes.annotate(group.title, (0, top + 0.7), (-indent, 0), size=8, weight="bold", color=DARK, **place)
    for number, line in enumerate(wrap_note(group.note)):
        axes.annotate(line, (0, top + 1.6 + 0.85 * number), (-indent, 0), size=6.5, color=GREY, **place)
    first = top + group.first
    last = first + len(group.bars) - 1
    if group.band:
        axes.fill_betweenx([first - 0.5, last + 0.5], *group.band, color=STYLES[OURS][0], alpha=0.2, linewidth=0)
        axes.plot([1, 1], [first - 0.5, last + 0.5], color=STYLES[OURS][0], linewidth=1.3)
    for y, bar in enumerate(group.bars):
        for low, high, colour, height in bar.parts:
            axes.barh(first + y, high - low, height, low, color=colour, linewidth=0)
        end = max([origin, *(part[1] for part in bar.parts)])
        if bar.error:
            axes.plot(bar.error, [first + y] * 2, color=DARK, linewidth=0.9, solid_capstyle="butt")
            end = max(end, bar.error[1])
        axes.annotate(bar.text, (end, first + y), (3, -0.3), textcoords="offset points", va="center", size=6.5)
    if group.limit is not None:
        axes.plot([group.limit] * 2, [first - 0.5, last + 0.5], color=DARK, linewidth=0.8, linestyle=(0, (2, 1.5)))
        axes.plot(group.limit, (first + last) / 2, "D", color=DARK, markersize=3.6, markeredgecolor="white")


def draw_groups(figure: Figure, groups: list[Group], xlabel: str, log: bool, low: float, high: float) -> None:
    """One group below the other, in two columns where they are many."""
    names = [bar.name for group in groups for bar in group.bars]
    indent = 7 * 0.54 * max(map(len, names), default=0) + 3
    columns = two_columns(groups)
    grid = figure.subplots(1, len(columns), sharex=True, squeeze=False)[0]
    for axes, column in zip(grid, columns, strict=True):
        axes.set(xscale="log" if log else "linear", xlim=(low, high), xlabel=xlabel)
        top, marks = 0.0, []
        for group in column:
            draw_group(axes, group, top, indent, 1 if log else 0)
            marks += [(top + group.first + number, bar.name) for number, bar in enumerate(group.bars)]
            top += group.lines
        axes.set_yticks([y for y, _ in marks], [name for _, name in marks], size=7)
        axes.set_ylim(max(sum(group.lines for group in column) for column in columns), 0)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if log:
            logarithmic(axes.xaxis, low, high)


def two_columns(groups: list[Group]) -> list[list[Group]]:
    """The groups in one column, or cut where both columns are nearest to equal."""
    if sum(group.lines for group in groups) < 34 or len(groups) < 2:
        return [groups]
    cuts = [[groups[:cut], groups[cut:]] for cut in range(1, len(groups))]
    return min(cuts, key=lambda columns: max(sum(group.lines for group in column) for column in columns))


def inches(groups: list[Group]) -> float:
    return 0.75 + LINE * max(sum(group.lines for group in column) for column in two_columns(groups))


def draw_roofs(axes: Axes, limits: dict[str, float], left: float, right: float, low: float, high: float) -> None:
    """The speed of the memory, and that of arithmetic where it was measured: then the picture reaches up to it."""
    speed, flops = limits["bytes_per_second"] / 1e9, limits.get("flops_per_second", math.inf) / 1e9
    knee = min(flops / speed, right)
    if flops < math.inf:
        knee = max(flops / speed, left)
        right = max(right, 2.5 * knee)
        axes.plot([knee, right], [flops, flops], color=DARK)
        text = f"arithmetic, {flops:,.0f} GFLOP/s"
        axes.annotate(text, (right, flops), (-4, 4), textcoords="offset points", ha="right")
    axes.plot([left, knee], [left * speed, knee * speed], color=DARK)
    middle = (left * knee) ** 0.5
    text = f"memory, {results.significant(speed)} GB/s"
    axes.annotate(text, (middle, middle * speed), (-6, 6), textcoords="offset points", ha="right")
    high = 1.8 * max(high, knee * speed)
    foot = 0.38  # of the height, for the names of rules
    bottom = (0.75 * low / high**foot) ** (1 / (1 - foot))
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, high))
    axes.set(xlabel="floating-point operations per byte moved", ylabel="GFLOP/s reached")
    logarithmic(axes.xaxis, left, right)
    logarithmic(axes.yaxis, *axes.get_ylim())


def name_rules(axes: Axes, found: list[tuple[float, str]]) -> None:
    """The rules at the foot of their points; those that are too near to write apart are written together."""
    left, right = axes.get_xlim()
    near = (right / left) ** 0.017
    names: dict[float, list[str]] = {}
    for x, rule in found:
        names.setdefault(next((known for known in names if x < known * near), x), []).append(rule)
    for x, rules in names.items():
        axes.axvline(x, color="#EEEEEE", linewidth=0.8, zorder=0)
        text = textwrap.shorten(", ".join(dict.fromkeys(rules)), 28, placeholder=" …")
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "right", "va": "bottom"}
        axes.annotate(text, (x, 0), (-1, 3), rotation=90, size=6.5, color=GREY, **place)
