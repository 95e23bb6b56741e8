from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import _core, _rules


def bump_versions(tensors: list[torch.Tensor]) -> None:
    """Tell autograd that these were written, so that a backward through an older value of theirs raises."""
    if not tensors:
        return
    try:
        torch.autograd.graph.increment_version(tensors)
    except AttributeError:  # torch < 2.4 takes one tensor
        for tensor in tensors:
            torch.autograd.graph.increment_version(tensor)


def refuse(label: str, *, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False) -> None:
    """Arguments that ask for what this is not. ``fused`` asks for what it always is, and is accepted."""
    if foreach:
        raise ValueError(
            f"{label}: foreach=True asks for torch's multi-tensor loop; all tensors are updated in one pass here, "
            "leave foreach unset"
        )
    if capturable:
        raise ValueError(f"{label}: capturable=True is for CUDA graphs; CPU tensors need capturable=False")
    if differentiable:
        raise ValueError(f"{label}: differentiable=True needs autograd through the step; use torch.optim.{label}")


class FusedOptimizer(torch.optim.Optimizer):
    """What the optimizers here share; mixed in before the torch class whose state and options it keeps.

    ``max_norm``: the gradients of all groups that have one are clipped, as one vector, to their group's ``max_norm``
    within the step; they are not written. :attr:`total_norm` is their norm before clipping. A non-finite norm spreads
    as with ``torch.nn.utils.clip_grad_norm_``, or raises RuntimeError with nothing changed if ``error_if_nonfinite``.
    ``clip_value``: bound on each element of the gradient, after that.
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler leaves unscaling and skipping to step()
    _rule: _rules.Rule

    def _start(
        self,
        max_norm: float | None,
        clip_value: float | None,
        error_if_nonfinite: bool,
        *,
        foreach: bool | None,
        differentiable: bool,
        capturable: bool = False,
        **more: Any,
    ) -> None:
        """Before torch's constructor: what that does not know, for :meth:`add_param_group` to put into each group."""
        label = type(self).__name__
        refuse(label, foreach=foreach, capturable=capturable, differentiable=differentiable)
        if error_if_nonfinite and max_norm is None:
            raise ValueError(
                f"{label}: error_if_nonfinite without max_norm, expected both or neither (inf clips nothing)"
            )
        self._extra = {"max_norm": max_norm, "clip_value": clip_value, "error_if_nonfinite": error_if_nonfinite, **more}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if extra := self.__dict__.get("_extra"):
            self.defaults.update(extra)
        if isinstance(param_group, dict):
            _rules.check(type(self).__name__, {**self.defaults, **param_group})
            refuse(type(self).__name__, **{k: v for k, v in param_group.items() if k in _UNUSED})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        present = self.__dict__.get("param_groups", [])
        super().__setstate__(state)
        # A state_dict of torch's lacks our options, which stay what they are, and may ask for implementations that do
        # not exist here.
        for k, group in enumerate(self.param_groups):
            for name, off in _OWN.items():
                group.setdefault(name, present[k][name] if k < len(present) else self.defaults.get(name, off))
            for name, value in _UNUSED.items():
                if name in group:
                    group[name] = value

    def _new_state(self, param: torch.Tensor, group: dict[str, Any]) -> dict[str, Any]:
        options = group["options"]
        value = self._rule.initial(options)
        initial = complex(value, value) if param.is_complex() else value
        state: dict[str, Any] = {}
        if self._rule.has_step:
            wide = torch.get_default_dtype() == torch.float64
            state["step"] = torch.tensor(0.0, dtype=torch.float64 if wide else torch.float32)
        for name in self._rule.states(options):
            state[name] = torch.full_like(param, initial, memory_format=torch.preserve_format, requires_grad=False)
        return state

    @property
    def total_norm(self) -> torch.Tensor | None:
        """Norm of the gradients at the last step, before clipping, as float64; None if that had no ``max_norm``."""
        norm = self.__dict__.get("_total_norm")
        return None if norm is None else torch.tensor(norm, dtype=torch.float64)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one update of all parameters that have a gradient.

        Args:
            closure: re-evaluates the model and returns the loss, which is returned.

        Raises:
            TypeError, ValueError: a parameter, gradient or state that cannot be updated; nothing was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and float(found_inf) != 0:
            return loss
        scale = getattr(self, "grad_scale", None)
        label = type(self).__name__
        groups = [
            _rules.core_group(label, self._rule, group, least_lr=_LEAST_LR, params=group["params"], options=group)
            for group in self.param_groups
        ]
        self._total_norm, touched = _core.step_torch(
            groups,
            self.state,
            self._new_state,
            grad_scale=1.0 if scale is None else _rules.scale(label, scale),
            error_if_nonfinite=any(group["error_if_nonfinite"] for group in self.param_groups),
        )
        bump_versions(touched)
        return loss


_OWN: dict[str, Any] = {"max_norm": None, "clip_value": None, "error_if_nonfinite": False}
_UNUSED: dict[str, Any] = {"foreach": None, "capturable": False, "differentiable": False}
_LEAST_LR = -1e-12  # torch's LinearLR to zero ends a rounding error below it
