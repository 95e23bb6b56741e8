"""Gradient release: a parameter is updated, and its gradient freed, as soon as that has been accumulated."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist

from .. import _core
from .. import _rides as rides
from .._rule import GRAD_ATTR, Rule
from . import _groups, _mesh
from ._base import FusedOptimizer, on_device, outside_dynamo, raise_versions
from ._run import on_gpu

_LABEL = "release_gradients"


def release_gradients(model: torch.nn.Module, optimizer: FusedOptimizer) -> GradientRelease:
    """Update each parameter within ``backward()``, as soon as its gradient is complete, and free the gradient.

    So the gradients of a model are never all there at once. An update equals that of an ordinary step bit for bit.
    ``optimizer.step()`` stays in the loop: it counts for schedulers, ends the averages and hooks of a step, and updates
    what still has a gradient, such as parameters that are not the model's.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
        >>> optimizer = fusedstep.torch.AdamW(model.parameters(), lr=1e-2)
        >>> release = fusedstep.torch.release_gradients(model, optimizer)
        >>> for _ in range(3):
        ...     model(torch.ones(4, 8)).square().mean().backward()
        ...     assert all(p.grad is None for p in model.parameters())
        ...     optimizer.step()
        >>> release.remove()

    Args:
        model: whose parameters are released, as far as they are in the optimizer. A module of FSDP2
            (``fully_shard``) is released shard by shard, after its reduction.
        optimizer: any of :mod:`fusedstep.torch`. It keeps the handle alive.

    Returns:
        The handle, with :meth:`~GradientRelease.no_release` for micro-batches and :meth:`~GradientRelease.remove`.

    Raises:
        TypeError, ValueError: what cannot be released: clipping by norm, DistributedDataParallel, FSDP1, an optimizer
            whose update of one parameter depends on others. No hook was set.
    """
    return GradientRelease(model, optimizer)


class GradientRelease:
    """What :func:`release_gradients` returns."""

    def __init__(self, model: torch.nn.Module, optimizer: FusedOptimizer) -> None:
        if not isinstance(cast(Any, model), torch.nn.Module):
            raise TypeError(f"{_LABEL}: model is a {type(model).__name__}, expected a torch.nn.Module")
        if not isinstance(cast(Any, optimizer), FusedOptimizer):
            raise TypeError(
                f"{_LABEL}: optimizer is a {type(optimizer).__name__}, expected an optimizer of fusedstep.torch (that "
                "of a wrapper is its .optimizer)"
            )
        if optimizer._run.release is not None:
            raise ValueError(
                f"{_LABEL}: this {type(optimizer).__name__} releases gradients already; remove() that handle before "
                "another, or pass one module that holds all parts of the model"
            )
        # Weak, since parameters hold the hooks where the garbage collector does not look.
        self._model, self._optimizer = weakref.ref(model), weakref.ref(optimizer)
        self._hook = _Hook(self)
        self._handles: dict[int, Any] = {}  # by id() of the parameters
        self._known: set[int] = set()  # parameters of the optimizer, when the model was last looked through
        self._frozen: list[torch.Tensor] = []  # of both, without a hook so far
        self._held = 0
        self._lock = threading.RLock()  # autograd has a thread for each device
        self._alone = False  # whether DistributedDataParallel has been looked for

        _check_rule(optimizer._rule)
        _check_modules(model)
        shared = self._shared(model, optimizer)
        if not shared:
            raise ValueError(
                f"{_LABEL}: none of the model's {len(list(model.parameters()))} parameters is in a group of this "
                f"{type(optimizer).__name__}, expected an optimizer of this model, made after whatever replaces its "
                "parameters, such as fully_shard()"
            )
        for p in shared:
            _check_param(optimizer, p)
        self._check_groups(optimizer, {id(p) for p in shared})
        self._look_through(optimizer)
        optimizer._run.release = self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "GradientRelease: a handle belongs to one model and optimizer and cannot be copied or pickled; call "
            "release_gradients again for copies of these"
        )

    @contextmanager
    def no_release(self) -> Iterator[None]:
        """Within ``with release.no_release():`` gradients are accumulated and kept, as without release.

        For all micro-batches of a step but the last. The backward pass of the last, outside, updates each parameter by
        the sum of its gradients.
        """
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    def remove(self) -> None:
        """Take the hooks away: gradients stay where they are until ``optimizer.step()`` again."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._frozen.clear()
        optimizer = self._optimizer()
        if optimizer is not None and optimizer._run.release is self:
            optimizer._run.release = None

    # ---------------------------------------------------------------------------------------------------------- hooks

    @staticmethod
    def _shared(model: torch.nn.Module, optimizer: FusedOptimizer) -> list[torch.Tensor]:
        of_optimizer = {id(p) for _, _, p in optimizer._places()}
        return [p for p in model.parameters() if id(p) in of_optimizer]

    def _look_through(self, optimizer: FusedOptimizer) -> None:
        """Hooks for parameters that are in both by now and want a gradient."""
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if known != self._known:
            self._known = known
            model = self._model()
            shared = [] if model is None else self._shared(model, optimizer)
            self._frozen = [p for p in shared if id(p) not in self._handles]
        if self._frozen:
            for p in self._frozen:
                if p.requires_grad:
                    _check_param(optimizer, p)
                    register = cast(Any, p).register_post_accumulate_grad_hook
                    self._handles[id(p)] = register(self._hook)
            self._frozen = [p for p in self._frozen if id(p) not in self._handles]

    def arrived(self, param: torch.Tensor) -> None:
        """The gradient of a parameter has been accumulated."""
        optimizer = self._optimizer()
        grad = param.grad
        if optimizer is None or grad is None:
            return
        with self._lock:
            place = _place(optimizer, param)
            if place is None:
                return
            if id(param) in optimizer._run.round.released:
                raise RuntimeError(
                    f"{type(optimizer).__name__}: params[{place[1]}] gets a gradient after it has been updated, and "
                    "before step(). Put each backward pass of a step but the last into `with release.no_release():`, "
                    "and call step() after the last; reentrant checkpoints that share a parameter need "
                    "use_reentrant=False"
                )
            if self._held:
                return
            if grad.requires_grad:
                raise RuntimeError(
                    f"{type(optimizer).__name__}: the gradient of params[{place[1]}] has a graph, expected "
                    "backward() without create_graph=True, since parameters change within it; take such gradients by "
                    "torch.autograd.grad, or put that backward pass into `with release.no_release():`"
                )
            if not self._alone:
                _check_wrappers(param)
                self._alone = True
            self._check_scaler(optimizer)
            _wait_for_copy(param)
            _mesh.align_gradients([param])
            del grad
            _update(optimizer, param, *place)
            optimizer._run.round.released.add(id(param))
            param.grad = None

    # --------------------------------------------------------------------------------------------------------- checks

    def check_step(self, optimizer: FusedOptimizer) -> None:
        """Before ``optimizer.step()``: raise for what was set since, and see to parameters that are new."""
        self._check_scaler(optimizer)
        self._check_groups(optimizer, self._handles)
        self._look_through(optimizer)

    @staticmethod
    def _check_scaler(optimizer: FusedOptimizer) -> None:
        if getattr(optimizer, "found_inf", None) is not None or getattr(optimizer, "grad_scale", None) is not None:
            raise RuntimeError(
                f"{type(optimizer).__name__}: a GradScaler (or grad_scale) with release_gradients, expected none: "
                "whether scaled gradients have overflowed is known when all are there, and parameters are updated "
                "before; train in bfloat16, which needs no scaling, or remove() the handle"
            )

    @staticmethod
    def _check_groups(optimizer: FusedOptimizer, ids: Iterable[int]) -> None:
        ids = set(ids)
        for k, group in enumerate(optimizer.param_groups):
            if any(id(p) in ids for p in group["params"]):
                _check_options(type(optimizer).__name__, k, optimizer._own(group))


class _Hook:
    """Called by autograd, and by FSDP2, with a parameter whose gradient is complete."""

    def __init__(self, release: GradientRelease) -> None:
        self.release = weakref.ref(release)

    @outside_dynamo
    def __call__(self, param: torch.Tensor) -> None:
        release = self.release()
        if release is not None:
            release.arrived(param)


def _place(optimizer: FusedOptimizer, param: torch.Tensor) -> tuple[int, int, int] | None:
    """The number of a parameter's group, its own among all parameters, and how many there are."""
    round = optimizer._run.round
    for _ in range(2):
        if round.places is None:
            groups = enumerate(optimizer.param_groups)
            flat = ((k, j, p) for k, group in groups for j, p in enumerate(group["params"]))
            round.places = {}
            for number, (k, j, p) in enumerate(flat):
                round.places.setdefault(id(p), (k, j, number))
            round.count = sum(len(group["params"]) for group in optimizer.param_groups)
            optimizer._run.tensor_ids = None
        if found := round.places.get(id(param)):
            k, j, number = found
            params = optimizer.param_groups[k]["params"] if k < len(optimizer.param_groups) else ()
            if j < len(params) and params[j] is param:
                return k, number, round.count
        round.places = None  # groups have changed since
    return None


@torch.no_grad()
def _update(optimizer: FusedOptimizer, param: torch.Tensor, k: int, number: int, count: int) -> None:
    """What ``FusedOptimizer._update`` does, for one parameter; what is the group's is left to ``step()``."""
    label, group, run = type(optimizer).__name__, optimizer.param_groups[k], optimizer._run
    own = optimizer._own(group)
    _check_options(label, k, own)
    optimizer._check_ready(label)
    core = optimizer._core_group(k, group, own)
    lr = group["lr"] if "lr" in group else optimizer.defaults["lr"]
    stats = None
    if own[_groups.RIDING]:
        if own["ema_decay"] is not None:
            averaged = run.round.averaged.get(k)
            if averaged is None:  # told before this group has a new average
                averaged = run.round.averaged[k] = group[rides.EMA_STEP] = optimizer._ema_step(group)
            core.ema_weight = rides.weight(label, averaged, own)
        if own["stats"]:
            stats = run.place_rows(count, param)
    _core.step_torch(
        [(core, [param], lr if isinstance(lr, torch.Tensor) else None, group)],
        optimizer.state,
        optimizer._new_state,
        on_device,
        grad_scale=1.0,
        found_inf=None,
        report=run.place(param),
        nonfinite="propagate",
        over_ranks=None,
        before_write=raise_versions,
        stats=stats,
        place_of=_mesh.place_of,
        part=(number, count),
    )


def _check_options(label: str, k: int, own: dict[str, Any]) -> None:
    for name, expected, why in (
        ("max_norm", None, "a norm is that of all gradients, which are never there at once; clip_value is possible"),
        ("nonfinite", "propagate", "whether a gradient is not finite is known when all are there"),
        (GRAD_ATTR.name, GRAD_ATTR.default, "autograd tells when .grad is complete, and nothing else"),
    ):
        if own[name] != expected:
            raise ValueError(
                f"{label}: {name} of group {k} is {own[name]!r}, expected {expected!r} with release_gradients: {why}; "
                "or remove() the handle"
            )


def _check_rule(rule: type[Rule]) -> None:
    known = [info for info in _core.rules() if info["name"] == rule.kernel]
    if any(info["sums"] or info["group_scalars"] for info in known):
        raise ValueError(
            f"{_LABEL}: an update by {rule.__name__} depends on more than its element and the step count, expected a "
            "rule without sums over tensors; use step() alone"
        )


def _check_modules(model: torch.nn.Module) -> None:
    fsdp = getattr(getattr(dist, "fsdp", None), "FullyShardedDataParallel", ())
    for module in model.modules():
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            _refuse_ddp()
        if isinstance(module, fsdp):
            _refuse_fsdp1()


def _check_wrappers(param: torch.Tensor) -> None:
    """Raise if DistributedDataParallel holds a parameter: it may have wrapped the model before or after."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    ddp = torch.nn.parallel.DistributedDataParallel
    for found in gc.get_objects():
        if issubclass(type(found), ddp) and any(p is param for p in found.parameters()):
            _refuse_ddp()


def _refuse_ddp() -> NoReturn:
    raise ValueError(
        f"{_LABEL}: DistributedDataParallel averages gradients after they are released, expected a model without it; "
        "fully_shard() of FSDP2 releases after its reduction"
    )


def _refuse_fsdp1() -> NoReturn:
    raise ValueError(
        f"{_LABEL}: FullyShardedDataParallel (FSDP1) reduces gradients in hooks of its own, expected fully_shard() of "
        "FSDP2"
    )


def _check_param(optimizer: FusedOptimizer, param: torch.Tensor) -> None:
    if getattr(param, "_fsdp_flattened", False):
        _refuse_fsdp1()
    if getattr(param, "_in_backward_optimizers", None):
        other = "torch's _apply_optimizer_in_backward"
    elif (hook := _other_hook(optimizer, param)) is not None:
        other = f"another {type(hook).__name__}"
    else:
        return
    number = next(k for k, _, p in optimizer._places() if p is param)
    raise ValueError(
        f"{_LABEL}: params[{number}] of {type(optimizer).__name__} is updated in backward() by {other} already, "
        "expected one optimizer for a parameter; remove() the handle of the other before"
    )


def _other_hook(optimizer: FusedOptimizer, param: torch.Tensor) -> FusedOptimizer | None:
    for hook in (getattr(param, "_post_accumulate_grad_hooks", None) or {}).values():
        release = hook.release() if isinstance(hook, _Hook) else None
        other = None if release is None else release._optimizer()
        if other is not None and other is not optimizer:
            return other
    return None


def _wait_for_copy(param: torch.Tensor) -> None:
    """FSDP2 may offload a gradient by a copy that the host has not waited for."""
    mesh = getattr(param, "device_mesh", None)
    if mesh is not None and mesh.device_type == "cuda" and not on_gpu(param):
        torch.cuda.current_stream().synchronize()


def check_not_released(label: str, params: Iterable[torch.Tensor]) -> None:
    """Raise for gradients that are to be clipped, none of which is there any more."""
    for p in params:
        for hook in (getattr(p, "_post_accumulate_grad_hooks", None) or {}).values():
            if isinstance(hook, _Hook) and hook.release() is not None:
                raise RuntimeError(
                    f"{label}: no parameter has a gradient, since release_gradients has updated them in backward(); "
                    "clip_value of the optimizer clips there, or remove() the handle"
                )
