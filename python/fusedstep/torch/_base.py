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


def on_gpu(x: Any) -> bool:
    """Whether this is a tensor whose value the host would have to wait for."""
    return isinstance(x, torch.Tensor) and x.is_cuda


def norm_out(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """Where the core is to leave a norm of these: on their device, so that nothing has to wait; None on the CPU."""
    if not tensors or not on_gpu(tensors[0]):
        return None
    return torch.empty((), dtype=torch.float64, device=tensors[0].device)


def refuse(label: str, *, foreach: bool | None = None, differentiable: bool = False) -> None:
    """Arguments that ask for what this is not. ``fused`` asks for what it always is, and is accepted."""
    if foreach:
        raise ValueError(
            f"{label}: foreach=True asks for torch's multi-tensor loop; all tensors are updated in one pass here, "
            "leave foreach unset"
        )
    if differentiable:
        raise ValueError(f"{label}: differentiable=True needs autograd through the step; use torch.optim.{label}")


class FusedOptimizer(torch.optim.Optimizer):
    """What the optimizers here share; mixed in before the torch class whose state and options it keeps.

    ``max_norm``: the gradients of all groups that have one are clipped, as one vector, to their group's ``max_norm``
    within the step; they are not written. :attr:`total_norm` is their norm before clipping. A non-finite norm spreads
    as with ``torch.nn.utils.clip_grad_norm_``, or raises RuntimeError with nothing changed if ``error_if_nonfinite``.
    ``clip_value``: bound on each element of the gradient, after that.

    On CUDA devices a step is one launch per rule and dtype (three with ``max_norm``) and waits for nothing but an
    ``error_if_nonfinite``; ``lr`` may be a tensor there. ``capturable``: step counts live on the device, so that a step
    can be captured in a CUDA graph, after a first one that makes the state.
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
        **more: Any,
    ) -> None:
        """Before torch's constructor: what that does not know, for :meth:`add_param_group` to put into each group."""
        label = type(self).__name__
        refuse(label, foreach=foreach, differentiable=differentiable)
        if error_if_nonfinite and max_norm is None:
            raise ValueError(
                f"{label}: error_if_nonfinite without max_norm, expected both or neither (inf clips nothing)"
            )
        self._extra = {"max_norm": max_norm, "clip_value": clip_value, "error_if_nonfinite": error_if_nonfinite, **more}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if extra := self.__dict__.get("_extra"):
            self.defaults.update(extra)
        if isinstance(param_group, dict):
            _rules.check(type(self).__name__, _on_host({**self.defaults, **param_group}))
            refuse(type(self).__name__, **{k: v for k, v in param_group.items() if k in _UNUSED})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group.get("capturable") and not all(map(on_gpu, group["params"])):
            self.param_groups.pop()
            raise ValueError(
                f"{type(self).__name__}: capturable=True is for CUDA graphs; CPU tensors need capturable=False"
            )

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
            device = param.device if options.get("capturable") else None
            state["step"] = torch.zeros((), dtype=torch.float64 if wide else torch.float32, device=device)
        for name in self._rule.states(options):
            state[name] = torch.full_like(param, initial, memory_format=torch.preserve_format, requires_grad=False)
        return state

    @property
    def total_norm(self) -> torch.Tensor | None:
        """Norm of the gradients at the last step, before clipping, as float64; None if that had no ``max_norm``."""
        norm = self.__dict__.get("_total_norm")
        if norm is None:
            return None
        return norm.clone() if isinstance(norm, torch.Tensor) else torch.tensor(norm, dtype=torch.float64)

    def _norm_out(self) -> torch.Tensor | None:
        """The one place for the norm of all steps, which a captured graph goes on writing."""
        params: list[torch.Tensor] = next((g["params"] for g in self.param_groups if g["max_norm"] is not None), [])
        if not params or not on_gpu(params[0]):
            return None
        out: torch.Tensor | None = self.__dict__.get("_norm_on_device")
        if out is None or out.device != params[0].device:
            self._norm_on_device = out = norm_out(params)
        return out

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
        label = type(self).__name__
        scale = getattr(self, "grad_scale", None)
        if not on_gpu(scale):
            scale = 1.0 if scale is None else _rules.scale(label, scale)
        groups = [
            _rules.core_group(
                label,
                self._rule,
                _on_host(group),
                least_lr=_LEAST_LR,
                params=group["params"],
                options=group,
                capturable=group.get("capturable", False),
                lr_tensor=group["lr"] if isinstance(group["lr"], torch.Tensor) else None,
            )
            for group in self.param_groups
        ]
        out = self._norm_out()
        norm, touched = _core.step_torch(
            groups,
            self.state,
            self._new_state,
            _step_on_device,
            grad_scale=scale,
            found_inf=getattr(self, "found_inf", None),
            norm_out=out,
            error_if_nonfinite=any(group["error_if_nonfinite"] for group in self.param_groups),
        )
        if touched or norm is not None:
            clips = any(group["max_norm"] is not None for group in self.param_groups)
            self._total_norm = out if norm is None and clips else norm
        bump_versions(touched)
        return loss


def _on_host(group: dict[str, Any]) -> dict[str, Any]:
    """A group whose learning rate can be looked at without waiting for a device."""
    return {**group, "lr": 0.0} if on_gpu(group["lr"]) else group


def _step_on_device(step: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    return step.to(param.device, non_blocking=True)


_OWN: dict[str, Any] = {"max_norm": None, "clip_value": None, "error_if_nonfinite": False}
_UNUSED: dict[str, Any] = {"foreach": None, "differentiable": False}
_LEAST_LR = -1e-12  # torch's LinearLR to zero ends a rounding error below it
