"""What got worse since an older result: ratios are compared, never times."""

from __future__ import annotations

from typing import Any

from harness.results import CASE_KEYS, LIMIT, OURS, label, noise, ratio, row_of

LEAST = 0.1  # a ratio may fall by a tenth between runs: where arrays land in memory is not in the spread of a run


def identity(entry: dict[str, Any]) -> tuple[Any, ...]:
    return (*(entry["case"].get(key) for key in CASE_KEYS), entry["sweep"])


def spread(old: dict[str, Any], new: dict[str, Any], peer: str) -> float:
    """The interquartile ranges of the four times in two ratios, as independent errors."""
    rows = [row_of(entry, name) for entry in (old, new) for name in (OURS, peer)]
    return float(sum(noise(row) ** 2 for row in rows if row is not None) ** 0.5)


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str], int]:
    """Cases in which fusedstep got slower, other things worth knowing, both as lines; how many cases both have.

    A case got worse when its ratio fell, by more than a tenth and more than the spread, against most of the contenders
    that both results have (the limit is one). Where it fell against a few of them, those became faster.
    """
    before = {identity(entry): entry for entry in old["cases"]}
    worse, notes = [], []
    if old["machine"]["processor"] != new["machine"]["processor"]:
        notes.append(f"another machine: {old['machine']['processor']}, now {new['machine']['processor']}")
    common = 0
    for entry in new["cases"]:
        if (was := before.get(identity(entry))) is None:
            continue
        name = label(entry["case"], "device", "threads", "target", "cache")
        if row_of(was, OURS) and not row_of(entry, OURS):
            worse.append(f"{name}: fusedstep has no time any more")
            continue
        peers = [row["peer"] for row in entry["rows"] if row["peer"] != OURS]
        pairs = {p: (a, b) for p in peers if (a := ratio(was, p)) is not None and (b := ratio(entry, p)) is not None}
        if not pairs:
            continue
        common += 1
        fell = {p: v for p, v in pairs.items() if v[1] < v[0] * (1 - max(LEAST, spread(was, entry, p)))}
        text = ", ".join(f"{'of the ' * (p == LIMIT)}{p} {a:.2f} -> {b:.2f}" for p, (a, b) in fell.items())
        if 2 * len(fell) > len(pairs):
            worse.append(f"{name}: {text}")
        elif fell:
            notes.append(f"{name}: became faster than before: {text}")
    notes.append(f"{common} cases compared, {len(before) - common} of the older result have no time now")
    return worse, notes, common
