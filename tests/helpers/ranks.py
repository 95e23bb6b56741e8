"""Functions that run on several processes of torch.distributed: with gloo on the CPU, with nccl on GPUs.

:class:`Pool` has the processes of one world size. They are started once and then run one function after the other, for
to import torch takes seconds. A function is sent by its name, so it stands at the top of a module, and takes
``(rank, size, ...)``. In it, :func:`device` says where tensors go and :func:`mesh` gives a DeviceMesh.
"""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch.distributed as dist

# Imported once, by the process that the others are forked from. It has no threads, and knows no GPU.
SHARED = ["torch.distributed.tensor.parallel", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict"]
SHARED += ["pytest", "fusedstep.torch"]
START, CALL, GRACE = 180.0, 90.0, 5.0  # seconds for the start, for a function, and for the others once one has failed
# What torch's own parts warn of, of themselves.
TORCHS = (
    "FSDP2-wrapped module .* returned a view tensor",
    "TypedStorage is deprecated",
    r".torch\.jit\.\w+. is deprecated",
)

_device = "cpu"


def device() -> torch.device:
    """Of this rank."""
    return torch.device(_device, dist.get_rank()) if _device == "cuda" else torch.device("cpu")


@functools.cache
def mesh(*shape: int, names: tuple[str, ...] | None = None) -> Any:
    """Of all ranks. One of each kind is made: each is a group of processes."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(_device, shape, mesh_dim_names=names)


def _answer(message: bytes, rank: int, size: int) -> tuple[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for text in TORCHS:
                warnings.filterwarnings("ignore", text)
            torch.manual_seed(0)
            body, args, kwargs = pickle.loads(message)
            return "ok", body(rank, size, *args, **kwargs)
    except pytest.skip.Exception as skipped:
        return "skipped", str(skipped)
    except BaseException:
        return "failed", traceback.format_exc()


def _serve(connection: Connection, rank: int, size: int, where: str, folder: Path) -> None:
    """What a process does: functions in, answers out, until the other side is closed."""
    global _device
    _device = where
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's affair, which then closes the connection
    with open(folder / f"{rank}.txt", "w") as stacks:
        faulthandler.register(signal.SIGUSR1, stacks)
        torch.set_num_threads(1)
        backend = "gloo"
        if where == "cuda":
            torch.cuda.set_device(rank)
            backend = "cpu:gloo,cuda:nccl"
        store, patience = f"file://{folder / 'store'}", timedelta(seconds=CALL)
        dist.init_process_group(backend, init_method=store, rank=rank, world_size=size, timeout=patience)
        connection.send_bytes(pickle.dumps(("ok", None)))
        while True:
            try:
                message = connection.recv_bytes()
            except EOFError:
                break
            answer = _answer(message, rank, size)
            try:
                sent = pickle.dumps(answer)
            except Exception:
                sent = pickle.dumps(("failed", traceback.format_exc()))
            try:
                connection.send_bytes(sent)
            except BrokenPipeError:
                break
        dist.destroy_process_group()


class Pool:
    """The processes of one world size. Once a function has failed they are ended, and the next one starts others."""

    def __init__(self, size: int, where: str, folder: Callable[[], Path]) -> None:
        self._size, self._where, self._folder = size, where, folder
        self._processes: list[Any] = []
        self._connections: list[Connection] = []

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(SHARED)
        folder = self._stacks = self._folder()
        for rank in range(self._size):
            ours, theirs = context.Pipe()
            arguments = (theirs, rank, self._size, self._where, folder)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        self._collect(START)

    def run(self, body: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What ``body(rank, size, *args, **kwargs)`` returned in each process. A failure has their tracebacks."""
        if not self._processes:
            self._start()
        message = pickle.dumps((body, args, kwargs))
        for connection in self._connections:
            connection.send_bytes(message)
        return self._collect(CALL)

    def _collect(self, seconds: float) -> list[Any]:
        answers: dict[int, tuple[str, Any]] = {}
        end = time.monotonic() + seconds
        while len(answers) < self._size:
            waiting = {c: rank for rank, c in enumerate(self._connections) if rank not in answers}
            ready = wait(list(waiting), max(0.0, end - time.monotonic()))
            if not ready:
                self._fail(answers)
            for connection in ready:
                rank = waiting[connection]
                try:
                    answers[rank] = pickle.loads(connection.recv_bytes())
                except (EOFError, ConnectionResetError):
                    self._processes[rank].join(GRACE)
                    answers[rank] = "failed", f"the process ended, exit code {self._processes[rank].exitcode}"
                if answers[rank][0] == "failed":
                    end = min(end, time.monotonic() + GRACE)
        if any(kind == "failed" for kind, _ in answers.values()):
            self._fail(answers)
        if skipped := [text for kind, text in answers.values() if kind == "skipped"]:
            if len(skipped) < self._size:
                self._fail(answers)
            pytest.skip(skipped[0])
        return [answers[rank][1] for rank in range(self._size)]

    def _fail(self, answers: dict[int, tuple[str, Any]]) -> NoReturn:
        said = {rank: f"{kind}: {text}" for rank, (kind, text) in answers.items() if kind != "ok"}
        hanging = [rank for rank in range(self._size) if rank not in answers]
        for rank in hanging:
            os.kill(self._processes[rank].pid, signal.SIGUSR1)
        if hanging:
            time.sleep(0.5)  # they write their stacks
        for rank in hanging:
            said[rank] = "did not answer, and was in\n" + (self._stacks / f"{rank}.txt").read_text()
        self.end(by_force=True)
        pytest.fail("\n".join(f"rank {rank} of {self._size} {text}" for rank, text in sorted(said.items())), False)

    def end(self, by_force: bool = False) -> None:
        """Close the connections, which ends processes that wait for a function, and end the others by force."""
        for process in self._processes if by_force else ():
            process.kill()
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes, self._connections = [], []
