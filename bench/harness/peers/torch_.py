"""torch.optim in its ways, clipping with ``clip_grad_norm_``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.cases import Case
from harness.peers import Contender, Unavailable


def clipped(
    step: Callable[[], Any], case: Case, params: list[torch.nn.Parameter], foreach: bool | None = None
) -> Callable[[], Any]:
    """A step after ``clip_grad_norm_``, where the case clips."""
    if case.max_norm is None:
        return step
    limit = case.max_norm

    def both() -> None:
        torch.nn.utils.clip_grad_norm_(params, limit, foreach=foreach)
        step()

    return both


def tensors_of(state: dict[Any, dict[str, Any]]) -> list[torch.Tensor]:
    return [value for entry in state.values() for value in entry.values() if isinstance(value, torch.Tensor)]


def adopt(optimizer: torch.optim.Optimizer, state: dict[Any, dict[str, Any]], counts_on_device: bool = False) -> None:
    """Give an optimizer the shared state, but step counts and other numbers of its own, where its kernels want them."""
    for p, entry in state.items():
        device = p.device if counts_on_device else "cpu"
        optimizer.state[p] = {k: v if v.dim() else v.to(device, copy=True) for k, v in entry.items()}


def captured(step: Callable[[], Any], case: Case) -> Callable[[], Any]:
    """The replay of a CUDA graph that holds one step; a first one makes what cannot be captured."""
    if case.device == "cpu":
        raise Unavailable("CUDA graphs are for GPUs")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        raise Unavailable(f"cannot be captured: {error}") from error
    return graph.replay


def capturable(case: Case, graph: bool) -> dict[str, bool]:
    """The option that a rule's step needs to be captured, where it has one."""
    return {"capturable": True} if graph and "capturable" in case.rule.spec.options else {}


@dataclass(frozen=True)
class Torch:
    name: str
    flags: dict[str, bool] = field(hash=False)
    compiled: bool = False
    graph: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    arrays: float = 2  # temporaries of a parameter's size, beyond what is shared
    distribution: str | None = None
    tolerance: float = 1e-3

    def prepare(self) -> None:
        if self.compiled:
            from torch._inductor import config

            config.compile_threads = 1  # in this process: compilers in others would go on when their time is up

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        foreach = True if case.device != "cpu" or "foreach" in self.flags else None
        if case.rule.clips_alone:
            if "fused" in self.flags or self.compiled:
                raise Unavailable("torch.nn.utils has no other clip_grad_norm_ than the default's and foreach's")
            return Contender(clipped(lambda: None, case, params, foreach), list)
        if not case.rule.spec.torch_class:
            raise Unavailable(f"torch.optim has no {case.rule.cls}")
        flags = {**self.flags, **capturable(case, self.graph)}
        try:
            optimizer = getattr(torch.optim, case.rule.spec.torch_class)(params, **case.rule.chosen, **flags)
        except (TypeError, RuntimeError) as error:
            raise Unavailable(f"torch.optim.{case.rule.cls}: {error}") from error
        if case.state_dtype == case.torch_dtype:  # else it makes its own, in the parameters' dtype
            adopt(optimizer, state, case.device != "cpu" and (self.graph or self.compiled or "fused" in self.flags))
        step = optimizer.step
        if self.compiled:
            torch._dynamo.reset()  # else the limit of recompilations is reached, and later cases run uncompiled
            step = torch.compile(optimizer.step)
        step = clipped(step, case, params, foreach)
        return Contender(captured(step, case) if self.graph else step, lambda: tensors_of(optimizer.state))


PEERS = [
    Torch("torch default", {}),
    Torch("torch foreach", {"foreach": True}),
    Torch("torch fused", {"fused": True}, arrays=0),
    Torch("torch fused graph", {"fused": True}, graph=True, devices=("cuda",), arrays=0),
    Torch("torch compiled", {"foreach": True}, compiled=True),
]
