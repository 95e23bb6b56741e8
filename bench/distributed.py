"""One optimizer step of sharded parameters on several processes of one machine, beside torch's.

    python bench/distributed.py --quick                 half a minute, small tensors
    python bench/distributed.py --json results/mine.json
    python bench/compare.py --load results/mine.json    the same tables again

Parameters are DTensors, sharded by rows over all ranks, as FSDP2 leaves them for the optimizer. FSDP2 itself does not
run: a step sees no more of it. Each rank has its share of the machine's cores, and messages go by gloo.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

import fusedstep
import fusedstep.torch
from compare import BENCH, found, save
from harness import limits, measure, report, results
from harness.cases import Case, Shapes, product, read_shapes
from harness.check import check
from harness.peers import Contender, all_peers
from harness.peers.torch_ import adopt, tensors_of
from harness.results import LIMIT, OURS, label, rounded
from harness.run import Row, attempted
from machine import command, describe, versions

States = dict[Any, dict[str, Any]]
# 300 tensors of 1,000 elements, and of two on each of two ranks: the host's part.
FULL, QUICK = ("gpt2", "300x1000", "300x4"), ("sb3", "300x4")
PEERS = ("torch fused", "torch default", "torch foreach")
AHEAD = 1e-3  # seconds from agreeing on a start to the start


class Plain:
    """fusedstep on the same shards as plain tensors, the norm over a process group: without what DTensors cost."""

    name, distribution, tolerance = f"{OURS} plain", None, 0.0

    def prepare(self) -> None: ...

    def make(self, case: Case, params: list[Any], state: States) -> Contender:
        plain = {p: torch.nn.Parameter(p.detach().to_local()) for p in params}
        for p, own in plain.items():
            own.grad = p.grad.to_local()
        group = dist.group.WORLD if case.clip else None
        cls = fusedstep.torch.get(case.rule.cls)
        optimizer = cls(list(plain.values()), **case.rule.chosen, max_norm=case.max_norm, norm_group=group)
        adopt(optimizer, {plain[p]: locally(own) for p, own in state.items()})
        return Contender(optimizer.step, lambda: tensors_of(optimizer.state))


def locally(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to_local() if v.dim() else v for k, v in state.items()}


class Whole:
    """A peer on sharded parameters as one on whole ones, so that its answer can be compared."""

    def __init__(self, peer: Any, mesh: Any) -> None:
        self._peer, self._mesh = peer, mesh
        self.name, self.tolerance = peer.name, peer.tolerance

    def make(self, case: Case, params: list[Any], state: States) -> Contender:
        shards = [torch.nn.Parameter(self._sharded(p.detach())) for p in params]
        for p, shard in zip(params, shards, strict=True):
            shard.grad = self._sharded(p.grad)
        of_shards = {
            shard: {k: self._sharded(v) if v.dim() else v for k, v in state[p].items()}
            for p, shard in zip(params, shards, strict=True)
        }
        contender = self._peer.make(case, shards, of_shards)

        @torch.no_grad()
        def step() -> None:
            for p, shard in zip(params, shards, strict=True):
                shard.grad.copy_(self._sharded(p.grad))
            contender.step()
            for p, shard in zip(params, shards, strict=True):
                p.copy_(shard.full_tensor())

        return Contender(step, contender.state)

    def _sharded(self, whole: torch.Tensor) -> DTensor:
        return distribute_tensor(whole, self._mesh, [Shard(0)])


def part_of(shapes: Shapes) -> Shapes:
    """Those of this rank's shards."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    rows = [Shard.local_shard_size_and_offset(shape[0], ranks, rank)[0] for shape in shapes.tensors]
    return Shapes(shapes.name, shapes.source, tuple((n, *s[1:]) for n, s in zip(rows, shapes.tensors, strict=True)))


def sharded(case: Case, data: measure.Data, state: States, mesh: Any) -> tuple[list[Any], States]:
    """DTensors on the memory of these shards: parameters with gradients, and their state."""
    params: list[Any] = []
    states: States = {}
    for p, shape in zip(data.params, case.shapes.tensors, strict=True):
        layout = {"shape": torch.Size(shape), "stride": torch.empty(shape, device="meta").stride()}
        param: Any = torch.nn.Parameter(DTensor.from_local(p.detach(), mesh, [Shard(0)], run_check=False, **layout))
        param.grad = DTensor(p.grad, param._spec, requires_grad=False)  # FSDP2 gives both the same spec
        spec = torch.empty_like(param)._spec  # an equal one: what optimizers make is like the parameter
        states[param] = {k: DTensor(v, spec, requires_grad=False) if v.dim() else v for k, v in state[p].items()}
        params.append(param)
    return params, states


def largest(values: list[list[float]]) -> list[list[float]]:
    """Of each number the largest that any rank has."""
    found = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def start_together() -> None:
    """Wait for the other ranks, whose clock is the same; a barrier lets one go before the other."""
    start = torch.tensor([time.perf_counter() + AHEAD], dtype=torch.float64)
    dist.all_reduce(start, dist.ReduceOp.MAX)
    while time.perf_counter() < start.item():
        pass


@functools.cache
def update_error(peer: Any, case: Case, mesh: Any) -> float:
    return float(f"{check(Whole(peer, mesh), case):.3g}")


def set_up(case: Case, peer: Any, params: list[Any], states: States, mesh: Any, row: Row) -> Callable[[], Any]:
    """A contender's step; what is known of it before it is timed goes into its row."""
    from torch.distributed.tensor.debug import CommDebugMode  # takes seconds, which only ranks need

    peer.prepare()
    row["update_error"] = update_error(peer, case.but(shapes=None), mesh)
    step = peer.make(case, params, states).step
    step()
    with CommDebugMode() as messages:
        step()
    row["collectives"] = messages.get_total_counts()
    return step


def measured(case: Case, peers: list[Any], mesh: Any, budget: float, least: int) -> dict[str, Any]:
    """The case's entry of the result file. A step is over when it is over on all ranks."""
    local = case.but(shapes=part_of(case.shapes))
    data = measure.Data(local)
    state = data.state(local)
    moved = measure.moved(local, data.params, [x for own in state.values() for x in own.values() if x.dim()])
    params, states = sharded(case, data, state, mesh)
    rows: dict[str, Row] = {name: {"peer": name} for name in [*(peer.name for peer in peers), LIMIT]}
    steps = {}
    for peer in peers:
        row = rows[peer.name]
        step = attempted(row, lambda peer=peer, row=row: set_up(case, peer, params, states, mesh, row))
        if step is not None:
            steps[peer.name] = step
    if limit := attempted(rows[LIMIT], lambda: limits.limit(local, sum(moved.values()))):
        steps[LIMIT] = limit[0]

    def refresh(name: str) -> None:
        data.fill(limit[1]) if limit and name == LIMIT else data.refresh()
        start_together()

    samples, _ = measure.take_turns(steps, "cpu", refresh, 0.0, 1)
    start = time.perf_counter()
    samples, _ = measure.take_turns(steps, "cpu", refresh, 0.0, 1)
    ((seconds,),) = largest([[time.perf_counter() - start]])
    rounds = max(least, min(measure.MOST, int(budget / seconds)))  # the same on all ranks
    samples, failed = measure.take_turns(steps, "cpu", refresh, 0.0, rounds)
    for error in failed.values():
        raise error
    for name, taken in zip(samples, largest([[s.seconds for s in own] for own in samples.values()]), strict=True):
        rows[name]["seconds"] = rounded(taken)
    where = {"threads": torch.get_num_threads(), "target": fusedstep.active_target(), "ranks": dist.get_world_size()}
    return {
        "case": {**case.describe(), **where},
        "tensors": len(case.shapes.tensors),
        "elements": case.shapes.elements,
        "bytes_by_format": moved,
        "bytes_per_element": sum(moved.values()),
        "rows": list(rows.values()),
    }


def work(rank: int, args: argparse.Namespace, folder: str) -> None:
    """One rank; the first shows and writes the result."""
    timeout = datetime.timedelta(seconds=120)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=args.ranks, timeout=timeout)
    machine = {**describe(), "load": round(os.getloadavg()[0], 2)}
    torch.set_num_threads(max(1, machine["cores"] // args.ranks))
    mesh = init_device_mesh("cpu", (args.ranks,))
    console = Console(width=220 if not sys.stdout.isatty() else None, quiet=rank > 0)
    cases = product(["AdamW"], args.shapes, device="cpu")
    peers = [all_peers()[OURS], Plain(), *(all_peers()[name] for name in args.peers)]
    result = {
        "schema": results.SCHEMA, "command": command("bench/distributed.py"), "date": datetime.date.today().isoformat(),
        "machine": machine, "versions": versions(*(p.distribution for p in peers if p.distribution)), "missing": {},
        "cases": [],
    }  # fmt: skip
    for case in cases:
        console.print(f"measuring {label(case.describe())}", highlight=False)
        result["cases"].append(measured(case, peers, mesh, args.budget / len(cases), 3 if args.quick else 10))
    report.show(result, console)
    if rank == 0 and args.json:
        save(result, args.json)
        console.print(f"result: {args.json}")
    dist.destroy_process_group()


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="small tensors, few samples")
    parser.add_argument("--ranks", type=int, default=2, choices=range(1, 65), metavar="N", help="processes; default: 2")
    parser.add_argument("--shapes", nargs="+", metavar="SET", help=f"as in compare.py; default: {' '.join(FULL)}")
    parser.add_argument("--peers", nargs="+", choices=all_peers(), metavar="PEER", help="as in compare.py")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of measuring; shared by the cases")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result here; a name alone: bench/results")
    args = parser.parse_args()
    args.shapes = args.shapes or (QUICK if args.quick else FULL)
    args.peers = args.peers or (PEERS[:1] if args.quick else PEERS)
    args.budget = args.budget or (5.0 if args.quick else 180.0)
    if args.json:
        args.json = BENCH / "results" / args.json if args.json.parent == Path() else found(args.json)
    try:
        for name in args.shapes:
            read_shapes(name)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (args, folder), nprocs=args.ranks)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
