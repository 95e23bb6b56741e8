"""Replayed steps with which things ride along (:mod:`tests.helpers.replays`), drawn at random from what there is."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedstep import reference
from fusedstep._arithmetic import masked, moved_average
from tests.helpers import declared
from tests.helpers.bits import Array
from tests.helpers.kernels import SEED, hyper_of, rule_id
from tests.helpers.replays import FLAT, SMALL_LAYOUTS, Stream, header, layout_part, rule_part, streams_of

MODES = ["lr", "fixed", "relative", "squared"]


def drawn(rng: np.random.Generator, decoupled: bool) -> dict[str, Any]:
    """What rides along with a call."""
    return {
        "l1": float(rng.choice([0.0, 0.5])),
        "decay_lr": 0.3,
        "cautious": bool(rng.integers(2)),
        "cautious_decay": bool(rng.integers(2)) and decoupled,
        "decay_mode": str(rng.choice(MODES)) if decoupled else "lr",
        "mask": str(rng.choice(["", "array", "nonzero"])),
        "weight": float(rng.choice([0.0, 1.0, 0.01])),  # 0: no average
        "stats": bool(rng.integers(2)),
    }


def ride_part(ride: dict[str, Any], start: float, states: int) -> bytes:
    numbers = [ride["l1"], ride["decay_lr"], ride["weight"] or 1.0, *([start] * states), *([0.0] * (4 - states))]
    flags = [MODES.index(ride["decay_mode"]), ride["cautious"], ride["cautious_decay"], ride["mask"] == "nonzero"]
    flags += [ride["stats"], ride["mask"] == "array", ride["weight"] > 0]
    return np.array(numbers, np.float64).tobytes() + np.array(flags, np.int64).tobytes()


def mask_of(rng: np.random.Generator, like: Stream, layout: str, wide: bool) -> Stream:
    order = tuple(range(len(like.shape)))
    return Stream(rng.random(like.shape) < 0.7, "bool_wide" if wide else "bool", order, 1, layout == "rows")


def average_of(rng: np.random.Generator, like: Stream, layout: str, wide: bool) -> Stream:
    values = rng.standard_normal(like.shape).astype(np.float64 if wide else np.float32)
    return Stream(values, "float64" if wide else "float32", tuple(range(values.ndim)), 1, layout == "rows")


def sparse(p: Stream) -> Stream:
    """With zeros in it, for a mask of what is not zero."""
    view = p.view(p.memory)
    view[np.arange(view.size).reshape(view.shape) % 5 == 0] = 0
    return p


def riding_step(rng: np.random.Generator, rule: dict[str, Any], formats: list[str], small: bool) -> bytes:
    decoupled, t, start = bool(rng.integers(2)), int(rng.integers(1, 4)), 0.25
    ride = drawn(rng, decoupled)
    common: dict[str, Any] = {"weight_decay": 0.1, "decoupled": decoupled, "grad_scale": float(rng.choice([1.0, 4.0]))}
    if rng.integers(2):
        common["max_norm"] = 0.7
    if rng.integers(2):
        common["clip_value"] = 0.05
    layouts = SMALL_LAYOUTS if small else ["large transposed", "large"]
    tensors = [(layout, streams_of(rng, layout, formats)) for layout in layouts]
    wide = formats[0] == "float64"
    hyper = hyper_of(rule, "middle")
    if "weight_decay" in hyper:
        hyper["weight_decay"] = 0.0
    names = [*rule["state"], *rule["scalars"]]
    keeps, masks, averages = [], [], []
    for tensor, (layout, (p, _, *states)) in enumerate(tensors):
        sparse(p)
        for k, s in enumerate(states):
            s.key = reference.stochastic_key(SEED, t, tensor, 1 + k)
        masks.append(mask_of(rng, p, layout, wide) if ride["mask"] == "array" else None)
        averages.append(average_of(rng, p, layout, wide) if ride["weight"] else None)
        keep: Array | None = p.decoded() != 0 if ride["mask"] == "nonzero" else None
        keeps.append(keep if masks[-1] is None else masks[-1].decoded())
    grads = [masked(g.decoded(), keep) for (_, (_, g, *_)), keep in zip(tensors, keeps, strict=True)]
    norm, options = None, {k: v for k, v in common.items() if k != "max_norm"}
    if "max_norm" in common:
        norm = reference.total_norm(grads) / common["grad_scale"]
        options["clip_coef"] = reference.clip_coefficient(norm, common["max_norm"])
    options |= {k: ride[k] for k in ("l1", "cautious", "cautious_decay", "decay_mode", "decay_lr")}
    every = [s for d in declared.RULES.values() if d.kernel == rule["name"] for s in d.states]
    known = {n: v for n, v in hyper.items() if n not in {s.when for s in every if s.name not in rule["state"]}}
    if "weight_decay" in known:
        options["decay_inside"] = False
        del known["weight_decay"]

    numbers = [np.array(0.75 - 0.25 * k, np.float32) for k in range(len(rule["scalars"]))]
    bodies, rows, moved = [], [], []
    for (layout, (p, g, *states)), keep, mask, average in zip(tensors, keeps, masks, averages, strict=True):
        row = np.zeros(7)
        arrays = dict(zip(names, [*(s.decoded() for s in states), *numbers], strict=True))
        starts = dict.fromkeys(rule["state"], start)
        specified = getattr(reference, rule["name"])
        new_p, *new = specified(
            p.decoded(), g.decoded(), **arrays, step=t, mask=keep, starts=starts, stats=row, **known, **options
        )
        moved = [float(x) for x in new[len(states) :]]
        strided = layout not in FLAT
        bodies += [layout_part(layout), p.part(strided, p.written(new_p, p.memory)), g.part(strided, g.memory)]
        bodies += [s.part(strided, s.written(x, s.memory)) for s, x in zip(states, new[: len(states)], strict=True)]
        if mask is not None:
            bodies.append(mask.part(strided, mask.memory))
        if average is not None:
            with np.errstate(all="ignore"):
                after = moved_average(average.decoded(), p.stored(new_p), ride["weight"])
            bodies.append(average.part(strided, average.written(after, average.memory)))
        rows.append(row if ride["stats"] else np.zeros(7))
    scalars = [x for n in numbers for x in (float(n), 0.0)] + moved
    head = header(4, np.float64 if wide else np.float32, grads)
    asked = rule_part(rule_id(rule), t, hyper, common, norm, scalars, SEED)
    return b"".join([head, asked, ride_part(ride, start, len(rule["state"])), *bodies, *(r.tobytes() for r in rows)])


def riding_calls(rule: dict[str, Any], storage: str, count: int, large: bool) -> list[bytes]:
    """So many of small tensors, and perhaps one of tensors that wake threads."""
    rounding = ["nearest", "nearest", *declared.roundings(rule)]
    pairs = zip(storage.split("-"), rounding, strict=True)
    formats = [f"{name}_stochastic" if (name, r) == ("bfloat16", "stochastic") else name for name, r in pairs]
    rng = np.random.default_rng(len(storage))
    calls = [riding_step(rng, rule, formats, True) for _ in range(count)]
    return [*calls, *([riding_step(rng, rule, formats, False)] if large else [])]
