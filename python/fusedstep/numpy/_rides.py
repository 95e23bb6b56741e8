"""What rides along in the pass, of the NumPy classes: masks, moving averages of parameters, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import _arguments as check
from .. import _core, _dtypes
from .. import _rides as rides
from .._formats import decode
from .._rule import DECAY_LR, RIDES
from ..reference import STATISTICS

TOLD = tuple(n for n in (*RIDES, DECAY_LR.name) if n != "ema_warmup")  # of these options the core's groups are made


class Group(dict[str, Any]):
    """A group of ``opt.param_groups``: of what rides along it has only what was asked for, and answers for the rest."""

    def __missing__(self, key: str) -> Any:
        return RIDES[key].default


def filled(like: Any, value: complex, dtype: np.dtype[Any]) -> Any:
    """An array of ``value``, laid out like ``like``."""
    flags = like.flags
    if value == 0 and (flags.c_contiguous or flags.f_contiguous):
        # Pages that nothing has touched: the first step does, on the threads that will go on updating them.
        return np.zeros(like.shape, dtype, order="C" if flags.c_contiguous else "F")
    return np.full_like(like, value, dtype=dtype)


def without_off(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, less what rides along and is off: a step of a group that has none of it does not look for it."""
    return {n: v for n, v in options.items() if (n not in RIDES and n != DECAY_LR.name) or not _is_off(n, v)}


def _is_off(name: str, value: Any) -> bool:
    default = RIDES[name].default if name in RIDES else None
    return value is default or (isinstance(value, (bool, int, float, str)) and value == default)


class RidesAlong:
    """The part of :class:`Optimizer` that is about ride-alongs."""

    param_groups: list[dict[str, Any]]
    state: list[dict[str, Any]]
    _label: str
    _owners: list[Any]
    _masked = False  # whether some parameter has a mask
    _swapped = False  # whether parameters are their averages for now
    _rows: tuple[list[int], Any] | None = None  # statistics of the last step, and of which parameters

    def _follow_params(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def set_mask(self, masks: Mapping[int, Any]) -> None:
        """Give parameters masks, by their index: where a mask is False, the parameter and its state are zero from the
        next step on.

        State that starts from another value has that value there. A mask is a bool array of the parameter's shape. It
        is copied. None takes the mask away. Masks are in ``state``, so ``state_dict`` has them.

        Raises:
            TypeError, ValueError: a mask that is none, or a parameter that cannot have one; nothing was changed.
        """
        groups = [group for group in self._follow_params() for _ in group["params"]]
        checked = _core.check_params(list(self._owners), label=self._label, first=0)
        given: dict[int, Any] = {}
        for key, mask in check.mapping(self._label, "masks", masks, "masks by the index of their parameters").items():
            k = int(key) if isinstance(key, (int, np.integer)) and not isinstance(key, bool) else -1
            if not 0 <= k < len(self._owners):
                raise ValueError(f"{self._label}: set_mask names {key!r}, expected an index below {len(self._owners)}")
            given[k] = None
            if mask is None:
                continue
            if isinstance(mask, np.ma.MaskedArray):
                raise TypeError(f"{self._label}: mask of params[{k}] is a masked array, expected a plain one")
            where, (shape, dtype) = f"{self._label}: mask of params[{k}]", checked[k]
            given[k] = found = np.asarray(mask)
            if found.dtype != np.bool_:
                raise TypeError(f"{where} has dtype {found.dtype}, expected bool: pass mask.astype(bool)")
            if found.shape != shape:
                raise ValueError(f"{where} has shape {found.shape}, expected {shape} to match it")
            if dtype in _dtypes.COMPLEX:
                raise TypeError(f"{where}: the parameter has dtype {dtype}, which takes no mask")
            if groups[k].get("mask") is not None:
                raise ValueError(
                    f"{where} in a group with mask='nonzero', expected one of both: set that to None first"
                )
        for k, mask in given.items():
            if mask is None:
                self.state[k].pop(rides.MASK, None)
            else:
                self.state[k][rides.MASK] = filled(self._like(k), 0, np.dtype(bool))
                self.state[k][rides.MASK][...] = mask
        self._find_masks()

    def ema_parameters(self) -> list[Any]:
        """The moving averages of the parameters in groups with ``ema_decay``, in the order of the groups: the arrays
        that steps go on writing, float32 (or float64 or complex as the parameter). Before the first step they equal
        the parameters."""
        return [self._average(k) for k in self._averaged("ema_parameters()")]

    @contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Within ``with opt.swap_ema():`` the parameters are their moving averages, rounded to their dtype.

        Afterwards they are what they were. A step inside raises. It takes memory for a copy of the parameters.
        """
        if self._swapped:
            raise RuntimeError(f"{self._label}: swap_ema() within swap_ema()")
        indices = self._averaged("swap_ema()")
        params = [self._owners[k] for k in indices]
        for k, p in zip(indices, params, strict=True):
            if not isinstance(p, np.ndarray):
                raise TypeError(
                    f"{self._label}: swap_ema() with params[{k}] a {type(p).__name__}, expected NumPy arrays"
                )
            if not p.flags.writeable:
                raise ValueError(f"{self._label}: swap_ema() with params[{k}] read-only, expected writable arrays")
        averages = [self._average(k) for k in indices]
        kept = [p.copy() for p in params]
        self._swapped = True
        try:
            for p, average in zip(params, averages, strict=True):
                p[...] = average.astype(p.dtype)
            yield
        finally:
            self._swapped = False
            for p, old in zip(params, kept, strict=True):
                p[...] = old

    def stats(self) -> dict[str, dict[str, float]]:
        """Figures of the last step, of each parameter that took part in it in a group with ``stats=True``, by its
        index as text.

        ``param_norm`` is the 2-norm of the parameter before the step, ``grad_norm`` that of its gradient, unscaled and
        before clipping, ``update_norm`` that of what the step subtracted, and ``update_max`` the largest element of
        that. ``clipped`` is the share of the gradient's elements that ``clip_value`` bounded; ``nan`` and ``inf`` are
        counts. Elements that a mask leaves out count as zero.
        """
        if not any(group.get("stats") for group in self._follow_params()):
            raise ValueError(f"{self._label}: stats() without stats=True, expected it in a group")
        found: dict[str, dict[str, float]] = {}
        indices, rows = self._rows or ([], np.empty((0, len(STATISTICS))))
        for k, row in zip(indices, rows.tolist(), strict=True):
            figures = dict(zip(STATISTICS, row, strict=True))
            if figures["clipped"] >= 0 and k < len(self._owners):
                figures["clipped"] /= max(self._like(k).size, 1)
                found[str(k)] = figures
        return found

    def _new_rows(self, indices: list[int]) -> Any:
        """Where the core leaves the figures of these parameters; a count of -1 where it has left none."""
        self._rows = indices, np.full((len(indices), len(STATISTICS)), -1.0)
        return self._rows[1]

    def _find_masks(self) -> None:
        self._masked = any(rides.MASK in state for state in self.state)

    def _has_masks(self, options: Mapping[str, Any], first: int) -> bool:
        """Whether parameters of this group have masks; the first of them has that index."""
        last = first + len(options["params"])
        return self._masked and any(rides.MASK in state for state in self.state[first:last])

    def _beside(self, indices: Sequence[int], masked: bool, average: bool) -> _core.Beside:
        masks = [self.state[k].get(rides.MASK) for k in indices] if masked else None
        return masks, [self._average(k) for k in indices] if average else None

    def _ema_step(self, index: int, first: int) -> int:
        """Over how many steps a group has averaged, whose first parameter has that index."""
        group = self.param_groups[index]
        count = check.step_count(self._label, rides.EMA_STEP, group.get(rides.EMA_STEP, 0), 0)
        states = self.state[first : first + len(check.arrays(group["params"]))]
        anew = states and not any(rides.EMA in state for state in states)
        return 0 if anew else count  # state.clear() starts anew

    def _averaged(self, what: str) -> list[int]:
        found: list[int] = []
        k = 0
        groups = self._follow_params()
        if all(group.get("ema_decay") is None for group in groups):
            raise ValueError(f"{self._label}: {what} without ema_decay, expected it in a group")
        for index, group in enumerate(groups):
            if group.get("ema_decay") is not None:
                self.param_groups[index][rides.EMA_STEP] = self._ema_step(index, k)  # before averages are made
                found += range(k, k + len(group["params"]))
            k += len(group["params"])
        return found

    def _average(self, k: int) -> Any:
        state, param = self.state[k], self._owners[k]
        if rides.EMA not in state:
            values = decode(param if isinstance(param, np.ndarray) else np.from_dlpack(param))
            state[rides.EMA] = filled(self._like(k), 0, values.dtype)
            state[rides.EMA][...] = values
        return state[rides.EMA]

    def _like(self, k: int) -> Any:
        """An array of the shape and layout of parameter k."""
        param = self._owners[k]
        if isinstance(param, np.ndarray):
            return param
        ((shape, _),) = _core.check_params([param], label=self._label, first=k)
        return np.empty(shape, np.uint8)
