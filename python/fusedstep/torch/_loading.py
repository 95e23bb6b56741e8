"""Loading a checkpoint: state is kept as this optimizer stores it; torch would cast it to the parameter's dtype."""

from __future__ import annotations

from typing import Any, cast

import torch

from .. import _arguments as check
from .. import _dtypes
from .. import _rides as rides
from . import _groups
from ._warn import warn


def new_step(device: torch.device | str, exact: bool = False) -> torch.Tensor:
    """A step count as torch keeps it, or one that counts further than to 2**24."""
    wide = exact or torch.get_default_dtype() == torch.float64
    return torch.zeros((), dtype=torch.float64 if wide else torch.float32, device=device)


class _Hidden:
    """A value that torch's ``load_state_dict`` passes on as it is."""

    def __init__(self, value: Any) -> None:
        self.value = value


def show(state: Any) -> None:
    """What was hidden from torch takes its place."""
    for entry in state.values() if isinstance(state, dict) else ():
        for name, value in entry.items() if isinstance(entry, dict) else ():
            if isinstance(value, _Hidden):
                entry[name] = value.value


def hide(opt: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A pre-hook of ``load_state_dict``: the checkpoint with state as this optimizer keeps it, hidden from torch.

    ValueError or TypeError, with nothing changed, for state that cannot be kept.
    """
    label, saved, entries = type(opt).__name__, list(state_dict["param_groups"]), dict(state_dict["state"])
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in opt.param_groups]:
        return state_dict  # torch says so
    opt._run.tensor_ids = None
    rounded: list[str] = []
    index = 0
    for k, (group, new) in enumerate(zip(opt.param_groups, saved, strict=True)):
        check.seed(label, f"seed of group {k} of the state_dict", new.get("seed", 0))
        check.step_count(label, f"ema_step of group {k} of the state_dict", new.get(rides.EMA_STEP, 0), 0)
        rides.decay_lr(label, f"decay_lr of group {k} of the state_dict", new.get(rides.DECAY_LR))
        keeper = _Keeper(opt, {**opt.defaults, **new, **_groups.run_time(group, opt._run_time)}, rounded)
        if opt._rule.has_step:  # other packages count the steps of a group
            saved[k] = {key: value for key, value in new.items() if key != "step"}
        for param, key in zip(group["params"], new["params"], strict=True):
            if isinstance(entry := entries.get(key), dict) and entry:
                entries[key] = keeper.kept(entry, param, f"{label}: state[{index}]")
            index += 1
    if rounded:
        warn(_dtypes.rounding(rounded))
    return {**state_dict, "state": entries, "param_groups": saved}


class _Keeper:
    """Makes the state of the parameters of one group."""

    def __init__(self, opt: Any, options: dict[str, Any], rounded: list[str]) -> None:
        rule, self.label = opt._rule, type(opt).__name__
        self.formats = rule.formats(self.label, options)
        self.ids = opt._tensor_ids() if rule.draws(self.label, options) else None
        self.arrays, self.numbers = {s.name for s in rule.states} | {rides.EMA}, {n.name for n in rule.numbers}
        self.steps = options.get("step") if rule.has_step else None  # of all parameters, where they have none
        self.by_torch = bool(rule.torch_class)  # whose class makes tensors of plain numbers
        self.step_beside = bool(options.get("capturable") or options.get("fused"))  # as torch has it
        self.rounded = rounded
        self.opt, self.options = opt, options

    def kept(self, entry: dict[str, Any], param: torch.Tensor, where: str) -> dict[str, Any]:
        entry = entry if self.steps is None else {"step": self.steps, **entry}
        # torch.distributed.checkpoint has an empty dict for what a checkpoint lacks.
        lacking = {name for name, value in entry.items() if isinstance(value, dict) and not value}
        if lacking:
            entry = {name: value for name, value in entry.items() if name not in lacking}
            if entry.keys() - rides.ARRAYS:
                entry |= self.opt._new_state(param, self.options, lacking)
        out = dict(entry)
        for name, value in entry.items():
            if name in rides.ARRAYS and getattr(value, "shape", param.shape) != param.shape:
                raise ValueError(
                    f"{where}.{name} of the state_dict has shape {tuple(value.shape)}, expected {tuple(param.shape)} "
                    "to match its parameter"
                )
            if name == rides.MASK:
                out[name] = _Hidden(self._mask(f"{where}.{name}", value, param))
            elif isinstance(value, torch.Tensor):
                if name in self.numbers:
                    # torch has cast it to the parameter's dtype where a checkpoint passed through its load_state_dict.
                    out[name] = _Hidden(value.to(param.device, torch.promote_types(value.dtype, torch.float32)))
                elif name in self.arrays:
                    out[name] = _Hidden(value.to(param.device, self._dtype(f"{where}.{name}", name, value, param)))
            elif type(value) in (float, int) and not self.by_torch:
                if name in self.numbers:
                    out[name] = _Hidden(torch.tensor(value, dtype=torch.float64, device=param.device))
                elif name == "step":
                    out[name] = _Hidden(new_step(param.device if self.step_beside else "cpu").fill_(value))
        number = out.pop("tensor_id", None)
        if self.ids is not None and entry.keys() - rides.ARRAYS:
            number = self.ids[id(param)] if number is None else number
            out["tensor_id"] = check.tensor_id(where, "tensor_id of the state_dict", number)
            if isinstance(step := entry.get("step"), (torch.Tensor, float, int)):
                step = torch.as_tensor(step, dtype=torch.float64)
                out["step"] = _Hidden(step.to(param.device) if self.step_beside else step)
        return out

    def _dtype(self, where: str, name: str, value: torch.Tensor, param: torch.Tensor) -> torch.dtype:
        of_param, got = (str(_dtypes.name_of(t.dtype)) for t in (param, value))
        expected = _dtypes.stored_as(of_param, self.formats.get(name, "float32"))
        if _dtypes.loses(where, got, expected, _dtypes.COMPLEX if param.is_complex() else _dtypes.REAL):
            self.rounded.append(f"{where} of the state_dict is rounded from {got} to {expected}")
        return cast(torch.dtype, getattr(torch, expected))

    @staticmethod
    def _mask(where: str, value: Any, param: torch.Tensor) -> torch.Tensor:
        """torch's own optimizers cast a mask that they load to the parameter's dtype."""
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{where} of the state_dict is a {type(value).__name__}, expected a tensor of torch.bool")
        if value.dtype != torch.bool and not ((value == 0) | (value == 1)).all():
            raise ValueError(f"{where} of the state_dict is {value.dtype}, expected torch.bool (or zeros and ones)")
        return value.to(param.device, torch.bool)
