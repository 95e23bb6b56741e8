"""Trains the character transformer on several processes with FSDP2, beside one process that has it whole.

Each process keeps its part of every parameter and of the optimizer's state, and computes the gradients of its part of
the batch. The optimizer is the one of examples/train.py, with the same arguments: it clips by the norm of the whole
model, on every process to the bit. At the end there is a checkpoint. With --resume another run goes on from it, on any
number of processes. Process 0 also trains the model whole, on whole batches. Its losses are printed beside.

Processes are started here: one for each GPU, or two on the CPU. Or torchrun starts them.

Examples:
  python examples/fsdp2.py
  python examples/fsdp2.py --processes 3 --resume --steps 120
  python examples/fsdp2.py --processes 1 --resume --steps 180
  torchrun --nproc-per-node 2 examples/fsdp2.py --size tiny
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import fusedstep.torch
from models import MODELS, SIZES, CharTransformer, TransformerSize, characters

BATCH = 24  # of all processes together; it is divided by 1, 2, 3, 4, 6, 8, 12 and 24
WARM_UP = 20


def rate(step: int) -> float:
    """Factor of the learning rate: linear warm-up, then as the inverse square root."""
    return min((step + 1) / WARM_UP, math.sqrt(WARM_UP / (step + 1)))


class Training:
    """A model with its optimizer and schedule; divided over the processes, where it has a mesh."""

    def __init__(self, size: TransformerSize, seed: int, device: torch.device, mesh: Any = None) -> None:
        torch.manual_seed(seed)  # the same numbers on every process; FSDP2 keeps a part of them
        self.model: nn.Module = CharTransformer(size, dropout=0.0).to(device)
        if mesh is not None:
            for layer in self.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        groups = fusedstep.torch.param_groups(self.model, weight_decay=0.1)
        self.optimizer = fusedstep.torch.AdamW(groups, lr=3e-3, max_norm=1.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)
        self.steps = 0

    def step(self, chars: Tensor, following: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = self.model(chars, following)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        return loss.detach()

    def state(self) -> dict[str, Any]:
        return {
            "model": get_model_state_dict(self.model),
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer),
            "schedule": self.schedule.state_dict(),
            "steps": self.steps,
        }

    def save(self, folder: Path) -> Path:
        """Each process writes its part."""
        checkpoint = folder / f"{self.steps:06}"
        dcp.save(self.state(), checkpoint_id=checkpoint)
        return checkpoint

    def load(self, checkpoint: Path) -> None:
        """Each process reads its part, however many there were when it was written."""
        state = self.state()
        dcp.load(state, checkpoint_id=checkpoint)
        set_model_state_dict(self.model, state["model"])
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.steps = state["steps"]


def checkpoints(folder: Path) -> list[Path]:
    """Those that are complete, the newest one last."""
    return sorted(found.parent for found in folder.glob("*/.metadata"))


def len_of(param: Tensor) -> int:
    """How many numbers of it are on this process."""
    return param.to_local().numel() if isinstance(param, DTensor) else param.numel()


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, count = dist.get_rank(), dist.get_world_size()
    size = MODELS["transformer"].sizes[args.size]._replace(batch=BATCH)
    divided = Training(size, args.seed, device, init_device_mesh(device.type, (count,)))
    whole = Training(size, args.seed, device)
    if args.resume:
        for training in (divided, whole):
            training.load(checkpoints(args.folder)[-1])
    if rank == 0:
        own, every = (sum(map(len_of, t.model.parameters())) for t in (divided, whole))
        print(f"{count} process{'es' * (count > 1)} on {device.type}; process 0 has {own:,} of {every:,} parameters")
        print(f"{'step':>6} {'divided':>12} {'one process':>12} {'gap':>9} {'norm':>9}")
    batches = characters(size, args.chars, args.seed).batches
    for batch in islice(batches, divided.steps, args.steps):
        chars, following = (x.to(device) for x in batch)
        loss = divided.step(chars.chunk(count)[rank], following.chunk(count)[rank])
        dist.all_reduce(loss)
        loss /= count
        if rank == 0:
            alone = whole.step(chars, following)
            if divided.steps % args.print_every == 0 or divided.steps == args.steps:
                gap, norm = abs(loss - alone).item(), divided.optimizer.total_norm.item()
                print(f"{divided.steps:6} {loss.item():12.6f} {alone.item():12.6f} {gap:9.1e} {norm:9.4f}", flush=True)
    saved = divided.save(args.folder)
    if rank == 0:
        print(f"saved in {saved}; --resume goes on from there, on any number of processes")


@contextmanager
def process_group(device: torch.device, **options: Any) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **options)
    try:
        yield
    finally:
        dist.destroy_process_group()


def device_of(local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def spawned(rank: int, args: argparse.Namespace, store: str) -> None:
    """A process that :func:`main` has started."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // args.processes))
    device = device_of(rank)
    with process_group(device, init_method=f"file://{store}", rank=rank, world_size=args.processes):
        train(args, device)


def parse() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("Examples:")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog="examples:" + examples, formatter_class=raw)
    gpus = torch.cuda.device_count()
    parser.add_argument("--processes", type=int, default=gpus or 2, metavar="N", help="default: %(default)s")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the model, default: %(default)s")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="in all, default: %(default)s")
    parser.add_argument("--chars", type=int, default=10**6, metavar="N", help="of text, default: %(default)s")
    parser.add_argument("--print-every", type=int, default=10, metavar="N", help="steps, default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints"), help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    args = parser.parse_args()
    args.processes = int(os.environ.get("WORLD_SIZE", args.processes))  # torchrun's
    if args.processes < 1 or BATCH % args.processes:
        parser.error(f"argument --processes: {args.processes} processes cannot share a batch of {BATCH}")
    if gpus and args.processes > gpus and "WORLD_SIZE" not in os.environ:
        parser.error(f"argument --processes: {args.processes} processes need as many GPUs, there are {gpus}")
    if args.resume and not checkpoints(args.folder):
        parser.error(f"argument --resume: no checkpoint in {str(args.folder)!r}")
    return args


def main() -> None:
    args = parse()
    if "RANK" in os.environ:  # torchrun has started this process, and others
        device = device_of(int(os.environ["LOCAL_RANK"]))
        with process_group(device):
            train(args, device)
        return
    with tempfile.TemporaryDirectory() as folder:
        start = partial(torch.multiprocessing.spawn, nprocs=args.processes)
        start(spawned, (args, str(Path(folder, "store"))))


if __name__ == "__main__":
    main()
