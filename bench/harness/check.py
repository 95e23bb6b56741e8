"""Is a peer's answer right? Its update of small parameters against the specification's.

A benchmark of steps that compute different things compares nothing: what fails here is not timed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusedstep import reference
from harness.cases import Case, Shapes
from harness.measure import TooLong
from harness.peers import Peer, Unavailable
from harness.peers._common import all_options

# Awkward sizes. bitsandbytes quantises from 4,096 elements on: the first two. torchao quantises the second of them, a
# multiple of 256.
TENSORS = ((4097,), (300, 64), (17,))
STEPS = 5
WARM = 2  # steps of the specification before, for peers that are given a state
GRADIENT = 1e-3
# An update has to be large against the rounding of parameters of about 1. SGD's default would make it 1e-6, a few ulp
# of float32; the others' make it 1e-3, too small for 16 bits only.
LR_SGD, LR_16 = 1e3, 0.1
# By rounding parameters and states: up to 2.5% of the update (Adagrad) in bfloat16, 1.1% in float16.
ROUNDING = {"bfloat16": 0.06, "float16": 0.03}

Array = NDArray[Any]


class Specified:
    """Parameters and states as the specification steps them; 16-bit parameters as float32."""

    def __init__(self, case: Case) -> None:
        self._case, self._generator, self.step = case, torch.Generator().manual_seed(0), 0
        self.dtype: torch.dtype = getattr(torch, case.dtype)
        self.params = [self.array(t) for t in self.draw(1.0)]
        starts = case.rule.spec.starts(all_options(case)).values()
        self.states = [[np.full_like(p, start) for start in starts] for p in self.params]

    def draw(self, scale: float = GRADIENT) -> list[torch.Tensor]:
        shapes = self._case.shapes.tensors
        return [(torch.randn(s, generator=self._generator) * scale).to(self.dtype) for s in shapes]

    def array(self, tensor: torch.Tensor) -> Array:
        array: Array = (tensor if self.dtype.itemsize > 2 else tensor.float()).cpu().numpy().copy()
        return array

    def advance(self, grads: list[torch.Tensor]) -> None:
        self.step += 1
        arrays, limit = [self.array(g) for g in grads], self._case.max_norm
        coefficient = 1.0 if limit is None else reference.clip_coefficient(reference.total_norm(arrays), limit)
        for i, grad in enumerate(arrays):
            self.params[i], *self.states[i] = self._case.rule.reference(
                self.params[i], grad, *self.states[i], step=self.step, clip_coef=coefficient
            )

    def in_torchs_format(self, params: list[Any]) -> dict[Any, dict[str, Any]]:
        """The states as a torch optimizer of these parameters has them."""
        rule = self._case.rule
        count = {"step": torch.tensor(float(self.step))} if rule.spec.has_step else {}
        arrays = [
            {k: torch.from_numpy(a.copy()).to(p.device) for k, a in zip(rule.states, states, strict=True)}
            for p, states in zip(params, self.states, strict=True)
        ]
        return {p: {**{k: v.clone() for k, v in count.items()}, **a} for p, a in zip(params, arrays, strict=True)}


def small(case: Case) -> Case:
    """The case on the tensors of the check, with a learning rate whose updates its dtype can show."""
    case = case.but(shapes=Shapes("check", "made for the check", TENSORS))
    lr = {"lr": LR_SGD} if case.rule.cls == "SGD" else {"lr": LR_16} if case.itemsize == 2 else {}
    return case.but(rule=replace(case.rule, options={**case.rule.options, **lr}))


def update_error(peer: Peer, case: Case) -> float:
    """The norm of the difference of both updates, relative to the specification's; 0 for equal bits.

    Peers go on from the state after ``WARM`` steps. One that cannot, whose ``fresh`` is True, starts from nothing. So
    does every peer with parameters of 16 bits, for there is no agreement on the type of their states.
    """
    case = small(case)
    specified = Specified(case)
    fresh = getattr(peer, "fresh", False) or case.itemsize == 2
    for _ in range(0 if fresh else WARM):
        specified.advance(specified.draw())
    start = [p.copy() for p in specified.params]
    params = [torch.nn.Parameter(torch.from_numpy(p.copy()).to(case.device, specified.dtype)) for p in start]
    grads = specified.draw()
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad.clone().to(case.device)
    contender = peer.make(case, params, {} if fresh else specified.in_torchs_format(params))
    made = STEPS
    if not all(map(np.array_equal, start, (specified.array(p.detach()) for p in params))):
        specified.advance(grads)  # making it was a step: of what a graph was captured from
        made -= 1
    for _ in range(made):
        grads = specified.draw()
        for p, grad in zip(params, grads, strict=True):
            assert p.grad is not None
            p.grad.copy_(grad)
        with np.errstate(all="ignore"):  # a peer in NumPy may divide by zero, as the others do in silence
            contender.step()
        specified.advance(grads)
    found = [specified.array(p.detach()) for p in params]
    if all(a.tobytes() == b.tobytes() for a, b in zip(found, specified.params, strict=True)):
        return 0.0

    def norm(some: list[Array], others: list[Array]) -> float:
        parts = (np.linalg.norm((a.astype(float) - b).ravel()) for a, b in zip(some, others, strict=True))
        return math.hypot(*map(float, parts))

    error = norm(found, specified.params) / norm(specified.params, start)
    return max(error, math.ulp(0.0)) if math.isfinite(error) else math.inf  # other bits of the same number: -0


def allowed(peer: Peer, case: Case) -> float:
    """The largest error that passes: the peer's, or with 16 bits that of rounding parameters and states."""
    return max(peer.tolerance, ROUNDING.get(case.dtype, 0.0))


def check(peer: Peer, case: Case) -> float:
    """The error of the update; Unavailable if it is too large, or the peer cannot do the case, or fails."""
    try:
        error, limit = update_error(peer, case), allowed(peer, case)
    except (Unavailable, TooLong):
        raise
    except Exception as error:  # peers raise whatever they like
        text = next((line for line in str(error).splitlines() if line.strip()), "no message").strip()
        raise Unavailable(f"fails: {type(error).__name__}: {text[:160]}") from error
    if error <= limit:
        return error
    why = f"update off by {error:.1%}, allowed is {limit:.1%}" if limit else f"other bits, update off by {error:.1e}"
    raise Unavailable(f"answer differs from the specification: {why}")
