"""The result as tables in the terminal."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.results import (
    ERRORS,
    OURS,
    Entry,
    duration,
    error_of,
    host_ratio,
    is_faster,
    label,
    limit_share,
    median_of,
    peers_of,
    ratio,
    row_of,
    significant,
)

WHERE = ("device", "threads", "target", "ranks")
CAPTION = (
    "Peers: their time / that of fusedstep; on a GPU in brackets that of the host's part; w: waits for the device. "
    "±: two standard errors of the median. host: on the CPU the step with two elements per tensor, on a GPU until the "
    "call returns. core: the call into the compiled core alone, with two elements per tensor."
)


def show(result: dict[str, Any], console: Console) -> None:
    """Times and ratios, what failed, and where fusedstep loses."""
    groups: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
    for entry in result["cases"]:
        groups[tuple(entry["case"].get(k) for k in WHERE)].append(entry)
    for key, entries in groups.items():
        where = ", ".join(f"{k} {v}" for k, v in zip(WHERE, key, strict=True) if v is not None)
        console.print(_times(entries, where))
    load, cores = result["machine"].get("load"), result["machine"].get("cores")
    if load is not None and cores and load > 0.3 * cores:
        console.print(f"[red]Other programs were using the machine[/] (load {load} at the start): measure again")
    _failures(result, console)
    pairs = [(entry, peer) for entry in result["cases"] for peer in peers_of([entry]) if is_faster(entry, peer)]
    losses = [f"{label(entry['case'], *WHERE)}: {peer} {ratio(entry, peer):.2f}" for entry, peer in pairs]
    console.print(f"Where fusedstep is slower, beyond the noise: {'; '.join(losses) or 'nowhere'}", highlight=False)


def by_format(entry: Entry) -> str:
    """``28 float32``: bytes per element that a step cannot avoid, by the format of the arrays; step counts aside."""
    found = (row_of(entry, OURS) or {}).get("bytes_by_format") or entry.get("bytes_by_format") or {}
    texts = [f"{size:g} {name}" for name, size in found.items() if size > 0.1]
    return " + ".join(texts) or f"{entry['bytes_per_element']:g}"


def ours(entry: Entry) -> list[str]:
    """fusedstep's cells: time, its error, GB/s, share of the limit, the host's part, of that the core's; messages."""
    row = row_of(entry, OURS)
    if row is None:
        return ["-"] * 7
    seconds, share = median_of(row), limit_share(entry, OURS)
    moved = (row.get("bytes_per_element") or entry["bytes_per_element"]) * entry["elements"]
    parts = [duration(median_of(row, k)) if row.get(k) else "-" for k in ("host_seconds", "core_seconds")]
    limit = "-" if share is None else f"{share:.0%}"
    times = [duration(seconds), f"{ERRORS * error_of(row):.0%}", significant(moved / seconds / 1e9), limit, *parts]
    return [*times, str(row.get("collectives", "-"))]


def cell(entry: Entry, peer: str, bold: str) -> str:
    """A peer's ratio, on a GPU that of the host's part in brackets; in bold what is faster than fusedstep."""
    texts = []
    for host, value in ((False, ratio(entry, peer)), (True, host_ratio(entry, peer))):
        if value is not None:
            texts.append(bold.format(significant(value)) if is_faster(entry, peer, host) else significant(value))
    if not texts:
        return "-"
    waits = " w" * bool((row_of(entry, peer) or {}).get("waits"))
    return texts[0] + waits + (f" ({texts[1]})" if len(texts) > 1 else "")


def table_of(entries: list[Entry], names: list[str], bold: str) -> list[list[str]]:
    """The head and a row for each case, without the columns in which no row has anything."""
    peers = peers_of(entries)
    head = ["case", "B/elem", OURS, "±", "GB/s", "of limit", "host", "core", "collectives", *peers]
    rows = [
        [name, by_format(entry), *ours(entry), *(cell(entry, peer, bold) for peer in peers)]
        for name, entry in zip(names, entries, strict=True)
    ]
    kept = [k for k in range(len(head)) if any(row[k] != "-" for row in rows)]
    return [[line[k] for k in kept] for line in (head, *rows)]


def _times(entries: list[Entry], where: str) -> Table:
    table = Table(title=f"One step; {where}", caption=CAPTION, caption_justify="left")
    head, *rows = table_of(entries, [label(entry["case"]) for entry in entries], "[bold red]{}[/]")
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _failures(result: dict[str, Any], console: Console) -> None:
    for name, why in result["missing"].items():
        console.print(f"[yellow]{name}[/]: {why}", highlight=False)
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in result["cases"]:
        for row in entry["rows"]:
            if "failed" in row:
                reasons[row["peer"], row["failed"]].append(label(entry["case"], *WHERE))
    for (name, why), cases in reasons.items():
        shown = "; ".join(cases[:2]) + (f" and {len(cases) - 2} more" if len(cases) > 2 else "")
        console.print(f"[yellow]{name}[/]: {why} [dim]({shown})[/]", highlight=False)
