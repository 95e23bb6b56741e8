from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _rules, functional


class Optimizer:
    """Base of the optimizers here; a subclass takes its rule from the table by its name.

    Args:
        params: one array, a list of arrays, or a list of dicts with ``params`` and options of their own (groups).
            The arrays are updated in place.
        **options: the rule's options and their defaults are in the signature; ``max_norm`` clips the gradients of all
            groups that have one to a global norm, ``clip_value`` each element. ValueError if out of range.

    Attributes:
        param_groups: list of dicts; options may be changed between steps, e.g. ``opt.param_groups[0]["lr"]``.
        total_norm: the gradients' norm at the last step with ``max_norm``, or None.
    """

    _rule: _rules.Rule
    _defaults: dict[str, Any]

    def __init_subclass__(cls) -> None:
        cls._rule = _rules.RULES[cls.__name__]
        cls._defaults = {**_rules.COMMON, **cls._rule.defaults}
        positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        options = [inspect.Parameter(k, keyword, default=v) for k, v in cls._defaults.items()]
        cls.__signature__ = inspect.Signature([inspect.Parameter("params", positional), *options])  # type: ignore[attr-defined]

    def __init__(self, params: Any, **options: Any) -> None:
        self._label = type(self).__name__
        self._check_names(options)
        self.defaults = {**self._defaults, **options}
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []  # one dict per parameter, in order: arrays, and "step" as an int
        self.total_norm: float | None = None
        given = functional.as_list(params)
        groups = given if given and all(isinstance(g, Mapping) for g in given) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def _check_names(self, options: Mapping[str, Any]) -> None:
        unknown = options.keys() - self._defaults.keys()
        if unknown:
            raise TypeError(f"{self._label}: unexpected option {min(unknown)!r}, expected {sorted(self._defaults)}")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a dict of ``params`` and options; options that are left out are the optimizer's."""
        if "params" not in group:
            raise ValueError(f"{self._label}: a group without 'params'")
        options = {k: v for k, v in group.items() if k != "params"}
        self._check_names(options)
        full = {**self.defaults, **options}
        _rules.check(self._label, full)
        params = functional.as_list(group["params"])
        self.state += [self._new_state(p, full) for p in params]
        self.param_groups.append({"params": params, **full})

    def _new_state(self, param: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        like = np.asarray(param)
        initial = self._rule.initial(options)
        return {"step": 0, **{name: np.full_like(like, initial) for name in self._rule.states(options)}}

    def step(self, grads: Any, *, lr: float | None = None, grad_scale: float = 1.0) -> float | None:
        """Update every parameter in place.

        Args:
            grads: one gradient per parameter, in the order of the groups; None leaves its parameter out.
            lr: learning rate of this step for all groups, instead of the groups' own.
            grad_scale: what the gradients were multiplied by.

        Returns:
            The norm of the gradients before clipping if a group has ``max_norm``, else None.
        """
        params = [p for g in self.param_groups for p in g["params"]]
        given = functional.as_list(grads)
        if len(given) != len(params):
            raise ValueError(f"{self._label}: grads has {len(given)} arrays, expected {len(params)} to match params")
        groups, stepped, start = [], [], 0
        for group in self.param_groups:
            options = group if lr is None else {**group, "lr": lr}
            names = self._rule.states(options)
            live = [k for k in range(start, start + len(group["params"])) if given[k] is not None]
            start += len(group["params"])
            for k in live:
                if missing := [name for name in names if name not in self.state[k]]:
                    raise ValueError(f"{self._label}: state[{k}] has no {missing[0]!r}; set the option at construction")
            core = _rules.core_group(
                self._label,
                self._rule,
                options,
                params=[params[k] for k in live],
                grads=[given[k] for k in live],
                state_arrays=[[self.state[k][name] for k in live] for name in names],
                step=[self.state[k]["step"] + 1 for k in live],
            )
            groups.append(core)
            stepped += live
        self.total_norm = functional.step_arrays(groups, grad_scale=grad_scale)
        for k in stepped:
            self.state[k]["step"] += 1
        return self.total_norm

    def state_dict(self) -> dict[str, Any]:
        """A flat dict of copies, ready for ``numpy.savez(file, **opt.state_dict())``; parameters are not in it."""
        out: dict[str, Any] = {}
        for k, group in enumerate(self.param_groups):
            out |= {f"group.{k}.{n}": np.asarray(v) for n, v in group.items() if n != "params" and v is not None}
        for k, state in enumerate(self.state):
            out |= {f"state.{k}.{n}": np.array(v) for n, v in state.items()}
        return out

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, from that dict or from ``numpy.load`` of its file. Copies.

        ValueError, with nothing changed, if it is not of an optimizer with the same groups and shapes.
        """
        groups = [dict.fromkeys(n for n in g if n != "params") for g in self.param_groups]
        state: list[dict[str, Any]] = [{} for _ in self.state]
        for key in state_dict:
            kind, _, rest = key.partition(".")
            index, _, name = rest.partition(".")
            target: Sequence[dict[str, Any]] = groups if kind == "group" else state
            if kind not in ("group", "state") or not index.isdigit() or int(index) >= len(target):
                raise ValueError(
                    f"{self._label}: state_dict has {key!r}, expected {len(groups)} groups, {len(state)} params"
                )
            value = np.array(state_dict[key])
            scalar = value.ndim == 0 and (kind == "group" or name == "step")
            target[int(index)][name] = value.item() if scalar else tuple(value.tolist()) if kind == "group" else value
        for k, (new, old) in enumerate(zip(state, self.state, strict=True)):
            if new.keys() != old.keys():
                raise ValueError(f"{self._label}: state[{k}] has {sorted(new)}, expected {sorted(old)}")
            for name in old:
                got, expected = np.shape(new[name]), np.shape(old[name])
                if got != expected:
                    raise ValueError(f"{self._label}: state[{k}].{name} has shape {got}, expected {expected}")
        for options in groups:
            self._check_names(options)
            _rules.check(self._label, options)
        for group, options in zip(self.param_groups, groups, strict=True):
            group |= options
        self.state = state
