"""Trains a small network on scikit-learn's digits, in NumPy alone: fusedstep.numpy against its specification.

fusedstep  opt.step(grads), which clips the gradients to a norm of 1 within the step.
reference  The same operations one by one, by fusedstep.reference. It is given the gradients that fusedstep is given,
           and must arrive at the same bits in norms, parameters and state: compared after every epoch, else exit 1.

Examples:
  python examples/train_numpy.py
  python examples/train_numpy.py --optimizer sgd --options lr=0.05 momentum=0.9 --epochs 10
  python examples/train_numpy.py --hidden 4000 --steps 100
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import fusedstep.numpy
from fusedstep import reference
from fusedstep.rules import Rule
from options import RULES, add_to, chosen, integer

MAX_NORM = 1.0
BATCH = 64
Array = NDArray[Any]


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


class Side:
    """Parameters, their state and an update of both; gradient norms and milliseconds of its steps."""

    def __init__(self, rule: type[Rule], options: dict[str, Any], params: list[Array]) -> None:
        self.rule, self.options = rule, {**rule.defaults, **options}
        self.params = [p.copy() for p in params]
        self.optimizer = fusedstep.numpy.get(rule.name())(self.params, **options, max_norm=MAX_NORM)
        self.state = self.optimizer.state
        self.norms: list[float] = []
        self.times: list[float] = []

    def step(self, grads: list[Array], lr: float) -> None:
        start = time.perf_counter()
        norm = self.update(grads, lr, len(self.norms) + 1)
        self.times.append(1e3 * (time.perf_counter() - start))
        self.norms.append(norm)

    def update(self, grads: list[Array], lr: float, step: int) -> float:
        """One step, numbered from 1; the norm of the gradients before clipping."""
        return self.optimizer.step(grads, lr=lr)


class Reference(Side):
    """Starts from the state of an optimizer, which is never asked for a step."""

    def update(self, grads: list[Array], lr: float, step: int) -> float:
        norm = reference.total_norm(grads)
        names = self.rule.state_keys(self.options)
        numbers = {**self.rule.specified("", {**self.options, "lr": lr}), "step": step}
        numbers["clip_coef"] = reference.clip_coefficient(norm, MAX_NORM)
        specified = getattr(reference, self.rule.name())
        for p, g, state in zip(self.params, grads, self.state, strict=True):
            given = {name: state[name] for name in names}
            p[...], *new = specified(p, g, **given, **numbers)
            state.update(zip(names, new, strict=True))
        return norm


def same_bits(one: Side, other: Side) -> bool:
    names = one.rule.state_keys(one.options)
    pairs = list(zip(one.params, other.params, strict=True))
    pairs += [(a[n], b[n]) for a, b in zip(one.state, other.state, strict=True) for n in names]
    return one.norms == other.norms and all(a.tobytes() == b.tobytes() for a, b in pairs)  # tells 0 from -0


def train(sides: list[Side], data: list[Array], steps: int, rng: np.random.Generator, same: list[bool]) -> None:
    """Append to ``same``, after every epoch and at the end, whether fusedstep and reference have the same bits."""
    x, _, y, _ = data
    fused, spelled_out = sides
    per_epoch = len(x) // BATCH
    for step in track(range(steps), "training"):
        if step % per_epoch == 0:
            order = rng.permutation(len(x))
        batch = order[step % per_epoch * BATCH :][:BATCH]
        lr = fused.options["lr"] * 0.5 * (1 + math.cos(math.pi * step / steps))
        # Once for both: a BLAS may round differently for another alignment of the same numbers.
        grads = gradients(fused.params, x[batch], y[batch])
        fused.step(grads, lr)
        spelled_out.step(grads, lr)
        if (step + 1) % per_epoch == 0 or step + 1 == steps:
            same.append(same_bits(fused, spelled_out))


def print_table(sides: list[Side], data: list[Array], title: str, console: Console) -> None:
    _, x, _, y = data
    table = Table("", title=title)
    for header in ("validation accuracy", "update + clip, median", "relative time"):
        table.add_column(header, justify="right")
    times = [median(side.times) for side in sides]
    for name, side, ms in zip(("fusedstep", "reference"), sides, times, strict=True):
        accuracy = np.mean(forward(side.params, x)[1].argmax(axis=1) == y)
        table.add_row(name, f"{accuracy:.2%}", f"{ms:.3f} ms", f"{ms / times[0]:.1f}x")
    console.print(table)


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    count = {"type": integer(1, 1_000_000), "metavar": "N"}
    add_to(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", **count, default=30, help="default: %(default)s")
    length.add_argument("--steps", **count, help="instead of epochs")
    parser.add_argument("--hidden", **count, default=1024, help="units, default: %(default)s")
    parser.add_argument("--seed", type=integer(0, 2**31 - 1), default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=integer(1, 256), metavar="N", help="of fusedstep, default: automatic")
    args = parser.parse_args()
    args.chosen = chosen(parser, args)
    return args


def main() -> int:
    args, console = parse(), Console()
    fusedstep.set_num_threads(args.threads)
    rule, rng = RULES[args.optimizer], np.random.default_rng(args.seed)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    data = train_test_split(x, y, test_size=0.2, random_state=args.seed, stratify=y)
    params = new_parameters(args.hidden, rng)
    sides = [kind(rule, args.chosen, params) for kind in (Side, Reference)]
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
        print_table(sides, data, f"{rule.__name__}, {model}\n{threads}", console)
    verdict = "no" if not all(same) else "yes" if same else "not compared yet"
    console.print(f"identical bits: {verdict} (fusedstep and reference, compared {len(same)} times)")
    return status if all(same) else 1


if __name__ == "__main__":
    raise SystemExit(main())
