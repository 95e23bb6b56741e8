from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _arguments as check
from .. import _core
from .._rule import RUN_TIME, KeptGroups, Rule
from ..functional._updates import step_arrays


def _filled(like: Any, value: complex) -> Any:
    """An array of ``value``, laid out like ``like``."""
    flags = like.flags
    if value == 0 and (flags.c_contiguous or flags.f_contiguous):
        # Pages that nothing has touched: the first step does, on the threads that will go on updating them.
        return np.zeros(like.shape, like.dtype, order="C" if flags.c_contiguous else "F")
    return np.full_like(like, value)


class Optimizer:
    """What the optimizers here share.

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own (groups).
            The arrays are updated in place.
        **options: those in the signature of the subclass; ``max_norm`` clips the gradients of all
            groups that have one to a global norm, ``clip_value`` each element. ``nonfinite`` is what a norm that is NaN
            or infinite does: ``"propagate"``; ``"skip"``, the step leaves everything as it is; ``"raise"``. These three
            belong to the run: they are in no ``state_dict``. ValueError if out of range.

    Attributes:
        param_groups: list of dicts; options may be changed between steps, e.g. ``opt.param_groups[0]["lr"]``, and
            parameters and groups added or removed.
        state: list of one dict per parameter, in order: arrays, and "step" as an int. It follows the parameters.
            ``state.clear()`` starts anew.
        total_norm: the gradients' norm before clipping at the last step, also of one that was skipped; None if no group
            had a ``max_norm``.
        clip_coefficient: what that step multiplied gradients by, ``min(1, max_norm / (norm + 1e-6))``, the smallest of
            all groups; or None.
        clipped_steps, skipped_steps: how many steps had a coefficient below 1, and how many changed nothing.
    """

    _rule: type[Rule]

    def __init__(self, params: Any, **options: Any) -> None:
        self._label = type(self).__name__
        self._check_names(options)
        self.defaults = {**self._rule.defaults, **options}
        self._rule.check(self._label, self.defaults)
        check.needs_norm(self._label, self.defaults["nonfinite"], self.defaults["max_norm"] is not None)
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []
        self._kept = KeptGroups()
        self._owners: list[Any] = []  # the parameter of each dict in state
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
        known = self._rule.defaults
        if unknown := options.keys() - known.keys():
            raise TypeError(f"{self._label}: unexpected option {min(unknown)!r}, expected {sorted(known)}")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a dict of ``params`` and options; options that are left out are the optimizer's."""
        if "params" not in group:
            raise ValueError(f"{self._label}: a group without 'params'")
        options = {k: v for k, v in group.items() if k != "params"}
        self._check_names(options)
        full = {**self.defaults, **options}
        self._rule.check(self._label, full)
        params = check.arrays(group["params"])
        self._follow_params()
        fresh = self._fresh(params, full, len(self.state))
        self.state += fresh
        self._owners += params
        self.param_groups.append({"params": params, **full})

    @property
    def clipped_steps(self) -> int:
        return int(self._report[2])

    @property
    def skipped_steps(self) -> int:
        return int(self._report[3])

    def _fresh(self, params: Sequence[Any], options: Mapping[str, Any], first: int) -> list[dict[str, Any]]:
        """Checks parameters, of which the first has that index, and makes their state."""
        checked = _core.check_params(list(params), label=self._label, first=first)
        return [self._new_state(p, *c, options) for p, c in zip(params, checked, strict=True)]

    def _follow_params(self) -> list[dict[str, Any]]:
        """The groups with all their options; ``state`` follows what was done to groups and parameters by hand."""
        groups = []
        for group in self.param_groups:
            if not isinstance(group, Mapping) or "params" not in group:
                raise ValueError(f"{self._label}: a group without 'params'")
            self._check_names({k: v for k, v in group.items() if k != "params"})
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
        for group in groups:
            for p in group["params"]:
                state += [known[id(p)]] if id(p) in known else self._fresh([p], group, len(state))
        self.state[:], self._owners = state, params
        return groups

    def _new_state(self, param: Any, shape: tuple[int, ...], dtype: str, options: Mapping[str, Any]) -> dict[str, Any]:
        like = param if isinstance(param, np.ndarray) else np.empty(shape, dtype)
        state: dict[str, Any] = {"step": 0}
        for name, value in self._rule.starts(options).items():
            state[name] = _filled(like, complex(value, value) if like.dtype.kind == "c" else value)
        for n in self._rule.numbers:
            state[n.name] = np.array(n.start)
        return state

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
        groups: list[_core.ListsGroup] = []
        counts: dict[int, int] = {}  # after the step
        start = 0
        for index, group in enumerate(all_groups):
            options = group if lr is None else {**group, "lr": lr}
            core = self._kept.get(
                index, [options[n] for n in self.defaults], functools.partial(self._rule.group, self._label, options)
            )
            names = self._rule.state_keys(options)
            live = [k for k in range(start, start + len(group["params"])) if given[k] is not None]
            start += len(group["params"])
            for k in live:
                if missing := [name for name in ("step", *names) if name not in self.state[k]]:
                    raise ValueError(
                        f"{self._label}: state[{k}] has no {missing[0]!r}; set options that add state at construction; "
                        "state.clear() starts anew"
                    )
            arrays = [[self.state[k][name] for k in live] for name in names]
            steps = [1 + check.step_count(self._label, f"state[{k}].step", self.state[k]["step"], 0) for k in live]
            groups.append((core, [params[k] for k in live], [given[k] for k in live], arrays, steps, live))
            counts |= zip(live, steps, strict=True)
        nonfinite = check.strictest(all_groups)
        has_norm = any(g["max_norm"] is not None for g in all_groups)
        check.needs_norm(self._label, nonfinite, has_norm)
        skipped = self.skipped_steps
        norm: float | None = step_arrays(
            self._label, groups, grad_scale=grad_scale, nonfinite=nonfinite, report=self._report
        )
        self.total_norm = norm
        self.clip_coefficient = float(self._report[1]) if has_norm else None
        if self.skipped_steps == skipped:
            for k, count in counts.items():
                self.state[k]["step"] = count
        return norm

    def state_dict(self) -> dict[str, Any]:
        """A flat dict of copies, ready for ``numpy.savez(file, **opt.state_dict())``; parameters are not in it."""
        out: dict[str, Any] = {}
        for k, group in enumerate(self._follow_params()):
            kept = {n: v for n, v in group.items() if n != "params" and n not in RUN_TIME}
            out |= {f"group.{k}.{n}": np.asarray(v) for n, v in kept.items()}
        for k, state in enumerate(self.state):
            out |= {f"state.{k}.{n}": np.array(v) for n, v in state.items()}
        return out

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, from that dict or from ``numpy.load`` of its file. Copies.

        ValueError or TypeError, with nothing changed, if it is not of an optimizer with the same groups, shapes and
        dtypes.
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
            if kind == "group" or name == "step":
                target[int(index)][name] = value.item() if value.ndim == 0 else tuple(value.tolist())
            else:
                target[int(index)][name] = value
        k = 0
        for i, (group, options) in enumerate(zip(current, groups, strict=True)):
            expected = group.keys() - {"params", *RUN_TIME}
            if wrong := expected ^ options.keys():
                has = "no key" if min(wrong) in expected else "the unexpected key"
                raise ValueError(f"{self._label}: state_dict has {has} 'group.{i}.{min(wrong)}'")
            self._rule.check(self._label, options)
            for _ in group["params"]:
                self._check_state(k, state[k], self._rule.state_keys(options))
                k += 1
        for group, options in zip(self.param_groups, groups, strict=True):
            group |= options
        self.state[:] = state

    def _check_state(self, k: int, new: dict[str, Any], names: Sequence[str]) -> None:
        old, label = self.state[k], f"{self._label}: state[{k}]"
        if new.keys() != {"step", *names}:
            raise ValueError(f"{label} has {sorted(new)}, expected {sorted(['step', *names])}")
        check.step_count(self._label, f"state[{k}].step", new["step"], 0)
        like = next((v for n, v in old.items() if n != "step"), None)
        for name in names:
            got, expected = new[name], old.get(name, like)
            if expected is not None and (got.shape, got.dtype) != (expected.shape, expected.dtype):
                raise ValueError(
                    f"{label}.{name} has shape {got.shape} and dtype {got.dtype}, "
                    f"expected {expected.shape} and {expected.dtype}"
                )
