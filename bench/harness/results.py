"""A result file: read, and the few statistics that tables, pictures and comparisons share.

Times are medians. The error of a median is scipy's after Maritz and Jarrett: it asks for no distribution and draws no
random numbers, so that pages come out the same everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.stats.mstats import mjci

SCHEMA = 1
OURS, LIMIT = "fusedstep", "limit"
LEAST = 0.03  # a difference below it is none, however still the machine
BETWEEN = 0.1  # a ratio may differ by a tenth between runs: where arrays land in memory is in no spread of one run
ERRORS = 2  # standard errors that a difference has to exceed
CASE_KEYS = ("rule", "shapes", "dtype", "clip", "device", "threads", "target", "cache", "state", "ride", "ranks")
# Those that a label leaves out unless asked, and how it words them.
EXTRAS = {"device": "{}", "threads": "{} threads", "target": "{}", "cache": "{} cache", "ranks": "{} ranks"}
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))

Row = dict[str, Any]
Entry = dict[str, Any]  # of "cases": the case, what it moves, its rows


def load(path: Path | str) -> dict[str, Any]:
    """The content of a result file; ValueError says what is wrong with it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise ValueError(f"no 'schema' of {SCHEMA}")
        _ = content["machine"]["processor"], content["versions"]["fusedstep"], content["command"]
        for entry in content["cases"]:
            _ = [entry["case"][key] for key in CASE_KEYS[:5]], entry["elements"], entry["bytes_per_element"]
            for row in entry["rows"]:
                if "failed" not in row and not (row["seconds"] and all(0 < s < math.inf for s in row["seconds"])):
                    raise ValueError(f"{label(entry['case'])}: seconds of {row['peer']} are no times")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a result of bench/compare.py: {what}") from error
    return content


def rounded(values: Iterable[float]) -> list[float]:
    """Samples as a file holds them: four significant digits, far below their noise."""
    return [float(f"{value:.4g}") for value in values]


def median_of(row: Row, key: str = "seconds") -> float:
    return median(row[key])


def error_of(row: Row, key: str = "seconds") -> float:
    """The standard error of the median, as a share of it; unknown, and so infinite, of fewer than three samples."""
    if len(row[key]) < 3:
        return math.inf
    with np.errstate(invalid="ignore"):  # of equal samples it may be the root of a rounding error below zero
        return float(np.nan_to_num(mjci(row[key], prob=[0.5])[0])) / median(row[key])


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
    if entry["case"]["device"] == "cpu" or not ours or not theirs or not theirs.get("host_seconds"):
        return None
    return median_of(theirs, "host_seconds") / median_of(ours, "host_seconds")


def limit_share(entry: Entry, peer: str) -> float | None:
    """How much of the speed of the limit a peer reaches: 1 at the limit."""
    limit, row = row_of(entry, LIMIT), row_of(entry, peer)
    return None if limit is None or row is None else median_of(limit) / median_of(row)


def is_faster(entry: Entry, peer: str, host: bool = False) -> bool:
    """Whether a peer takes less time than fusedstep by more than the errors of both, and than 3%."""
    ours, theirs, key = row_of(entry, OURS), row_of(entry, peer), "host_seconds" if host else "seconds"
    value = host_ratio(entry, peer) if host else ratio(entry, peer)
    if ours is None or theirs is None or value is None or peer.startswith((OURS, LIMIT)):
        return False
    return value < 1 - max(LEAST, ERRORS * math.hypot(error_of(ours, key), error_of(theirs, key)))


def worded(key: str, value: Any) -> str:
    return "1 thread" if (key, value) == ("threads", 1) else EXTRAS[key].format(value)


def formats(case: dict[str, Any]) -> str:
    """The dtype of parameters and gradients, and that of states where it is another."""
    dtype, state = case["dtype"], case.get("state")
    return dtype if state in (None, dtype) else f"{dtype} with {state} state"


def besides(case: dict[str, Any]) -> str:
    """What a step does beside its rule."""
    return " + clip" * case["clip"] + (f" + {case['ride']}" if case.get("ride") else "")


def label(case: dict[str, Any], *extra_keys: str) -> str:
    """``AdamW, 32M, float32 + clip``; with extra keys ``AdamW, 32M, float32 (1 thread)``."""
    text = f"{case['rule']}, {case['shapes']}, {formats(case)}{besides(case)}"
    extras = [worded(k, case[k]) for k in extra_keys if case.get(k) is not None]  # a GPU has no threads
    return f"{text} ({', '.join(extras)})" if extras else text


def varying(entries: list[Entry]) -> list[str]:
    """The keys in which cases differ beside those that each label has."""
    return [key for key in EXTRAS if len({str(entry["case"].get(key)) for entry in entries}) > 1]


def peers_of(entries: list[Entry]) -> list[str]:
    """All that have a time in one of these, but fusedstep and the limit."""
    names = dict.fromkeys(row["peer"] for entry in entries for row in entry["rows"] if "failed" not in row)
    return [name for name in names if name not in (OURS, LIMIT)]


def significant(value: float) -> str:
    """Three significant digits, at most two decimals: 0.95, 1.23, 12.3, 1230."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(max(abs(rounded), 1))))}f}"


def duration(seconds: float) -> str:
    """``8.92 ms``, in the unit that leaves at least one digit before the point."""
    scale, unit = next((pair for pair in UNITS if seconds >= 0.9995 * pair[0]), UNITS[-1])
    return f"{significant(seconds / scale)} {unit}"


def provenance(result: dict[str, Any]) -> str:
    """The machine, the versions and the command."""
    machine, names = result["machine"], {"python": "Python", "numpy": "NumPy"}
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    versions = {**{key: result["versions"].get(key) for key in (OURS, "torch", "python")}, **result["versions"]}
    said = ", ".join(v if k == "compiler" else f"{names.get(k, k)} {v}" for k, v in versions.items() if v)
    where = ", ".join(filter(None, (machine["processor"], cores, machine.get("gpu"))))
    return f"{where}; {said}; `{result['command']}`"


# --------------------------------------------------------------------------------------------- against an older result


def identity(entry: Entry) -> tuple[Any, ...]:
    """Older results have cases with scrubbed caches, and of sweeps."""
    case = {"cache": "warm", **entry["case"]}
    return (*(case.get(key) for key in CASE_KEYS), entry.get("sweep"))


def against(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str], int]:
    """Cases in which fusedstep got slower, other things worth knowing, both as lines; how many cases both have.

    A case got worse when its ratio fell, by more than a tenth and more than the errors of all four times, against most
    of the contenders that both results have (the limit is one). Where it fell against a few, those became faster.
    """
    before = {identity(entry): entry for entry in old["cases"]}
    worse, notes = [], []
    if old["machine"]["processor"] != new["machine"]["processor"]:
        notes.append(f"another machine: {old['machine']['processor']}, now {new['machine']['processor']}")
    common = 0
    for entry in new["cases"]:
        if (was := before.get(identity(entry))) is None:
            continue
        name = label(entry["case"], "device", "threads", "target")
        if row_of(was, OURS) and not row_of(entry, OURS):
            worse.append(f"{name}: fusedstep has no time any more")
            continue
        pairs, fell = 0, []
        for peer in [row["peer"] for row in entry["rows"] if row["peer"] != OURS]:
            a, b = ratio(was, peer), ratio(entry, peer)
            if a is None or b is None:
                continue
            pairs += 1
            rows = [row_of(one, who) for one in (was, entry) for who in (OURS, peer)]
            error = math.hypot(*(error_of(row) for row in rows if row is not None))
            if b < a * (1 - max(BETWEEN, ERRORS * error)):
                fell.append(f"{'of the ' * (peer == LIMIT)}{peer} {a:.2f} -> {b:.2f}")
        common += pairs > 0
        if 2 * len(fell) > pairs:
            worse.append(f"{name}: {', '.join(fell)}")
        elif fell:
            notes.append(f"{name}: became faster than before: {', '.join(fell)}")
    notes.append(f"{common} cases compared, {len(before) - common} of the older result have no time now")
    return worse, notes, common
