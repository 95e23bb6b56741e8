"""Trains small models twice from one seed: with fusedstep.torch and with torch.optim, or with pytorch_optimizer.

transformer  on the characters of the source of Python's standard library
convnet      residual, with batch normalisation, on scikit-learn's digits
embedding    a word predictor on the same source: large tables, of which a step uses few rows and updates all

Model, dropout, warm-up and cosine schedule, validation and early stop are the same on both sides and know nothing of
the optimizer, the only difference. fusedstep clips within its step, the other with clip_grad_norm_. The two take turns,
step by step, on the same batches and dropout masks. They round in different orders: the losses agree to float32's
precision at first, and drift apart as training amplifies that.

With --optimizer all every optimizer trains the model, each beside torch's class or pytorch_optimizer's. The table has
their losses.

With --dtype the model has parameters and gradients of 16 bits. fusedstep keeps its state in float32 then, or as
--state-dtype says; torch keeps it in the dtype of the parameters. A third model is trained beside them: by fusedstep,
with everything in float32.

At the end: a table of losses and of the time of optimizer and clipping, and a plot of the loss curves.

Examples:
  python examples/train.py
  python examples/train.py --model all --peer default
  python examples/train.py --model all --dtype bfloat16 --state-dtype bfloat16
  python examples/train.py --optimizer all --size tiny --steps 300
  python examples/train.py --optimizer sgd --options lr=0.3 momentum=0.9 nesterov=true --size tiny --steps 300
  python examples/train.py --size tiny --chars 5000 --steps 2000   # little text, soon overfitted: stops early
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

import fusedstep.torch
from fusedstep import _core
from models import MODELS, SIZES, Batch
from options import RULES, add_formats, add_to, chosen, integer
from originals import PEERS, has, original

MAX_NORM = 1.0
FEW = 20  # the first steps, before rounding is much amplified; the last ones, whose mean is the final loss


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over a tenth of the steps, then a cosine down to a tenth."""
    warm_up = max(1, steps // 10)
    done = (step - warm_up) / max(1, steps - warm_up)
    return (step + 1) / warm_up if step < warm_up else 0.1 + 0.45 * (1 + math.cos(math.pi * done))


class Measured(NamedTuple):
    loss: float
    norm: float  # of the gradients, before clipping
    update: float  # seconds of optimizer and clipping
    whole: float  # seconds of the training step


class Run:
    """A model, its optimizer and schedule, and what was measured."""

    def __init__(self, name: str, title: str, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.name, self.title, self.model, self.optimizer = name, title, model, optimizer
        self.parameters = list(model.parameters())
        self.waits, self.dtype = self.parameters[0].is_cuda, self.parameters[0].dtype
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate, steps=steps))
        self.steps: list[Measured] = []
        self.validation: dict[int, float] = {}

    def update(self) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
        self.optimizer.step()
        return norm

    def now(self) -> float:
        """The time when all that was asked for so far is done, on a GPU as well."""
        if self.waits:
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(self, batch: Batch) -> None:
        start = self.now()
        self.optimizer.zero_grad()
        loss = self.model(*batch)
        loss.backward()
        before = self.now()
        norm = self.update()
        after = self.now()
        self.schedule.step()
        end = self.now()
        self.steps.append(Measured(loss.item(), norm.item(), after - before, end - start))

    def final_loss(self) -> float:
        return fmean(step.loss for step in self.steps[-FEW:])

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


def make_runs(args: argparse.Namespace, model: str) -> list[Run]:
    torch.manual_seed(args.seed)
    first = MODELS[model].make(MODELS[model].sizes[args.size]).to(args.device)
    name = RULES[args.optimizer].__name__

    def fused(dtype: str, **state: str) -> Run:
        own = copy.deepcopy(first).to(getattr(torch, dtype))
        optimizer = fusedstep.torch.get(name)(own.parameters(), **args.chosen, max_norm=MAX_NORM, **state)
        formats = f"\n{dtype}, state {state.get('state_dtype', 'float32')}" if low else ""
        title = f"fusedstep.torch\n{name}\n(max_norm={MAX_NORM}){formats}"
        return FusedRun("fusedstep", title, own, optimizer, args.steps)

    low = (args.dtype, args.state_dtype or "float32") != ("float32", "float32")
    ours = fused(args.dtype, **({"state_dtype": args.state_dtype} if args.state_dtype else {}))
    theirs = copy.deepcopy(first).to(getattr(torch, args.dtype))
    how = ", ".join(f"{key}={value}" for key, value in PEERS[args.peer].items())
    package, cls, options = original(RULES[args.optimizer], args.chosen, args.peer)
    title = f"{package}\n{cls.__name__}({how})\n+ clip_grad_norm_" + f"\n{args.dtype}, state {args.dtype}" * low
    other = Run(package.partition(".")[0], title, theirs, cls(theirs.parameters(), **options), args.steps)
    return [ours, other, *([fused("float32")] if low else [])]


def train(runs: list[Run], args: argparse.Namespace, model: str, console: Console) -> str:
    """Train all, in turns; how it ended."""
    kind = MODELS[model]
    batches, held_out = kind.data(kind.sizes[args.size], args.chars or kind.characters, args.seed)

    def at(run: Run, batch: Batch) -> Batch:
        """The batch where the model is, and its floating-point numbers in the model's dtype."""
        return tuple(x.to(args.device, run.dtype if x.is_floating_point() else None) for x in batch)

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(args.optimizer, total=args.steps)
        for number, batch in enumerate(islice(batches, args.steps), 1):
            for run in runs if number % 2 else runs[::-1]:
                torch.manual_seed(args.seed + number)  # the same dropout for all, on any device
                run.step(at(run, batch))
            losses = " | ".join(f"{run.steps[-1].loss:.3f}" for run in runs)
            names = " | ".join(run.name for run in runs[:2]) + " | float32" * (len(runs) > 2)
            progress.update(task, advance=1, description=f"{args.optimizer}: loss {names}  {losses}")
            if number % args.validate_every == 0 or number == args.steps:
                for run in runs:
                    run.validate(at(run, held_out))
                if any(run.rising(args.patience) for run in runs):
                    return f"stopped after step {number}: validation loss rises"
    return f"{args.steps} steps"


def print_table(runs: list[Run], title: str, console: Console) -> None:
    losses, _, updates, wholes = zip(*(zip(*run.steps, strict=True) for run in runs), strict=True)
    apart = [abs(a - b) for a, b in zip(*losses[:2], strict=True)]
    final = [run.final_loss() for run in runs]
    validation = [list(run.validation.values())[-1] if run.validation else math.nan for run in runs]  # nan: interrupted
    update, whole = [median(times) for times in updates], [median(times) for times in wholes]
    clipped = [sum(step.norm > MAX_NORM for step in run.steps) for run in runs]
    rows = [
        (f"training loss, last {FEW}", *(f"{v:.4f}" for v in final), f"{final[0] - final[1]:+.4f}"),
        ("validation loss", *(f"{v:.4f}" for v in validation), f"{validation[0] - validation[1]:+.4f}"),
        (f"largest gap, first {FEW}", "", "", f"{max(apart[:FEW]):.1e}"),
        ("largest gap, all steps", "", "", f"{max(apart):.1e}"),
        ("steps that were clipped", *map(str, clipped), ""),
        ("optimizer + clip, median", *(f"{1e3 * v:.3f} ms" for v in update), f"{update[1] / update[0]:.1f}x"),
        ("training step, median", *(f"{1e3 * v:.1f} ms" for v in whole), f"{whole[1] / whole[0]:.2f}x"),
        ("optimizer + clip, share", *(f"{u / w:.2%}" for u, w in zip(update, whole, strict=True)), ""),
    ]
    table = Table("", title=title)
    for header in (*(run.title for run in runs), "the first two" * (len(runs) > 2)):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def draw(runs: list[Run], title: str, unit: str, path: Path) -> None:
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    curves, difference = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    losses = [[step.loss for step in run.steps] for run in runs]
    steps = range(1, len(losses[0]) + 1)
    other = runs[1].title.partition("\n")[0]
    styles = ("fusedstep.torch", "tab:blue", "-", "o"), (other, "tab:orange", "--", "x")
    styles += (("fusedstep.torch, float32", "tab:green", ":", "+"),)
    for run, values, (name, color, line, marker) in zip(runs, losses, styles, strict=False):
        curves.plot(steps, values, line, color=color, linewidth=1.2, label=f"{name}, training")
        x, y = list(run.validation), list(run.validation.values())
        curves.plot(x, y, marker, color=color, zorder=3, label=f"{name}, validation")
    difference.plot(steps, [abs(a - b) for a, b in zip(*losses[:2], strict=True)], ".", color="tab:gray", markersize=3)
    difference.set_yscale("symlog", linthresh=1e-7)  # has a place for 0, where the losses are equal
    difference.set(xlabel="step", ylabel="gap of the\ntraining losses")
    curves.set(title=title, ylabel=f"loss per {unit}, nats")
    curves.legend()
    for axes in (curves, difference):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def image(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {str(path.parent)!r}")
    if path.suffix[1:] not in (known := Figure().canvas.get_supported_filetypes()):
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of: {', '.join(known)}")
    return path


def device(text: str) -> str:
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"torch {torch.__version__} finds no CUDA device")
    if text == "cuda" and _core.cuda in ("", "host"):
        raise argparse.ArgumentTypeError("this build of fusedstep has no CUDA kernels")
    return text


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    count = integer(1, 1_000_000)
    for flag, what, options in (
        ("--model", "", {"choices": [*MODELS, "all"], "default": "transformer"}),
        ("--peer", "how torch runs it, default: fused, or foreach where there is no fused one", {"choices": PEERS}),
        ("--size", "of the model, ", {"choices": SIZES, "default": "small"}),
        ("--device", "", {"type": device, "choices": ("cpu", "cuda"), "default": "cpu"}),
        ("--steps", "", {"type": count, "default": 360}),
        ("--chars", "of text, default: 1 million, for embedding 5 million", {"type": integer(2000, 10**8)}),
        ("--validate-every", "number of steps, ", {"type": count, "default": 40}),
        ("--patience", "validations without a new best before it stops, ", {"type": count, "default": 3}),
        ("--seed", "", {"type": integer(0, 2**31 - 1), "default": 0}),
        ("--threads", "of both sides, ", {"type": integer(1, 256), "default": torch.get_num_threads()}),
        ("--plot", "--model all adds the model, ", {"type": image, "default": Path("train.png"), "metavar": "PATH"}),
    ):
        if "type" in options and "choices" not in options:
            options.setdefault("metavar", "N")
        parser.add_argument(flag, help=what + "default: %(default)s" * ("default" in options), **options)
    add_to(parser, "all")
    add_formats(parser, ("float32", "bfloat16", "float16"), ("float32", "bfloat16"))
    args = parser.parse_args()
    if args.chars and args.model != "all" and not MODELS[args.model].characters:
        parser.error(f"argument --chars: {args.model} reads no text")
    if args.optimizer != "all":
        return with_optimizer(parser, args)
    if args.model == "all" or args.options is not None or args.peer or args.state_dtype or args.dtype != "float32":
        parser.error("argument --optimizer: all trains one model in float32, with options of its own")
    args.every = [with_optimizer(parser, argparse.Namespace(**{**vars(args), "optimizer": name})) for name in RULES]
    return args


def with_optimizer(parser: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """With its options, and how the other side runs it."""
    args.chosen, rule = chosen(parser, args), RULES[args.optimizer]
    try:
        rule.formats(rule.__name__, {**rule.defaults, **args.chosen, "state_dtype": args.state_dtype})
    except ValueError as error:
        parser.error(f"argument --state-dtype: {error}")
    if args.peer and not has(args.peer, rule, args.device):
        parser.error(f"argument --peer: torch has no {args.peer} {rule.__name__} on {args.device}")
    args.peer = args.peer or next(peer for peer in PEERS if has(peer, rule, args.device))
    try:
        original(rule, args.chosen, args.peer)
    except ValueError as error:
        parser.error(f"argument --optimizer: {error}")
    return args


def compare(args: argparse.Namespace, name: str, plot: Path, console: Console) -> int:
    runs = make_runs(args, name)
    try:
        end, status = train(runs, args, name, console), 0
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
    model = f"{args.size} {name}, {sum(p.numel() for p in parameters):,} parameters in {len(parameters)} tensors"
    where = f"threads: {args.threads}" if args.device == "cpu" else torch.cuda.get_device_name()
    print_table(runs, f"{model}\n{end}, {where}", console)
    draw(runs, f"{RULES[args.optimizer].__name__}, {model}", MODELS[name].unit, plot)
    console.print(f"loss curves: {plot}")
    return status


def all_optimizers(args: argparse.Namespace, console: Console) -> int:
    table = Table(title=f"{args.size} {args.model}, {args.steps} steps: loss per {MODELS[args.model].unit}")
    for header in ("", "options", "beside", "first", "fusedstep", "the other", f"largest gap, first {FEW}"):
        table.add_column(header, justify="left" if header in ("", "options", "beside") else "right")
    for own in args.every:
        runs = make_runs(own, own.model)
        train(runs, own, own.model, console)
        losses = [[step.loss for step in run.steps] for run in runs]
        apart = max(abs(a - b) for a, b in zip(*(some[:FEW] for some in losses), strict=True))
        options = " ".join(f"{name}={value}" for name, value in own.chosen.items())
        numbers = [f"{v:.3f}" for v in (losses[0][0], *(run.final_loss() for run in runs))]
        table.add_row(RULES[own.optimizer].__name__, options, runs[1].name, *numbers, f"{apart:.1e}")
    console.print(table)
    return 0


def main() -> int:
    args, console = parse(), Console()
    torch.set_num_threads(args.threads)  # fusedstep follows
    if args.optimizer == "all":
        return all_optimizers(args, console)
    if args.model != "all":
        return compare(args, args.model, args.plot, console)
    for name in MODELS:
        if status := compare(args, name, args.plot.with_stem(f"{args.plot.stem}-{name}"), console):
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
