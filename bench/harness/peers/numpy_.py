"""The step as it is commonly written by hand in NumPy: ufuncs one after the other, in place where that is natural.

NumPy reuses temporaries of an expression for large arrays, so ``out=`` would save little more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.cases import Case
from harness.peers import Contender, Unavailable
from harness.peers._common import all_options, on, steps_taken

Array = NDArray[Any]
State = dict[str, Array]


def sgd(p: Array, g: Array, s: State, *, step: int, lr: float, momentum: float, **_: float) -> None:
    if not s:
        p -= lr * g
        return
    b = s["momentum_buffer"]
    b *= momentum
    b += g
    p -= lr * b


def adagrad(p: Array, g: Array, s: State, *, step: int, lr: float, lr_decay: float, eps: float) -> None:
    s["sum"] += g * g
    p -= lr / (1 + (step - 1) * lr_decay) * g / (np.sqrt(s["sum"]) + eps)


def rmsprop(p: Array, g: Array, s: State, *, step: int, lr: float, alpha: float, eps: float, momentum: float) -> None:
    variance = s["square_avg"]
    variance *= alpha
    variance += (1 - alpha) * g * g
    if "grad_avg" in s:
        s["grad_avg"] *= alpha
        s["grad_avg"] += (1 - alpha) * g
        variance = variance - s["grad_avg"] ** 2
    update = g / (np.sqrt(variance) + eps)
    if "momentum_buffer" in s:
        s["momentum_buffer"] *= momentum
        s["momentum_buffer"] += update
        update = s["momentum_buffer"]
    p -= lr * update


def adam(p: Array, g: Array, s: State, *, step: int, lr: float, beta1: float, beta2: float, eps: float) -> None:
    m, v = s["exp_avg"], s["exp_avg_sq"]
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    if "max_exp_avg_sq" in s:
        v = np.maximum(s["max_exp_avg_sq"], v, out=s["max_exp_avg_sq"])
    p -= lr / (1 - beta1**step) * m / (np.sqrt(v / (1 - beta2**step)) + eps)


RULES = {"sgd": sgd, "adagrad": adagrad, "rmsprop": rmsprop, "adam": adam}


@dataclass(frozen=True)
class NumPy:
    name: str = "numpy"
    devices: tuple[str, ...] = ("cpu",)
    arrays: float = 2  # temporaries
    distribution: str | None = None
    tolerance: float = 1e-3

    def prepare(self) -> None: ...

    def make(self, case: Case, params: list[Any], state: dict[Any, dict[str, Any]]) -> Contender:
        on(case, "cpu")
        if case.dtype == "bfloat16":
            raise Unavailable("NumPy has no bfloat16")
        spec, given = case.rule.spec, all_options(case)
        if given.get("dampening") or given.get("nesterov") or given["maximize"] or spec.kernel not in RULES:
            raise Unavailable("not written in NumPy")
        rule, decoupled, hyper = RULES[spec.kernel], spec.is_decoupled(given), spec.hyper(case.rule.cls, given)
        lr, decay = hyper["lr"], given["weight_decay"]
        weights = [p.detach().numpy() for p in params]
        grads = [p.grad.numpy() for p in params]
        starts = spec.starts(given)
        states = [
            {k: state[p][k].numpy() if p in state else np.full_like(w, start) for k, start in starts.items()}
            for p, w in zip(params, weights, strict=True)
        ]
        count = steps_taken(state.get(params[0]))

        def step() -> None:
            nonlocal count
            count += 1
            if case.max_norm is not None:
                norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads))
                for g in grads:
                    g *= min(1.0, case.max_norm / (norm + 1e-6))
            for p, g, s in zip(weights, grads, states, strict=True):
                if decay and decoupled:
                    p *= 1 - lr * decay
                rule(p, g + decay * p if decay and not decoupled else g, s, step=count, **hyper)

        return Contender(step, lambda: [array for s in states for array in s.values()])


PEERS = [NumPy()]
