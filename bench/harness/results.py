"""A result file: read, checked, and the few statistics that pictures, tables and the harness share.

Times are medians. The spread of a row is its interquartile range, which a few disturbed samples do not move.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

SCHEMA = 1
OURS, LIMIT = "fusedstep", "limit"
LEAST = 0.03  # a difference below it is none, however still the machine
SWEEPS = (None, "tensors", "size", "threads")
CASE_KEYS = ("rule", "shapes", "dtype", "clip", "device", "threads", "target", "cache")
# Those that a label leaves out unless asked, and how it words them.
EXTRAS = {"device": "{}", "threads": "{} threads", "target": "{}", "cache": "{} cache"}
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))

Row = dict[str, Any]
Entry = dict[str, Any]  # of "cases": the case, what it computes and moves, its rows


def load(path: Path | str) -> dict[str, Any]:
    """The content of a result file; ValueError says what is wrong with it, and where."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError(f"{path}: not a result of bench/compare.py: no 'schema'")
    if content["schema"] != SCHEMA:
        raise ValueError(f"{path}: schema {content['schema']!r}, expected {SCHEMA}")
    try:
        _check(content)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: not a result of bench/compare.py: {what}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


def _check(content: dict[str, Any]) -> None:
    if not (isinstance(content["machine"]["processor"], str) and isinstance(content["versions"]["fusedstep"], str)):
        raise TypeError("machine.processor and versions.fusedstep have to be text")
    if not isinstance(content["command"], str):
        raise TypeError("command has to be text")
    for device, limits in content["limits"].items():
        _positive(limits, f"limits.{device}")
    for number, entry in enumerate(content["cases"]):
        where, case = f"cases[{number}]", entry["case"]
        if absent := [key for key in CASE_KEYS[:5] if key not in case]:
            raise ValueError(f"{where} has no {', '.join(absent)}")
        if entry["sweep"] not in SWEEPS:
            raise ValueError(f"{where} has sweep {entry['sweep']!r}, expected one of {SWEEPS}")
        keys = ("tensors", "elements", "bytes_per_element", "flops_per_element")
        _positive({key: entry[key] for key in keys}, where)
        for row in entry["rows"]:
            peer = row["peer"]
            if "failed" not in row:
                _samples(row, "seconds", f"{where}, {peer}")
    for number, entry in enumerate(content.get("training", [])):
        _ = entry["model"], entry["optimizer"], entry["parameters"], entry["tensors"], entry["device"]
        for row in entry["rows"]:
            for key in () if "failed" in row else ("update_seconds", "step_seconds"):
                _samples(row, key, f"training[{number}], {row['peer']}")


def _positive(values: dict[str, Any], where: str) -> None:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{where}.{key} is {value!r}, expected a number above 0")


def _samples(row: Row, key: str, where: str) -> None:
    if not isinstance(row[key], list) or not row[key]:
        raise ValueError(f"{where}: {key} has no samples")
    _positive({f"{key}[{i}]": value for i, value in enumerate(row[key])}, where)


def rounded(values: Iterable[float]) -> list[float]:
    """Samples as a file holds them: four significant digits, far below their noise."""
    return [float(f"{value:.4g}") for value in values]


def median_of(row: Row, key: str = "seconds") -> float:
    return median(row[key])


def quartiles(row: Row, key: str = "seconds") -> tuple[float, float]:
    """The first and the third, interpolated between samples; a single sample is both."""
    if len(row[key]) == 1:
        return row[key][0], row[key][0]
    low, _, high = quantiles(row[key], n=4, method="inclusive")
    return low, high


def noise(row: Row, key: str = "seconds") -> float:
    """The interquartile range as a share of the median."""
    low, high = quartiles(row, key)
    return (high - low) / median_of(row, key)


def outliers(row: Row) -> list[float]:
    """The samples that lie three interquartile ranges above the third quartile."""
    low, high = quartiles(row)
    return [sample for sample in row["seconds"] if sample > high + 3 * (high - low)]


def row_of(entry: Entry, peer: str) -> Row | None:
    """The row of a peer; None where it is absent or failed."""
    return next((row for row in entry["rows"] if row["peer"] == peer and "failed" not in row), None)


def ratio(entry: Entry, peer: str) -> float | None:
    """The peer's time by fusedstep's; None where either has none. Both until all has ended where the peer waits."""
    ours, theirs = row_of(entry, OURS), row_of(entry, peer)
    if ours is None or theirs is None:
        return None
    key = "wall_seconds" if theirs.get("waits") and "wall_seconds" in ours else "seconds"
    return median_of(theirs, key) / median_of(ours, key)


def host_ratio(entry: Entry, peer: str) -> float | None:
    """The same of the host's part of a step on a GPU; None elsewhere."""
    ours, theirs = row_of(entry, OURS), row_of(entry, peer)
    rows = [row for row in (ours, theirs) if row is not None and row.get("host_seconds")]
    if entry["case"]["device"] == "cpu" or ours is None or theirs is None or len(rows) < 2:
        return None
    return median_of(theirs, "host_seconds") / median_of(ours, "host_seconds")


def limit_share(entry: Entry, row: Row) -> float | None:
    """How much of the speed of the limit a row reaches: 1 at the limit."""
    limit = row_of(entry, LIMIT)
    return None if limit is None or "failed" in row else median_of(limit) / median_of(row)


def faster(entry: Entry, peer: str) -> dict[str, float]:
    """Ratios in which a peer takes less time than fusedstep by more than both spread, and than 3%: what is lost.

    The key says of what: the step, or on a GPU the host's part of it.
    """
    ours, theirs = row_of(entry, OURS), row_of(entry, peer)
    if ours is None or theirs is None or peer.startswith((OURS, LIMIT)):
        return {}
    found = {("step", "seconds"): ratio(entry, peer), ("host", "host_seconds"): host_ratio(entry, peer)}
    return {
        what: value
        for (what, key), value in found.items()
        if value is not None and value < 1 - max(LEAST, math.hypot(noise(ours, key), noise(theirs, key)) / 2)
    }


def label(case: dict[str, Any], *extra_keys: str) -> str:
    """``AdamW, 32M, float32 + clip``; with extra keys ``AdamW, 32M, float32 (1 thread, cold cache)``."""
    text = f"{case['rule']}, {case['shapes']}, {case['dtype']}{' + clip' if case['clip'] else ''}"
    extras = [
        "1 thread" if (key, case.get(key)) == ("threads", 1) else EXTRAS.get(key, key + " {}").format(case[key])
        for key in extra_keys
        if case.get(key) is not None  # a GPU has no threads and no target
    ]
    return f"{text} ({', '.join(extras)})" if extras else text


def varying(entries: list[Entry], keys: tuple[str, ...] = tuple(EXTRAS)) -> list[str]:
    """The keys in which cases differ: what their labels have to say."""
    return [key for key in keys if len({str(entry["case"].get(key)) for entry in entries}) > 1]


def spoken(value: Any) -> str:
    """A value of a case as it is written in filters: true, not True."""
    return value if isinstance(value, str) else json.dumps(value)


def read_filter(text: str) -> dict[str, list[str]]:
    """``rule:Adam|AdamW,device:cpu`` as the values that each key may have."""
    wanted: dict[str, list[str]] = {}
    for part in filter(None, text.split(",")):
        key, colon, values = part.partition(":")
        if not colon or key not in (*CASE_KEYS, "sweep"):
            raise ValueError(f"{part!r} is no filter, expected KEY:VALUE with {', '.join((*CASE_KEYS, 'sweep'))}")
        wanted[key] = values.split("|")
    return wanted


def select(entries: list[Entry], wanted: dict[str, list[str]]) -> list[Entry]:
    """The cases that pass a filter."""
    return [
        entry
        for entry in entries
        if all(spoken({**entry["case"], "sweep": entry["sweep"]}.get(key)) in values for key, values in wanted.items())
    ]


def significant(value: float) -> str:
    """Three significant digits, at most two decimals: 0.95, 1.23, 12.3, 1230."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(max(abs(rounded), 1))))}f}"


def duration(seconds: float) -> str:
    """``8.92 ms``, in the unit that leaves at least one digit before the point."""
    scale, unit = next((pair for pair in UNITS if seconds >= 0.9995 * pair[0]), UNITS[-1])
    return f"{significant(seconds / scale)} {unit}"


def provenance(result: dict[str, Any]) -> tuple[str, str]:
    """The machine, and the versions that were measured."""
    machine, names = result["machine"], {"python": "Python", "numpy": "NumPy"}
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    versions = {**{key: result["versions"].get(key) for key in (OURS, "torch", "python")}, **result["versions"]}
    said = [v if k == "compiler" else f"{names.get(k, k)} {v}" for k, v in versions.items() if v]
    return ", ".join(filter(None, (machine["processor"], cores, machine.get("gpu")))), ", ".join(said)
