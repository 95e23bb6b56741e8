"""Trains a small character-level transformer twice from one seed: with fusedstep.torch and with torch.optim.

The text is the source of Python's standard library. Model, dropout, warm-up and cosine schedule, validation and early
stop are the same on both sides and know nothing of the optimizer, the only difference. fusedstep clips within its step,
torch with clip_grad_norm_. The two take turns, step by step, on the same batches and dropout masks. They round in
different orders: the losses agree to float32's precision at first, and drift apart as training amplifies that.

At the end: a table of losses and of the time of optimizer and clipping, and a plot of both loss curves.

Examples:
  python bench/train.py
  python bench/train.py --optimizer sgd --size tiny --steps 300
  python bench/train.py --size tiny --chars 5000 --steps 2000   # little text, soon overfitted: stops early
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sysconfig
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

import fusedstep.torch
from arguments import integer

MAX_NORM = 1.0
FEW = 20  # the first steps, before rounding is much amplified; the last ones, whose mean is the final loss
Batch = tuple[Tensor, Tensor]


class Size(NamedTuple):
    layers: int
    width: int
    heads: int
    context: int
    batch: int


SIZES = {"tiny": Size(2, 64, 2, 64, 12), "small": Size(4, 128, 4, 64, 12), "medium": Size(6, 256, 8, 96, 12)}

# Class, options of both sides, and how torch runs it fastest on a CPU, where it has no fused RMSprop.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], dict[str, bool]]] = {
    "sgd": ("SGD", {"lr": 0.3, "momentum": 0.9, "nesterov": True}, {"fused": True}),
    "adagrad": ("Adagrad", {"lr": 0.02}, {"fused": True}),
    "rmsprop": ("RMSprop", {"lr": 5e-4, "alpha": 0.95, "momentum": 0.9}, {"foreach": True}),
    "adam": ("Adam", {"lr": 3e-3, "betas": (0.9, 0.98)}, {"fused": True}),
    "adamw": ("AdamW", {"lr": 3e-3, "betas": (0.9, 0.98), "weight_decay": 0.1}, {"fused": True}),
}


def read_text(limit: int) -> Tensor:
    """Up to ``limit`` characters of the standard library's modules, in an order that only their names decide."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    if not files:
        raise SystemExit(f"no source files of the standard library in {folder}")
    random.Random(0).shuffle(files)
    text = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    return torch.frombuffer(bytearray(text[:limit], "ascii", "replace"), dtype=torch.uint8).long()


def windows(text: Tensor, starts: Tensor, context: int) -> Batch:
    """The characters from each start on, and the one that follows each of them."""
    chars = text[starts[:, None] + torch.arange(context + 1)]
    return chars[:, :-1], chars[:, 1:]


def batches(text: Tensor, size: Size, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield windows(text, torch.randint(len(text) - size.context, (size.batch,), generator=generator), size.context)


class CharTransformer(nn.Module):
    def __init__(self, size: Size, vocabulary: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, size.width)
        self.positions = nn.Parameter(0.3 * torch.randn(size.context, size.width))
        layer = partial(nn.TransformerEncoderLayer, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(layer(size.width, size.heads, 4 * size.width, dropout) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(size.context))

    def forward(self, chars: Tensor, following: Tensor) -> Tensor:
        """The mean cross-entropy of the following characters."""
        x = self.characters(chars) + self.positions
        for layer in self.layers:
            x = layer(x, src_mask=self.mask, is_causal=True)
        return nn.functional.cross_entropy(self.head(self.norm(x)).flatten(0, 1), following.flatten())


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over a tenth of the steps, then a cosine down to a tenth."""
    warm_up = max(1, steps // 10)
    done = (step - warm_up) / max(1, steps - warm_up)
    return (step + 1) / warm_up if step < warm_up else 0.1 + 0.45 * (1 + math.cos(math.pi * done))


class Measured(NamedTuple):
    loss: float
    norm: float  # of the gradients, before clipping
    update: float  # milliseconds of optimizer and clipping
    whole: float  # milliseconds of the training step


class Run:
    """A model, its optimizer and schedule, and what was measured."""

    def __init__(self, title: str, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.title, self.model, self.optimizer = title, model, optimizer
        self.parameters = list(model.parameters())
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate, steps=steps))
        self.steps: list[Measured] = []
        self.validation: dict[int, float] = {}

    def update(self) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
        self.optimizer.step()
        return norm

    def step(self, batch: Batch) -> None:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.model(*batch)
        loss.backward()
        before = time.perf_counter()
        norm = self.update()
        after = time.perf_counter()
        self.schedule.step()
        end = time.perf_counter()
        self.steps.append(Measured(loss.item(), norm.item(), 1e3 * (after - before), 1e3 * (end - start)))

    @torch.no_grad()
    def validate(self, batch: Batch) -> None:
        self.model.eval()
        self.validation[len(self.steps)] = self.model(*batch).item()
        self.model.train()

    def rising(self, patience: int) -> bool:
        """Whether each of the last ``patience`` validations was worse than the best one before them."""
        losses = list(self.validation.values())
        return len(losses) > patience and min(losses[-patience:]) > min(losses[:-patience])


class FusedRun(Run):
    def update(self) -> Tensor:
        self.optimizer.step()  # clips as well
        return self.optimizer.total_norm


def make_runs(args: argparse.Namespace) -> list[Run]:
    torch.manual_seed(args.seed)
    ours = CharTransformer(SIZES[args.size])
    theirs = copy.deepcopy(ours)
    name, options, fastest = OPTIMIZERS[args.optimizer]
    how = ", ".join(f"{key}={value}" for key, value in fastest.items())
    fused = getattr(fusedstep.torch, name)(ours.parameters(), **options, max_norm=MAX_NORM)
    peer = getattr(torch.optim, name)(theirs.parameters(), **options, **fastest)
    return [
        FusedRun(f"fusedstep.torch\n{name}\n(max_norm={MAX_NORM})", ours, fused, args.steps),
        Run(f"torch.optim\n{name}({how})\n+ clip_grad_norm_", theirs, peer, args.steps),
    ]


def train(runs: list[Run], args: argparse.Namespace, console: Console) -> str:
    """Train both, in turns; how it ended."""
    size, text = SIZES[args.size], read_text(args.chars)
    training, held_out = text.tensor_split([len(text) * 9 // 10])
    validation = windows(held_out, torch.linspace(0, len(held_out) - size.context - 1, 64).long(), size.context)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(args.optimizer, total=args.steps)
        for number, batch in enumerate(islice(batches(training, size, args.seed), args.steps), 1):
            dropout = torch.get_rng_state()
            for run in runs if number % 2 else runs[::-1]:
                torch.set_rng_state(dropout)
                run.step(batch)
            losses = " | ".join(f"{run.steps[-1].loss:.3f}" for run in runs)
            progress.update(task, advance=1, description=f"{args.optimizer}: loss fusedstep | torch  {losses}")
            if number % args.validate_every == 0 or number == args.steps:
                for run in runs:
                    run.validate(validation)
                if any(run.rising(args.patience) for run in runs):
                    return f"stopped after step {number}: validation loss rises"
    return f"{args.steps} steps"


def print_table(runs: list[Run], title: str, console: Console) -> None:
    losses, _, updates, wholes = zip(*(zip(*run.steps, strict=True) for run in runs), strict=True)
    apart = [abs(a - b) for a, b in zip(*losses, strict=True)]
    final = [fmean(values[-FEW:]) for values in losses]
    validation = [list(run.validation.values())[-1] if run.validation else math.nan for run in runs]  # nan: interrupted
    update, whole = [median(times) for times in updates], [median(times) for times in wholes]
    clipped = [sum(step.norm > MAX_NORM for step in run.steps) for run in runs]
    rows = [
        (f"training loss, last {FEW}", *(f"{v:.4f}" for v in final), f"{final[0] - final[1]:+.4f}"),
        ("validation loss", *(f"{v:.4f}" for v in validation), f"{validation[0] - validation[1]:+.4f}"),
        (f"largest gap, first {FEW}", "", "", f"{max(apart[:FEW]):.1e}"),
        ("largest gap, all steps", "", "", f"{max(apart):.1e}"),
        ("steps that were clipped", *map(str, clipped), ""),
        ("optimizer + clip, median", *(f"{v:.3f} ms" for v in update), f"{update[1] / update[0]:.1f}x"),
        ("training step, median", *(f"{v:.1f} ms" for v in whole), f"{whole[1] / whole[0]:.2f}x"),
        ("optimizer + clip, share", *(f"{u / w:.2%}" for u, w in zip(update, whole, strict=True)), ""),
    ]
    table = Table("", title=title)
    for header in (*(run.title for run in runs), ""):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def draw(runs: list[Run], title: str, path: Path) -> None:
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    curves, difference = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    losses = [[step.loss for step in run.steps] for run in runs]
    steps = range(1, len(losses[0]) + 1)
    styles = ("fusedstep.torch", "tab:blue", "-", "o"), ("torch.optim", "tab:orange", "--", "x")
    for run, values, (name, color, line, marker) in zip(runs, losses, styles, strict=True):
        curves.plot(steps, values, line, color=color, linewidth=1.2, label=f"{name}, training")
        x, y = list(run.validation), list(run.validation.values())
        curves.plot(x, y, marker, color=color, zorder=3, label=f"{name}, validation")
    difference.plot(steps, [abs(a - b) for a, b in zip(*losses, strict=True)], ".", color="tab:gray", markersize=3)
    difference.set_yscale("symlog", linthresh=1e-7)  # has a place for 0, where the losses are equal
    difference.set(xlabel="step", ylabel="gap of the\ntraining losses")
    curves.set(title=title, ylabel="loss per character, nats")
    curves.legend()
    for axes in (curves, difference):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def image(text: str) -> Path:
    path = Path(text)
    if path.suffix[1:] not in (known := Figure().canvas.get_supported_filetypes()):
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of: {', '.join(known)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {str(path.parent)!r}")
    return path


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    count = integer(1, 1_000_000)
    for flag, what, options in (
        ("--optimizer", "", {"choices": OPTIMIZERS, "default": "adamw"}),
        ("--size", "of the model, ", {"choices": SIZES, "default": "small"}),
        ("--steps", "", {"type": count, "default": 360}),
        ("--chars", "of text, ", {"type": integer(2000, 10**8), "default": 10**6}),
        ("--validate-every", "number of steps, ", {"type": count, "default": 40}),
        ("--patience", "validations without a new best before it stops, ", {"type": count, "default": 3}),
        ("--seed", "", {"type": integer(0, 2**31 - 1), "default": 0}),
        ("--threads", "of both sides, ", {"type": integer(1, 256), "default": torch.get_num_threads()}),
        ("--plot", "", {"type": image, "default": Path("train.png"), "metavar": "PATH"}),
    ):
        if "type" in options:
            options.setdefault("metavar", "N")
        parser.add_argument(flag, help=what + "default: %(default)s", **options)
    return parser.parse_args()


def main() -> int:
    args, console = parse(), Console()
    torch.set_num_threads(args.threads)  # fusedstep follows
    runs = make_runs(args)
    try:
        end, status = train(runs, args, console), 0
    except KeyboardInterrupt:
        end, status = "", 130
    done = min(len(run.steps) for run in runs)
    if status:
        end = f"interrupted after {done} steps"
    if status and done < 3:
        console.print(f"{end}: too few to report")
        return status
    for run in runs:
        del run.steps[done:]  # an interrupt comes between the two
    parameters = runs[0].parameters
    model = f"{args.size} transformer, {sum(p.numel() for p in parameters):,} parameters in {len(parameters)} tensors"
    print_table(runs, f"{model}\n{end}, threads: {args.threads}", console)
    draw(runs, f"{OPTIMIZERS[args.optimizer][0]}, {model}", args.plot)
    console.print(f"loss curves: {args.plot}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
