"""The result as tables in the terminal."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.results import (
    duration,
    faster,
    host_ratio,
    label,
    limit_share,
    median_of,
    noise,
    outliers,
    ratio,
    row_of,
    significant,
)

WHERE = ("device", "threads", "target", "cache")


def show(result: dict[str, Any], console: Console) -> None:
    """Times and ratios, memory, what failed, and where fusedstep loses."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for entry in result["cases"]:
        groups[tuple(entry["case"][k] for k in WHERE)].append(entry)
    for key, entries in groups.items():
        where = ", ".join(f"{k} {v}" for k, v in zip(WHERE, key, strict=True) if v is not None)
        console.print(_times(entries, where))
        console.print(_memory(entries, where))
    for device, roof in result["limits"].items():
        flops = f", {roof['flops_per_second'] / 1e9:.0f} GFLOP/s" if "flops_per_second" in roof else ""
        console.print(f"limits of {device}: {roof['bytes_per_second'] / 1e9:.1f} GB/s from memory{flops}")
    load, cores = result["machine"].get("load"), result["machine"].get("cores")
    if load is not None and cores and load > 0.3 * cores:
        console.print(f"[red]Other programs were using the machine[/] (load {load} at the start): measure again")
    _failures(result, console)
    losses = lost(result)
    console.print("[bold]Where fusedstep is slower, beyond the noise:[/] " + ("; ".join(losses) or "nowhere"))


def lost(result: dict[str, Any]) -> list[str]:
    """Every cell in which a peer takes less time than fusedstep, by more than the noise."""
    return [
        f"{label(entry['case'], *WHERE)}: {row['peer']} {value:.2f}{' of the host' * (what == 'host')}"
        for entry in result["cases"]
        for row in entry["rows"]
        for what, value in faster(entry, row["peer"]).items()
    ]


def _peers(entries: list[dict[str, Any]]) -> list[str]:
    """Those that were measured in one of these, in the order of the rows."""
    names = dict.fromkeys(r["peer"] for e in entries for r in e["rows"] if "seconds" in r)
    return [n for n in names if n not in ("fusedstep", "limit")]


def _times(entries: list[dict[str, Any]], where: str) -> Table:
    peers = _peers(entries)
    caption = "x columns: time of the peer / time of fusedstep. ±: half the interquartile range. host: "
    on_cpu = entries[0]["case"]["device"] == "cpu"
    caption += (
        "the step with two elements per tensor."
        if on_cpu
        else "until the call returns, in brackets as a ratio. w: waits for the device, times until the end."
    )
    table = Table(title=f"One step; {where}", caption=caption, caption_justify="left")
    table.add_column("case")
    for column in ("B/elem", "fusedstep", "±", "outliers", "GB/s", "% of limit", "host", *(f"x {p}" for p in peers)):
        table.add_column(column, justify="right")
    for entry in entries:
        ours = row_of(entry, "fusedstep")
        cells = ["-"] * 6
        if ours is not None:
            seconds = median_of(ours)
            moved = ours.get("bytes_per_element") or entry["bytes_per_element"]
            share = limit_share(entry, ours)
            host = median(ours["host_seconds"]) if ours.get("host_seconds") else None
            cells = [
                duration(seconds),
                f"{noise(ours) / 2:.0%}",
                f"{len(outliers(ours))}/{len(ours['seconds'])}",
                f"{moved * entry['elements'] / seconds / 1e9:.1f}",
                "-" if share is None else f"{share:.0%}",
                "-" if host is None else duration(host),
            ]
        for name in peers:
            value = ratio(entry, name)
            text = "-" if value is None else significant(value)
            row = row_of(entry, name)
            if (host := host_ratio(entry, name)) is not None:
                text += f"{' w' * bool(row and row.get('waits'))} ({significant(host)})"
            cells.append(text)
        table.add_row(label(entry["case"]), f"{entry['bytes_per_element']}", *cells)
    return table


def _memory(entries: list[dict[str, Any]], where: str) -> Table:
    """State and passing memory of the largest case of each rule: they hardly depend on anything else."""
    largest: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        key = entry["case"]["rule"], entry["case"]["dtype"]
        if key not in largest or entry["elements"] > largest[key]["elements"]:
            largest[key] = entry
    peers = ["fusedstep", *_peers(list(largest.values()))]
    table = Table(title=f"Bytes per parameter: state + most that a step needs for a while; {where}")
    for column in ("case", *peers):
        table.add_column(column, justify="left" if column == "case" else "right")
    for entry in largest.values():
        cells = []
        for name in peers:
            row = row_of(entry, name)
            if row is None or "state_bytes_per_element" not in row:
                cells.append("-")
                continue
            peak = row.get("peak_bytes")
            passing = "?" if peak is None else f"{peak / entry['elements']:.3g}"
            cells.append(f"{row['state_bytes_per_element']:.3g} + {passing}")
        table.add_row(label(entry["case"]), *cells)
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
