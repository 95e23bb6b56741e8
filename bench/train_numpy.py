"""Trains a small network on scikit-learn's digits, in NumPy alone: fusedstep.numpy against updates written in NumPy.

fusedstep  opt.step(grads), which clips the gradients to a norm of 1 within the step.
reference  The same operations one by one, by fusedstep.reference. It is given the gradients that fusedstep is given,
           and must arrive at the same bits in norms, parameters and state: compared after every epoch, else exit 1.
usual      The update as it is commonly written by hand. It rounds differently, and trains on its own.

Examples:
  python bench/train_numpy.py
  python bench/train_numpy.py --optimizer sgd --epochs 10
  python bench/train_numpy.py --hidden 4000 --steps 100
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import fusedstep.numpy
from arguments import integer
from fusedstep import reference

MAX_NORM = 1.0
BATCH = 64
Array = NDArray[Any]
State = dict[str, Array]


def new_parameters(hidden: int, rng: np.random.Generator) -> list[Array]:
    layers = ((rng.normal(0, math.sqrt(2 / m), (m, n)), np.zeros(n)) for m, n in ((64, hidden), (hidden, 10)))
    return [array.astype(np.float32) for layer in layers for array in layer]


def forward(params: list[Array], x: Array) -> tuple[Array, Array]:
    w1, b1, w2, b2 = params
    hidden = np.maximum(x @ w1 + b1, 0)
    return hidden, hidden @ w2 + b2


def gradients(params: list[Array], x: Array, y: Array) -> list[Array]:
    """Of the mean cross-entropy."""
    hidden, logits = forward(params, x)
    error = np.exp(logits - logits.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ params[2].T) * (hidden > 0)
    return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def sgd(p: Array, g: Array, s: State, *, step: int, lr: float, momentum: float) -> None:
    s["momentum_buffer"] *= momentum
    s["momentum_buffer"] += g
    p -= lr * s["momentum_buffer"]


def adagrad(p: Array, g: Array, s: State, *, step: int, lr: float, eps: float) -> None:
    s["sum"] += g * g
    p -= lr * g / (np.sqrt(s["sum"]) + eps)


def rmsprop(p: Array, g: Array, s: State, *, step: int, lr: float, alpha: float, eps: float) -> None:
    s["square_avg"] *= alpha
    s["square_avg"] += (1 - alpha) * g * g
    p -= lr * g / (np.sqrt(s["square_avg"]) + eps)


def adam(p: Array, g: Array, s: State, *, step: int, lr: float, beta1: float, beta2: float, eps: float) -> None:
    s["exp_avg"] *= beta1
    s["exp_avg"] += (1 - beta1) * g
    s["exp_avg_sq"] *= beta2
    s["exp_avg_sq"] += (1 - beta2) * g * g
    m, v = s["exp_avg"] / (1 - beta1**step), s["exp_avg_sq"] / (1 - beta2**step)
    p -= lr * m / (np.sqrt(v) + eps)


def adamw(p: Array, g: Array, s: State, *, lr: float, weight_decay: float, **options: Any) -> None:
    p *= 1 - lr * weight_decay
    adam(p, g, s, lr=lr, **options)


class Rule(NamedTuple):
    cls: type[fusedstep.numpy.Optimizer]
    reference: Callable[..., tuple[Array, ...]]
    usual: Callable[..., None]
    states: tuple[str, ...]
    lr: float
    options: dict[str, float]


MOMENTS, BETAS = ("exp_avg", "exp_avg_sq"), {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
DECAY, ROOT = {"weight_decay": 0.01}, {"alpha": 0.99, "eps": 1e-8}
RULES = {
    "sgd": Rule(fusedstep.numpy.SGD, reference.sgd, sgd, ("momentum_buffer",), 0.05, {"momentum": 0.9}),
    "adagrad": Rule(fusedstep.numpy.Adagrad, reference.adagrad, adagrad, ("sum",), 0.02, {"eps": 1e-10}),
    "rmsprop": Rule(fusedstep.numpy.RMSprop, reference.rmsprop, rmsprop, ("square_avg",), 1e-3, ROOT),
    "adam": Rule(fusedstep.numpy.Adam, reference.adam, adam, MOMENTS, 2e-3, BETAS),
    "adamw": Rule(fusedstep.numpy.AdamW, reference.adamw, adamw, MOMENTS, 2e-3, {**BETAS, **DECAY}),
}


class Side:
    """Parameters, optimizer state and an update of both; gradient norms and milliseconds of its steps."""

    def __init__(self, rule: Rule, params: list[Array]) -> None:
        self.rule, self.params = rule, [p.copy() for p in params]
        self.state: list[State] = [{name: np.zeros_like(p) for name in rule.states} for p in params]
        self.norms: list[float] = []
        self.times: list[float] = []

    def step(self, grads: list[Array], lr: float) -> None:
        start = time.perf_counter()
        norm = self.update(grads, lr, len(self.norms) + 1)
        self.times.append(1e3 * (time.perf_counter() - start))
        self.norms.append(norm)

    def update(self, grads: list[Array], lr: float, step: int) -> float:
        """One step, numbered from 1; the norm of the gradients before clipping."""
        raise NotImplementedError


class Fused(Side):
    def __init__(self, rule: Rule, params: list[Array]) -> None:
        super().__init__(rule, params)
        options: dict[str, Any] = dict(rule.options)
        if "beta1" in options:
            options["betas"] = options.pop("beta1"), options.pop("beta2")
        self.optimizer = rule.cls(self.params, max_norm=MAX_NORM, **options)
        self.state = self.optimizer.state

    def update(self, grads: list[Array], lr: float, step: int) -> float:
        return self.optimizer.step(grads, lr=lr)


class Reference(Side):
    def update(self, grads: list[Array], lr: float, step: int) -> float:
        norm = reference.total_norm(grads)
        common = {"step": step, "lr": lr, "clip_coef": reference.clip_coefficient(norm, MAX_NORM)}
        for p, g, state in zip(self.params, grads, self.state, strict=True):
            p[...], *new = self.rule.reference(p, g, *state.values(), **common, **self.rule.options)
            state.update(zip(state, new, strict=True))
        return norm


class Usual(Side):
    def update(self, grads: list[Array], lr: float, step: int) -> float:
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads))
        coefficient = min(1.0, MAX_NORM / (norm + 1e-6))
        for p, g, state in zip(self.params, grads, self.state, strict=True):
            self.rule.usual(p, g * coefficient, state, step=step, lr=lr, **self.rule.options)
        return norm


def same_bits(one: Side, other: Side) -> bool:
    arrays = ([*side.params, *(s[name] for s in side.state for name in side.rule.states)] for side in (one, other))
    bits = ([array.view(np.uint32) for array in listed] for listed in arrays)  # tells 0 from -0
    return one.norms == other.norms and all(map(np.array_equal, *bits))


def train(sides: list[Side], data: list[Array], steps: int, rng: np.random.Generator, same: list[bool]) -> None:
    """Append to ``same``, after every epoch and at the end, whether fusedstep and reference have the same bits."""
    x, _, y, _ = data
    fused, spelled_out, usual = sides
    per_epoch = len(x) // BATCH
    for step in track(range(steps), "training"):
        if step % per_epoch == 0:
            order = rng.permutation(len(x))
        batch = order[step % per_epoch * BATCH :][:BATCH]
        lr = fused.rule.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        # Once for two: a BLAS may round differently for another alignment of the same numbers.
        grads = gradients(fused.params, x[batch], y[batch])
        fused.step(grads, lr)
        spelled_out.step(grads, lr)
        usual.step(gradients(usual.params, x[batch], y[batch]), lr)
        if (step + 1) % per_epoch == 0 or step + 1 == steps:
            same.append(same_bits(fused, spelled_out))


def print_table(sides: list[Side], data: list[Array], title: str, console: Console) -> None:
    _, x, _, y = data
    table = Table("", title=title)
    for header in ("validation accuracy", "update + clip, median", "relative time"):
        table.add_column(header, justify="right")
    times = [median(side.times) for side in sides]
    for name, side, ms in zip(("fusedstep", "reference", "usual"), sides, times, strict=True):
        accuracy = np.mean(forward(side.params, x)[1].argmax(axis=1) == y)
        table.add_row(name, f"{accuracy:.2%}", f"{ms:.3f} ms", f"{ms / times[0]:.1f}x")
    console.print(table)


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    count = {"type": integer(1, 1_000_000), "metavar": "N"}
    parser.add_argument("--optimizer", choices=RULES, default="adamw", help="default: %(default)s")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", **count, default=30, help="default: %(default)s")
    length.add_argument("--steps", **count, help="instead of epochs")
    parser.add_argument("--hidden", **count, default=1024, help="units, default: %(default)s")
    parser.add_argument("--seed", type=integer(0, 2**31 - 1), default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=integer(1, 256), metavar="N", help="of fusedstep, default: automatic")
    return parser.parse_args()


def main() -> int:
    args, console = parse(), Console()
    fusedstep.set_num_threads(args.threads)
    rule, rng = RULES[args.optimizer], np.random.default_rng(args.seed)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    data = train_test_split(x, y, test_size=0.2, random_state=args.seed, stratify=y)
    params = new_parameters(args.hidden, rng)
    sides = [kind(rule, params) for kind in (Fused, Reference, Usual)]
    steps, status = args.steps or args.epochs * (len(data[0]) // BATCH), 0
    same: list[bool] = []
    try:
        # Products of this size gain nothing from BLAS threads, which would keep the cores busy while they wait.
        with threadpool_limits(1, user_api="blas"):
            train(sides, data, steps, rng, same)
    except KeyboardInterrupt:
        status = 130
    if done := len(sides[-1].times):
        model = f"64-{args.hidden}-10 network, {sum(p.size for p in params):,} parameters"
        threads = f"{done} steps, threads of fusedstep: up to {fusedstep.num_threads()}"
        print_table(sides, data, f"{rule.cls.__name__}, {model}\n{threads}", console)
    verdict = "no" if not all(same) else "yes" if same else "not compared yet"
    console.print(f"identical bits: {verdict} (fusedstep and reference, compared {len(same)} times)")
    return status if all(same) else 1


if __name__ == "__main__":
    raise SystemExit(main())
