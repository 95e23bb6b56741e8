from __future__ import annotations

import functools
import itertools
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _arguments as check
from .. import _core, _dtypes
from .. import _rides as rides
from .._formats import decode
from .._rule import DECAY_LR, RIDES, RUN_TIME, KeptGroups, Rule
from ..functional._updates import step_arrays
from ._rides import TOLD, Group, RidesAlong, filled, without_off


def _converted(value: Any, got: str, dtype: np.dtype[Any]) -> Any:
    """An array of a dtype called ``got`` as one of another."""
    if got != "bfloat16":
        return value.astype(dtype, copy=False)
    if dtype.itemsize == 2:
        return value.view(dtype)
    out = np.empty_like(value, dtype=dtype)  # laid out like it
    out[...] = decode(value, got)
    return out


class Optimizer(RidesAlong):
    """What the optimizers here share.

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own (groups).
            The arrays are updated in place.
        **options: those in the signature of the subclass; ``max_norm`` clips the gradients of all
            groups that have one to a global norm, ``clip_value`` each element. ``nonfinite`` is what a norm that is NaN
            or infinite does: ``"propagate"``; ``"skip"``, the step leaves everything as it is; ``"raise"``.
            ``state_dtype`` is what state arrays are stored as: ``"float32"``, ``"bfloat16"`` (needs the package
            ml_dtypes), or a dict of these by the names of the arrays; None is float32 for float32, float16 and bfloat16
            parameters. In bfloat16 running means of squares are rounded stochastically, other arrays to nearest. The
            state of float64 and complex parameters has their dtype. These four belong to the run: they are in no
            ``state_dict``. ``seed`` is that of the random numbers; it is saved where some are drawn. ``l1``, ``mask``,
            ``cautious``, ``cautious_decay``, ``decay_mode``, ``decay_lr``, ``ema_decay``, ``ema_warmup`` and ``stats``
            ride along in the same pass over memory; docs/ride-alongs.md explains them. ValueError if out of range.

    Attributes:
        param_groups: list of dicts; options may be changed between steps, e.g. ``opt.param_groups[0]["lr"]``, and
            parameters and groups added or removed.
        state: list of one dict per parameter, in order: arrays, and "step" as an int; "tensor_id" where random numbers
            are drawn, the parameter's number among all that were added; "mask" and "ema" where there are some. It
            follows the parameters. ``state.clear()`` starts anew.
        total_norm: the gradients' norm before clipping at the last step, also of one that was skipped; None if no group
            had a ``max_norm``.
        clip_coefficient: what that step multiplied gradients by, ``min(1, max_norm / (norm + 1e-6))``, the smallest of
            all groups; or None.
        clipped_steps, skipped_steps: how many steps had a coefficient below 1, and how many changed nothing.
    """

    _rule: type[Rule]

    def __init__(self, params: Any, **options: Any) -> None:
        self._label = type(self).__name__
        self._known = {"params", rides.EMA_STEP, DECAY_LR.name, *self._rule.defaults, *RIDES}  # what a group may have
        self._check_names(options)
        self._rule.check(self._label, {**self._rule.defaults, **options})
        self.defaults = {**self._rule.defaults, **without_off(options)}
        self._told = tuple(self._rule.defaults)  # of a group's options the core is told these, beside what rides along
        self.defaults["state_dtype"] = check.state_dtype(self._label, "state_dtype", self.defaults["state_dtype"])
        check.needs_norm(self._label, self.defaults["nonfinite"], self.defaults["max_norm"] is not None)
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []
        self._kept = KeptGroups()
        self._owners: list[Any] = []  # the parameter of each dict in state
        self._added = 0  # parameters, ever
        self.total_norm: float | None = None
        self.clip_coefficient: float | None = None
        self._report = np.zeros(4)  # norm and coefficient of a step; counts of those clipped and of those skipped
        given = check.arrays(params)
        other = next((k for k, g in enumerate(given) if not isinstance(g, Mapping)), None)
        if other is not None and any(isinstance(g, Mapping) for g in given):
            raise TypeError(
                f"{self._label}: params mixes groups and arrays: params[{other}] is a {type(given[other]).__name__}, "
                "expected all dicts or none"
            )
        for group in given if given and other is None else [{"params": given}]:
            self.add_param_group(group)

    def _check_names(self, options: Mapping[str, Any]) -> None:
        if unknown := options.keys() - self._known:
            expected = sorted(self._known - {"params", rides.EMA_STEP})
            raise TypeError(f"{self._label}: unexpected option {min(unknown)!r}, expected {expected}")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a dict of ``params`` and options; options that are left out are the optimizer's."""
        if "params" not in group:
            raise ValueError(f"{self._label}: a group without 'params'")
        options = {k: v for k, v in group.items() if k not in ("params", rides.EMA_STEP)}
        self._check_names(options)
        full = {**self.defaults, **options}
        self._rule.check(self._label, full)
        full = without_off(full) | rides.keys_of(self._label, full)
        full["state_dtype"] = check.state_dtype(self._label, "state_dtype", full["state_dtype"])
        params = check.arrays(group["params"])
        self._follow_params()
        fresh = self._fresh(params, full, len(self.state), self._added)
        self.state += fresh
        self._owners += params
        self._added += len(params)
        self.param_groups.append(Group({"params": params, **full}))

    @property
    def clipped_steps(self) -> int:
        return int(self._report[2])

    @property
    def skipped_steps(self) -> int:
        return int(self._report[3])

    def _fresh(self, params: Sequence[Any], options: Mapping[str, Any], first: int, added: int) -> list[dict[str, Any]]:
        """Checks parameters, of which the first has that index, and makes their state. ``added``: before them."""
        checked = _core.check_params(list(params), label=self._label, first=first)
        for k, (_, dtype) in enumerate(checked, first):
            _dtypes.check_param(f"{self._label}: params[{k}]", dtype, options["state_dtype"])
        return [self._new_state(p, *c, options, k) for k, (p, c) in enumerate(zip(params, checked, strict=True), added)]

    def _follow_params(self) -> list[dict[str, Any]]:
        """The groups with all their options; ``state`` follows what was done to groups and parameters by hand."""
        groups = []
        for group in self.param_groups:
            if not isinstance(group, Mapping) or "params" not in group:
                raise ValueError(f"{self._label}: a group without 'params'")
            self._check_names(group)
            groups.append({**self.defaults, **group, "params": check.arrays(group["params"])})
        params = [p for group in groups for p in group["params"]]
        if self.state and len(self.state) != len(self._owners):
            raise ValueError(
                f"{self._label}: state has {len(self.state)} dicts, expected {len(self._owners)}, one per parameter; "
                "state.clear() starts anew"
            )
        if len(self.state) == len(params) and all(map(operator.is_, params, self._owners)):
            return groups
        for group in groups:
            self._rule.check(self._label, group)
        known = {id(p): state for p, state in zip(self._owners, self.state)}  # noqa: B905 state may be empty
        state: list[dict[str, Any]] = []
        added = self._added if known else 0
        for group in groups:
            for p in group["params"]:
                state += [known[id(p)]] if id(p) in known else self._fresh([p], group, len(state), added)
                added += id(p) not in known
        self.state[:], self._owners, self._added = state, params, added
        return groups

    def _new_state(
        self, param: Any, shape: tuple[int, ...], dtype: str, options: Mapping[str, Any], number: int
    ) -> dict[str, Any]:
        dtypes = self._stored_as(dtype, options)
        like = param if isinstance(param, np.ndarray) else np.empty(shape, np.uint8)
        state: dict[str, Any] = {"step": 0}
        if self._rule.draws(self._label, options):
            state["tensor_id"] = number
        for name, value in self._rule.starts(options).items():
            state[name] = filled(like, complex(value, value) if dtypes[name].kind == "c" else value, dtypes[name])
        for name, value in self._rule.number_starts(options).items():
            state[name] = np.array(value)
        return state

    def _stored_as(self, dtype: str, options: Mapping[str, Any]) -> dict[str, np.dtype[Any]]:
        """What each state array of a parameter of this dtype is stored as."""
        formats = self._rule.formats(self._label, options)
        return {n: _dtypes.numpy_dtype(self._label, _dtypes.stored_as(dtype, f)) for n, f in formats.items()}

    def _keys(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What a parameter's state has."""
        number = ("tensor_id",) if self._rule.draws(self._label, options) else ()
        return ("step", *number, *self._rule.state_keys(options))

    def step(self, grads: Any, *, lr: float | None = None, grad_scale: float = 1.0) -> float | None:
        """Update every parameter in place.

        Args:
            grads: one gradient per parameter, in the order of the groups; None leaves its parameter out.
            lr: learning rate of this step for all groups, instead of the groups' own.
            grad_scale: what the gradients were multiplied by.

        Returns:
            The norm of the gradients before clipping if a group has ``max_norm``, else None.
        """
        all_groups = self._follow_params()
        params = [p for g in all_groups for p in g["params"]]
        given = check.arrays(grads)
        if len(given) != len(params):
            raise ValueError(f"{self._label}: grads has {len(given)} arrays, expected {len(params)} to match params")
        if self._swapped:
            raise RuntimeError(
                f"{self._label}: step() within swap_ema(), where parameters are their averages; step after it"
            )
        groups: list[_core.ListsGroup] = []
        followed: list[int] = []  # the parameters that the core is told, in its order
        averaging: list[tuple[int, int]] = []  # groups, and how many steps they have averaged over
        with_stats = False
        counts: dict[int, int] = {}  # after the step
        start = 0
        for index, group in enumerate(all_groups):
            options = group if lr is None else {**group, "lr": lr}
            riding = len(options) > len(self._told) + 1 or self._masked
            values = [riding, *(options[n] for n in self._told)]
            late: dict[str, float] = {}
            if riding:
                if late := rides.late_decay_lr(self._label, group, None, None):
                    options = options | late
                values += [options.get(n) for n in TOLD]
                values.append(masked := self._has_masks(options, start))
                average, with_stats = options.get("ema_decay") is not None, with_stats or bool(options.get("stats"))
            else:
                masked = average = False
            core = self._kept.get(
                index,
                values,
                functools.partial(self._rule.group, self._label, options, masks=masked, ema=average),
            )
            if late:
                self.param_groups[index].update(late)
            if average:
                n = self._ema_step(index, start)
                core.ema_weight = rides.weight(self._label, n, options)
                averaging.append((index, n))
            keys, names = self._keys(options), self._rule.state_keys(options)
            live = [k for k in range(start, start + len(group["params"])) if average or given[k] is not None]
            start += len(group["params"])
            for k in live:
                missing = [name for name in keys if name not in self.state[k]]
                if missing and missing != ["tensor_id"]:
                    raise ValueError(
                        f"{self._label}: state[{k}] has no {missing[0]!r}; set options that add state at construction; "
                        "state.clear() starts anew"
                    )
                if ("tensor_id" in self.state[k]) != ("tensor_id" in keys):
                    raise ValueError(
                        f"{self._label}: state_dtype is {group['state_dtype']!r}, which state[{k}] was not made for; "
                        "opt.load_state_dict(opt.state_dict()) converts it"
                    )
            arrays = [[self.state[k][name] for k in live] for name in names]
            steps = [1 + check.step_count(self._label, f"state[{k}].step", self.state[k]["step"], 0) for k in live]
            ids = None
            if "tensor_id" in keys:
                ids = [check.tensor_id(self._label, f"state[{k}].tensor_id", self.state[k]["tensor_id"]) for k in live]
            of_group = (core, [params[k] for k in live], [given[k] for k in live], arrays, steps, live, ids)
            groups.append((*of_group, self._beside(live, masked, average)) if masked or average else of_group)
            moved = zip(live, steps, strict=True)
            counts |= ((k, count) for k, count in moved if given[k] is not None) if average else moved
            followed += live
        nonfinite = check.strictest(all_groups)
        has_norm = any(g["max_norm"] is not None for g in all_groups)
        check.needs_norm(self._label, nonfinite, has_norm)
        skipped = self.skipped_steps
        norm: float | None = step_arrays(
            self._label,
            groups,
            grad_scale=grad_scale,
            nonfinite=nonfinite,
            report=self._report,
            stats=self._new_rows(followed) if with_stats else None,
        )
        self.total_norm = norm
        self.clip_coefficient = float(self._report[1]) if has_norm else None
        if self.skipped_steps == skipped:
            for k, count in counts.items():
                self.state[k]["step"] = count
            for index, n in averaging:
                self.param_groups[index][rides.EMA_STEP] = n + 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        """A flat dict of copies, ready for ``numpy.savez(file, **opt.state_dict())``; parameters are not in it."""
        out: dict[str, Any] = {}
        for k, group in enumerate(self._follow_params()):
            saved = {n: group[n] for n in self._saved_options(group)}
            out |= {f"group.{k}.{n}": np.asarray(() if x is None else x) for n, x in saved.items()}
        for k, state in enumerate(self.state):
            out |= {f"state.{k}.{n}": np.array(v) for n, v in state.items()}
        return out

    def _saved_options(self, group: Mapping[str, Any]) -> list[str]:
        """Of a group; its seed where random numbers are drawn."""
        drawn = self._rule.draws(self._label, group)
        out = {"params", *RUN_TIME} if drawn else {"params", "seed", *RUN_TIME}
        return [n for n in group if n not in out]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, from that dict or from ``numpy.load`` of its file. Copies.

        A state array of the dtype that ``state_dtype`` asks for is kept bit for bit. One with fewer bits is widened,
        one with more is rounded, with a warning. ValueError or TypeError, with nothing changed, if it is not of an
        optimizer with the same groups, shapes and, but for this, dtypes.
        """
        current = self._follow_params()
        groups: list[dict[str, Any]] = [{} for _ in current]
        state: list[dict[str, Any]] = [{} for _ in self.state]
        for key in state_dict:
            kind, index, name = (*str(key).split(".", 2), "", "")[:3]
            target: Sequence[dict[str, Any]] = {"group": groups, "state": state}.get(kind, [])
            if not isinstance(key, str) or not index.isdecimal() or int(index) >= len(target):
                size = f"{len(groups)} groups and {len(state)} params"
                raise ValueError(f"{self._label}: state_dict has the key {key!r}, expected those of {size}")
            given = state_dict[key]
            if isinstance(given, np.ma.MaskedArray):
                raise TypeError(f"{self._label}: {key} of the state_dict is a masked array, expected a plain one")
            value = np.array(given)
            if kind == "group" and name in RUN_TIME:
                continue  # saved by an older version
            if kind == "group" or name in ("step", "tensor_id"):
                item = value.item() if value.ndim == 0 else tuple(value.tolist())
                target[int(index)][name] = None if item == () else item
            else:
                target[int(index)][name] = value
        self._give_ids(state)
        shapes = _core.check_params(self._owners, label=self._label, first=0)
        rounded: list[str] = []
        k = 0
        for i, (group, options) in enumerate(zip(current, groups, strict=True)):
            options.setdefault("seed", group["seed"])  # nothing was drawn where it was saved
            step, decay_lr = options.pop(rides.EMA_STEP, 0), options.pop(DECAY_LR.name, None)
            check.step_count(self._label, f"group.{i}.ema_step of the state_dict", step, 0)
            expected = group.keys() - {"params", rides.EMA_STEP, DECAY_LR.name, *RUN_TIME}
            if wrong := expected ^ options.keys():
                has = "no key" if min(wrong) in expected else "the unexpected key"
                raise ValueError(f"{self._label}: state_dict has {has} 'group.{i}.{min(wrong)}'")
            full = options | {n: group[n] for n in RUN_TIME if n in group}
            self._rule.check(self._label, full)
            ridden = {rides.EMA_STEP: step, DECAY_LR.name: group.get(DECAY_LR.name) if decay_lr is None else decay_lr}
            options |= rides.keys_of(self._label, full | ridden)
            for _ in group["params"]:
                state[k] = self._checked_state(k, state[k], full, *shapes[k], rounded)
                k += 1
        if rounded:
            warnings.warn(_dtypes.rounding(rounded), stacklevel=2)
        for group, options in zip(self.param_groups, groups, strict=True):
            group |= options
        self.state[:] = state
        self._find_masks()
        self._added = max([self._added, *(s["tensor_id"] + 1 for s in state if "tensor_id" in s)])

    def _give_ids(self, state: Sequence[dict[str, Any]]) -> None:
        """To what was loaded without one: that of the parameter, or one that nothing has."""
        taken = {new["tensor_id"] for new in state if "tensor_id" in new}
        fresh = itertools.count(self._added)
        for k, new in enumerate(state):
            if "tensor_id" not in new:
                own = self.state[k].get("tensor_id", k)
                new["tensor_id"] = next(n for n in fresh if n not in taken) if own in taken else own
                taken.add(new["tensor_id"])

    def _checked_state(
        self,
        k: int,
        new: dict[str, Any],
        options: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: str,
        rounded: list[str],
    ) -> dict[str, Any]:
        """What was loaded for a parameter, as it is stored here. Notes what is rounded."""
        keys, label = self._keys(options), f"{self._label}: state[{k}]"
        number = new.pop("tensor_id")
        if "tensor_id" in keys:
            new["tensor_id"] = check.tensor_id(self._label, f"state[{k}].tensor_id", number)
        beside = {n: new.pop(n) for n in sorted(rides.ARRAYS) if n in new}
        if new.keys() != {*keys}:
            raise ValueError(f"{label} has {sorted(new)}, expected {sorted(keys)}")
        check.step_count(self._label, f"state[{k}].step", new["step"], 0)
        wanted = {n: (shape, d) for n, d in self._stored_as(dtype, options).items()}
        wanted |= {n.name: ((), np.dtype(np.float64)) for n in self._rule.numbers}
        if rides.EMA in beside:
            wanted[rides.EMA] = (shape, np.dtype(_dtypes.stored_as(dtype, "float32")))
        new |= beside
        if (mask := beside.get(rides.MASK)) is not None and (mask.shape != shape or mask.dtype != np.bool_):
            raise ValueError(
                f"{label}.mask of the state_dict has shape {mask.shape} and dtype {mask.dtype}, expected {shape}, bool"
            )
        for name, (expected, stored) in wanted.items():
            value, where = new[name], f"{label}.{name}"
            if value.shape != expected:
                raise ValueError(f"{where} of the state_dict has shape {value.shape}, expected {expected}")
            got = "bfloat16" if value.dtype == np.dtype("V2") else value.dtype.name  # as numpy.save writes it
            if _dtypes.loses(where, got, stored.name, _dtypes.SINGLE if dtype in _dtypes.SINGLE else ()):
                rounded.append(f"{where} of the state_dict is rounded from {got} to {stored.name}")
            new[name] = _converted(value, got, stored)
        return new
