"""What rides along in fusedstep's pass, as passes of torch's around a step: parts of the work, and the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.cases import Case
from harness.measure import mask_of
from harness.peers import Contender, Unavailable, all_peers

Passes = tuple[Callable[[], Any], Callable[[], Any], list[Any]]  # before a step, after it, the arrays that these keep


def nothing() -> None: ...


def ema(case: Case, params: list[Any]) -> Passes:
    model = torch.nn.ParameterList(params)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(case.ride_options["ema_decay"]))
    return nothing, lambda: averaged.update_parameters(model), list(averaged.parameters())


def mask(case: Case, params: list[Any]) -> Passes:
    """Masks of float32, as ``torch.nn.utils.prune`` keeps them; those of bool take longer to multiply by."""
    masks = [(mask_of(p.shape) if case.ride == "mask" else p.detach() != 0).to(p.device, p.dtype) for p in params]
    grads = [p.grad for p in params]
    return lambda: torch._foreach_mul_(grads, masks), lambda: torch._foreach_mul_(params, masks), masks


def threshold(case: Case) -> float:
    return float(case.rule.options["lr"] * case.ride_options["l1"])


def l1(case: Case, params: list[Any]) -> Passes:
    """Soft thresholding: ``p - clamp(p, -T, T)``."""
    t = threshold(case)
    return nothing, lambda: torch._foreach_sub_(params, [p.clamp(-t, t) for p in params]), []


def softshrink(case: Case, params: list[Any]) -> Passes:
    """The same in one pass, by a function that has no variant in place."""
    t, flat = threshold(case), [p.detach() for p in params]
    return nothing, lambda: [torch._C._nn.softshrink(x, t, out=x) for x in flat], []


def stats(case: Case, params: list[Any]) -> Passes:
    grads, copies = [p.grad for p in params], [p.detach().clone() for p in params]

    def after() -> None:
        torch._foreach_norm(copies)
        torch._foreach_norm(grads)
        torch._foreach_sub_(copies, params)
        torch._foreach_norm(copies)
        torch._foreach_norm(copies, torch.inf)
        for g in grads:
            g.isfinite().all()

    return lambda: torch._foreach_copy_(copies, params), after, copies


PASSES = {"EMA": ema, "mask": mask, "nonzero": mask, "L1": l1, "stats": stats}


@dataclass(frozen=True)
class Ride:
    name: str
    step: str = ""  # the peer whose step it is; none: the passes alone
    passes: bool = True
    inplace: bool = False  # the other pass of L1
    distribution: str | None = None
    tolerance: float = 1e-3
    takes: str = "rides"

    @property
    def is_part(self) -> bool:
        return not (self.step and self.passes)

    def prepare(self) -> None: ...

    @torch.no_grad()
    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        if self.inplace and case.ride != "L1":
            raise Unavailable("is of L1")
        plain = case.but(ride=None)
        step = all_peers()[self.step].make(plain, params, state) if self.step else Contender(nothing, list)
        if not self.passes:
            return step
        before, after, kept = (softshrink if self.inplace else PASSES[case.ride])(case, params)

        def whole() -> None:
            with torch.no_grad():
                before()
            step.step()
            with torch.no_grad():
                after()

        return Contender(whole, lambda: [*step.state(), *kept])


PEERS = [
    Ride("without", "fusedstep", passes=False),
    Ride("passes"),
    Ride("fusedstep + passes", "fusedstep"),
    Ride("torch fused + passes", "torch fused"),
    Ride("softshrink", inplace=True),
    Ride("fusedstep + softshrink", "fusedstep", inplace=True),
]
