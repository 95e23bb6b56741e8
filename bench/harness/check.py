"""Is a peer's answer right? Its update of small parameters against the specification's.

A benchmark of steps that compute different things compares nothing: what fails here is not timed.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusedstep import reference
from harness.cases import Case, Shapes
from harness.measure import TooLong, mask_of
from harness.peers import Peer, Unavailable, first_line

# Awkward sizes. bitsandbytes quantises from 4,096 elements on: the first two. torchao quantises the second of them, a
# multiple of 256.
TENSORS = ((4097,), (300, 64), (17,))
STEPS = 5
WARM = 2  # steps of the specification before, for peers that are given a state
GRADIENT = 1e-3
# An update has to be large against the rounding of parameters of about 1. The default of SGD would make it 1e-6, a few
# ulp of float32, that of ASGD 1e-5, that of Lion 1e-4; the others make it 1e-3, too small for 16 bits only.
LR = {"SGD": 1e3, "ASGD": 1e3, "Lion": 1e-2}
LR_16 = {"SGD": 1e3, "ASGD": 1e3, "Adadelta": 1e2}  # Adadelta's first updates are smaller still
ROUNDING = 0.06  # by rounding parameters and states of 16 bits in other places: up to 2.5% of the update (Adagrad)

Array = NDArray[Any]


def array(tensor: torch.Tensor) -> Array:
    """A copy in the same format: NumPy has no bfloat16, ml_dtypes has."""
    tensor = tensor.detach().cpu().clone()
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(importlib.import_module("ml_dtypes").bfloat16)


def wide(some: Array) -> Array:
    return some.astype(np.float32) if some.itemsize == 2 else some


class Specified:
    """Parameters and states as the specification steps them; of clipping alone the gradients, in their place."""

    def __init__(self, case: Case) -> None:
        self._case, self._generator, self.step = case, torch.Generator().manual_seed(0), 0
        self.params = [array(t) for t in self.draw(1.0)]
        # What a mask leaves out is zero already: else the update would be mostly that.
        self.masks = [mask_of(p.shape).numpy() for p in self.params]
        if case.ride in ("mask", "nonzero"):
            self.params = [p * m for p, m in zip(self.params, self.masks, strict=True)]
        low = array(torch.empty(0, dtype=case.state_dtype)).dtype
        spec = case.rule.spec
        starts = spec.starts(case.rule.options)
        self.states: list[dict[str, Array]] = [
            {name: np.full(p.shape, start, low) for name, start in starts.items()}
            | {n: np.array(start, np.float32) for n, start in spec.number_starts(case.rule.options).items()}
            for p in self.params
        ]

    def draw(self, scale: float = GRADIENT) -> list[torch.Tensor]:
        shapes = self._case.shapes.tensors
        return [(torch.randn(s, generator=self._generator) * scale).to(self._case.torch_dtype) for s in shapes]

    def advance(self, grads: list[torch.Tensor]) -> None:
        self.step += 1
        arrays, limit, rule = [array(g) for g in grads], self._case.max_norm, self._case.rule
        norm = reference.total_norm([wide(a) for a in arrays])
        coefficient = 1.0 if limit is None else reference.clip_coefficient(norm, limit)
        for i, (grad, state) in enumerate(zip(arrays, self.states, strict=True)):
            if rule.clips_alone:
                self.params[i] = reference.clip(wide(grad), clip_coef=coefficient)[0].astype(grad.dtype)
            else:
                ride = {k: v for k, v in self._case.ride_options.items() if k in ("mask", "l1")}
                ride |= {"mask": self.masks[i]} if self._case.ride == "mask" else {}
                self.params[i] = rule.step(self.params[i], grad, state, self.step, coefficient, tensor=i, **ride)

    def in_torchs_format(self, params: list[Any]) -> dict[Any, dict[str, Any]]:
        """The states as a torch optimizer of these parameters has them."""
        found: dict[Any, dict[str, Any]] = {}
        for p, state in zip(params, self.states, strict=True):
            found[p] = {k: torch.from_numpy(a.copy()).to(p.device if a.ndim else "cpu") for k, a in state.items()}
            if self._case.rule.spec.has_step:
                found[p]["step"] = torch.tensor(float(self.step))
        return found


def small(case: Case) -> Case:
    """The case on the tensors of the check, with a learning rate whose updates its dtype can show."""
    case = case.but(shapes=Shapes("check", "made for the check", TENSORS))
    if case.rule.clips_alone:
        return case
    rates, default = (LR_16, 0.1) if case.torch_dtype.itemsize == 2 else (LR, case.rule.options["lr"])
    rate = rates.get(case.rule.cls, default)
    return case.but(rule=replace(case.rule, chosen={**case.rule.chosen, "lr": rate}))


def update_error(peer: Peer, case: Case) -> float:
    """The norm of the difference of both updates, relative to the specification's; 0 for equal bits.

    Peers go on from the state after ``WARM`` steps. One that cannot, whose ``fresh`` is True, starts from nothing. So
    does every peer with 16 bits, for there is no agreement on the type of states.
    """
    case = small(case)
    specified = Specified(case)
    fresh = getattr(peer, "fresh", False) or case.low
    for _ in range(0 if fresh else WARM):
        specified.advance(specified.draw())
    start = [p.copy() for p in specified.params]
    params = [torch.nn.Parameter(torch.from_numpy(wide(p).copy()).to(case.device, case.torch_dtype)) for p in start]
    grads = specified.draw()
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad.clone().to(case.device)
    contender = peer.make(case, params, {} if fresh else specified.in_torchs_format(params))
    made = STEPS
    if not all(map(np.array_equal, start, map(array, params))):
        specified.advance(grads)  # making it was a step: of what a graph was captured from
        made -= 1
    for _ in range(made):
        grads = specified.draw()
        for p, grad in zip(params, grads, strict=True):
            assert p.grad is not None
            p.grad.copy_(grad)
        contender.step()
        specified.advance(grads)
    found = [array(p) for p in params]
    if case.rule.clips_alone:
        found, start = [array(p.grad) for p in params], [array(g) for g in grads]
    if all(a.tobytes() == b.tobytes() for a, b in zip(found, specified.params, strict=True)):
        return 0.0

    def norm(some: list[Array], others: list[Array]) -> float:
        parts = (np.linalg.norm((a.astype(float) - b.astype(float)).ravel()) for a, b in zip(some, others, strict=True))
        return math.hypot(*map(float, parts))

    error = norm(found, specified.params) / norm(specified.params, start)
    return max(error, math.ulp(0.0)) if math.isfinite(error) else math.inf  # other bits of the same number: -0


def allowed(peer: Peer, case: Case) -> float:
    """The largest error that passes: the peer's, or with 16 bits that of rounding; none where bits have to be equal."""
    return max(peer.tolerance, ROUNDING) if case.low and peer.tolerance else peer.tolerance


def check(peer: Peer, case: Case) -> float:
    """The error of the update; Unavailable if it is too large, or the peer cannot do the case, or fails."""
    try:
        error, limit = update_error(peer, case), allowed(peer, case)
    except (Unavailable, TooLong):
        raise
    except Exception as error:  # peers raise whatever they like
        raise Unavailable(f"fails: {first_line(error)}") from error
    if error <= limit:
        return error
    why = f"update off by {error:.1%}, allowed is {limit:.1%}" if limit else f"other bits, update off by {error:.1e}"
    raise Unavailable(f"answer differs from the specification: {why}")
