from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, MutableMapping, Sequence
from typing import Any, TypeVar, cast

import torch

from .. import _arguments as check
from .. import _core, _dtypes
from .. import _rides as rides
from .._rule import GRAD_ATTR, OF_A_RUN, RUN_TIME, Option, Rule
from . import _groups, _loading, _mesh, _ranks
from ._loading import new_step
from ._rides import Before, RidesAlong, Riding
from ._run import Round, Run, on_gpu
from ._warn import warn

Function = TypeVar("Function", bound=Callable[..., Any])


def outside_dynamo(function: Function) -> Function:
    """Runs it as it is under ``torch.compile``, quietly: there is nothing in it to trace."""
    # Not torch.compiler.disable, which imports Dynamo now; a torch optimizer's constructor does so in any case.
    outside: Any = torch._disable_dynamo  # type: ignore[attr-defined]
    return cast(Function, outside(function))


def raise_versions(tensors: list[torch.Tensor]) -> None:
    """Tell autograd that these are about to be written: a backward through an older value of theirs raises."""
    if tensors:
        torch.autograd.graph.increment_version(tensors)


def norm_out(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """Where the core is to leave a norm of these: on their device, so that nothing has to wait; None on the CPU."""
    if not tensors or not on_gpu(tensors[0]):
        return None
    return torch.empty((), dtype=torch.float64, device=tensors[0].device)


def refuse(label: str, *, foreach: bool | None = None, differentiable: bool = False) -> None:
    """Arguments that ask for what this is not."""
    if foreach:
        raise ValueError(
            f"{label}: foreach=True asks for torch's multi-tensor loop; all tensors are updated in one pass here, "
            "leave foreach unset"
        )
    if differentiable:
        raise ValueError(f"{label}: differentiable=True needs autograd through the step; use torch.optim.{label}")


class FusedOptimizer(RidesAlong, torch.optim.Optimizer):
    """What the optimizers here share; mixed in before the torch class whose state and options it keeps.

    Args:
        max_norm: the gradients of all groups that have one are clipped, as one vector, to their group's ``max_norm``
            within the step; they are not written. The vector is of what this optimizer object holds: with an optimizer
            per parameter or per stage each clips to a norm of its own. ``inf`` clips nothing.
        norm_group: a ``torch.distributed`` process group whose ranks hold the rest of a sharded model (ZeRO, FSDP1,
            sharded by hand): the norm is that of all of them, with the same bits on each. Every rank must step. An
            error on one raises on all, and nothing changes. It is never saved nor pickled; a copy of the optimizer
            that has lost it refuses to step until :attr:`norm_group` is set. With loss scaling an overflow on one rank
            skips the step on all; the scale is the scaler's affair (FSDP has a ``ShardedGradScaler``).
        nonfinite: what a norm that is NaN or infinite does. ``"propagate"``: it spreads as with
            ``torch.nn.utils.clip_grad_norm_``. ``"skip"``: the step leaves everything as it is, decided on the device.
            ``"raise"``: RuntimeError, with nothing changed; the host waits for the norm. Needs a ``max_norm``.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``.
        clip_value: bound on each element of the gradient, after the norm.
        state_dtype: what state arrays are stored as: ``"float32"``, ``"bfloat16"``, or a dict of these by the names of
            the arrays. None is float32 for float32, bfloat16 and float16 parameters; torch stores the state of 16-bit
            parameters in the parameter's dtype. In bfloat16 running means of squares are rounded stochastically, other
            arrays to nearest. The state of float64 and complex parameters has their dtype.
        seed: of these random numbers. They depend on the seed, on the step count, on the number of the parameter among
            all that were added, and on the place of the element. A group may name the numbers of its parameters:
            ``{"params": [p, q], "tensor_ids": [7, 8]}``. Seed and numbers are saved where random numbers are drawn,
            and a checkpoint's are taken on.
        grad_attr: the attribute of a parameter that has its gradient, such as ``"main_grad"``; one without it is an
            error, and None there is no gradient.
        l1, mask, cautious, cautious_decay, decay_mode, decay_lr, ema_decay, ema_warmup, stats: what rides along in the
            same pass over memory, explained in docs/ride-alongs.md. Masks and averages are in a parameter's state, as
            ``"mask"`` and ``"ema"``; ``decay_lr`` and ``ema_step`` are keys of a group where they are used.

    All but ``seed`` and ``decay_lr`` belong to the run: they are in no checkpoint, and loading one leaves them as they
    are. But for ``norm_group`` a group may have its own: ``opt.param_groups[0]["max_norm"] = 0.5``.

    A parameter is float32, bfloat16 or float16, and its gradient any of these; or both have one dtype, float64,
    complex64 or complex128. All but float64 and complex128 is computed in float32 and rounded once.

    On CUDA devices a step is one launch per rule and dtype (three with ``max_norm``) and waits for nothing but
    ``nonfinite="raise"``, a ``norm_group``, and a first step of SGD with momentum that may be skipped; ``lr`` may be a
    tensor there. ``capturable``: step counts live on the device, so that a step can be captured in a CUDA graph, after
    a first one that makes the state.

    ``torch.amp.GradScaler`` unscales the gradients in place and leaves out steps, as it does for torch's default. With
    ``fused=True``, ``max_norm`` or ``clip_value`` it leaves both to the step: the gradients then stay as they are,
    scaled, and :attr:`skipped_steps` counts.
    """

    _rule: type[Rule]
    _keys: tuple[str, ...]  # of a group's options that the core is told

    def __init__(self, params: Any, **options: Any) -> None:
        """Called by the constructor of every class here, with all options that its signature has."""
        label, rule = type(self).__name__, self._rule
        refuse(label, foreach=options.pop("foreach", None), differentiable=options.pop("differentiable", False))
        run = {name: options.pop(name) for name in (*RUN_TIME, "error_if_nonfinite", "norm_group", "grad_attr")}
        run["state_dtype"] = check.state_dtype(label, "state_dtype", run["state_dtype"])
        run["nonfinite"] = check.nonfinite(label, run["nonfinite"], run.pop("error_if_nonfinite"))
        check.needs_norm(label, run["nonfinite"], run["max_norm"] is not None)
        self._run = Run(_ranks.check_group(label, run.pop("norm_group")))
        self._run_time = run
        self._seed = check.seed(label, "seed", options.pop("seed"))
        self._decay_lr = rides.decay_lr(label, rides.DECAY_LR, options.pop(rides.DECAY_LR))
        self._next_tensor = 0
        for name, o in rule.options.items():
            if o.ignored:
                del options[name]
            elif o.kind == "several":
                options[name] = _several(label, o, options[name])
        # What torch's constructor does not take: an option that this torch is too old for (then groups, and so
        # checkpoints, are without the key unless it is used), and ``fused``, with which it would check for kernels of
        # its own. Groups are made in that constructor and are to have them too.
        if rule.torch_class:
            known = inspect.signature(getattr(torch.optim, rule.torch_class)).parameters
            self._torchs = {  # compared by identity: a value may be a tensor that the host would have to wait for
                k: v
                for k, v in options.items()
                if k == "fused" or (k not in known and v is not rule.options[k].default)
            }
            kept = {k: v for k, v in options.items() if k in known and k != "fused"}
            super().__init__(params, **kept)
        else:
            super().__init__(params, options)
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.state:  # torch's Adagrad has it in other dtypes, and its step on the default device
                    self.state[p] = self._new_state(p, group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        label = type(self).__name__
        self.defaults.update(self.__dict__.pop("_torchs", {}))
        if not isinstance(cast(Any, param_group), dict):
            raise TypeError(f"{label}: param_group is a {type(param_group).__name__}, expected a dict with 'params'")
        keys, run_time = _groups.split(param_group, self._run_time)
        if isinstance(param_group, _groups.ParamGroup):
            run_time["tensor_ids"] = None  # of another optimizer
        seed = check.seed(label, "seed", keys.pop("seed", self._seed))
        decay_lr = rides.decay_lr(label, rides.DECAY_LR, keys.pop(rides.DECAY_LR, self._decay_lr))
        keys.pop(rides.EMA_STEP, None)  # of another optimizer
        options = {**self.defaults, **keys, **run_time}
        self._rule.check(label, _on_host(options))
        refuse(label, **{k: v for k, v in keys.items() if k in _UNUSED})
        super().add_param_group(keys)
        try:
            run_time |= self._checked(label, keys, run_time)
            keys |= rides.keys_of(label, options | {rides.DECAY_LR: decay_lr})
        except Exception:
            self.param_groups.pop()
            raise
        if self._rule.draws(label, options):
            keys["seed"] = seed
        self.param_groups[-1] = _groups.ParamGroup(keys, run_time)
        self._next_tensor = max(self._next_tensor, *(number + 1 for number in run_time["tensor_ids"]), 0)
        if keys["params"] and on_gpu(keys["params"][0]):
            self._run.place(keys["params"][0])  # a capture is no place to make it

    def _checked(self, label: str, keys: dict[str, Any], run_time: dict[str, Any]) -> dict[str, Any]:
        """Options of a group that depend on its parameters, as they are kept; ValueError or TypeError for bad ones."""
        params = keys["params"]
        if keys.get("capturable") and not all(map(on_gpu, params)):
            raise ValueError(f"{label}: capturable=True is for CUDA graphs; CPU tensors need capturable=False")
        state_dtype = check.state_dtype(label, "state_dtype", run_time["state_dtype"])
        first = sum(len(group["params"]) for group in self.param_groups[:-1])
        for k, p in enumerate(params, first):
            _dtypes.check_param(f"{label}: params[{k}]", str(_dtypes.name_of(p.dtype)), state_dtype)
            _mesh.check_placements(f"{label}: params[{k}]", p)
        ids = run_time["tensor_ids"]
        if ids is None:
            ids = range(self._next_tensor, self._next_tensor + len(params))
        found = check.tensor_ids(label, "tensor_ids", ids, len(params))
        others = [_groups.run_time(group, self._run_time)["tensor_ids"] or () for group in self.param_groups[:-1]]
        taken = {number for numbers in others for number in numbers}
        for k, number in enumerate(found):
            if number in taken:
                raise ValueError(f"{label}: tensor_ids[{k}] is {number}, which a parameter of another group has")
        return {"state_dtype": state_dtype, "tensor_ids": tuple(found)}

    def _patch_step_function(self) -> None:
        super()._patch_step_function()  # hooks and profiling, around the step of this class
        cls: Any = type(self)
        if not getattr(cls.step, "outside_dynamo", False):
            cls.step = outside_dynamo(cls.step)
            cls.step.outside_dynamo = True

    def __getstate__(self) -> dict[str, Any]:
        lost = self._run.lost_norm_group or self._run.norm_group is not None
        return {
            **super().__getstate__(),
            "_run_time": self._run_time,
            "_seed": self._seed,
            "_next_tensor": self._next_tensor,
            "_decay_lr": self._decay_lr,
            "_lost_norm_group": lost,
        }

    def state_dict(self) -> dict[str, Any]:
        """As torch's. A parameter that has a mask or an average but has had no step has the state that it would start
        from: torch's classes expect all of it where there is some."""
        found: dict[str, Any] = super().state_dict()
        if self._rule.torch_class and self._rule.has_step:
            self._run.tensor_ids = None
            for k, group, p in self._places():
                if isinstance(entry := found["state"].get(k), dict) and rides.alone(entry):
                    found["state"][k] = {**self._new_state(p, group), **entry}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but that state arrays stay what this optimizer stores them as.

        torch casts them to the parameter's dtype. Here an array of the dtype that ``state_dtype`` asks for is kept bit
        for bit. One with fewer bits is widened, one with more is rounded, with a warning. States of one number keep the
        dtype they were saved in, as a step count does; from 16 bits they are widened. Seed and tensor ids are those of
        the checkpoint, where it has them. ValueError or TypeError, with nothing changed, for state of any other dtype.
        """
        # Registered now, this hook sees what other hooks return.
        hook = self.register_load_state_dict_pre_hook(_loading.hide)
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        _loading.show(state["state"])
        present = self.__dict__.get("param_groups", state["param_groups"])
        # torch's classes expect all state where there is some; before its first step a parameter may have a mask alone.
        beside = {p: s for p, s in state["state"].items() if isinstance(s, dict) and rides.alone(s)}
        for p in beside:
            del state["state"][p]
        try:
            super().__setstate__(state)
        finally:
            state["state"].update(beside)
        if "_run" not in self.__dict__:
            self._run = Run()
            self._run.lost_norm_group = self.__dict__.pop("_lost_norm_group", False)
        # A state_dict is torch's or might be: it lacks our options, which stay what they are, and may ask for
        # implementations that do not exist here.
        for k, group in enumerate(self.param_groups):
            run_time = _groups.run_time(present[k], self._run_time) if k < len(present) else self._run_time
            self.param_groups[k] = _groups.ParamGroup(group, run_time)
            seed = self.param_groups[k].pop(
                "seed", present[k].get("seed", self._seed) if k < len(present) else self._seed
            )
            if self._rule.draws(type(self).__name__, {**self.defaults, **group, **run_time}):
                self.param_groups[k]["seed"] = seed
            before = present[k] if k < len(present) else {}
            loaded = self._loaded(self.param_groups[k], before, run_time)
            self.param_groups[k].update(rides.keys_of(type(self).__name__, loaded))
            for name, value in _UNUSED.items():
                if name in group:
                    self.param_groups[k][name] = value
            if not self._rule.torch_class:  # another package's options are fewer; torch's class has seen to it
                kept = {**self.defaults, **(present[k] if k < len(present) else {})}
                self.param_groups[k].update({name: kept[name] for name in self._keys if name not in group})
        self._run.round = Round()
        self._follow_loaded()

    @property
    def norm_group(self) -> Any:
        """The process group over whose ranks the norm is summed, or None."""
        return self._run.norm_group

    @norm_group.setter
    def norm_group(self, group: Any) -> None:
        self._run.norm_group = _ranks.check_group(type(self).__name__, group)
        self._run.lost_norm_group = False

    def _scales_in_step(self) -> bool:
        """Asked by torch.amp.GradScaler and by its users: whether unscaling and skipping are left to the step."""
        return (
            bool(self.defaults.get("fused"))
            or any(self._has(g, "max_norm", "clip_value") for g in self.param_groups)
            or self._run.release is not None  # which then says that it cannot
        )

    _step_supports_amp_scaling: Any = property(_scales_in_step)  # torch's classes have a plain attribute

    def _new_state(
        self, param: torch.Tensor, group: dict[str, Any], keys: Collection[str] | None = None
    ) -> dict[str, Any]:
        """What the rule starts from; of ``keys`` alone where something is there."""
        label = type(self).__name__
        options = {**self.defaults, **group, **_groups.run_time(group, self._run_time)}
        formats, draws = self._rule.formats(label, options), self._rule.draws(label, options)
        of_param = str(_dtypes.name_of(param.dtype))
        state: dict[str, Any] = {}
        keys = self._state_keys(draws, options) if keys is None else keys
        if "step" in keys:
            state["step"] = new_step(param.device if options.get("capturable") else "cpu", exact=draws)
        if "tensor_id" in keys:
            state["tensor_id"] = self._tensor_ids()[id(param)]
        for name, value in self._rule.starts(options).items():
            if name not in keys:
                continue
            initial = complex(value, value) if param.is_complex() else value
            dtype = getattr(torch, _dtypes.stored_as(of_param, formats[name]))
            state[name] = torch.full_like(
                param, initial, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False
            )
        for name, value in self._rule.number_starts(options).items():
            if name in keys:
                state[name] = new_step(param.device).fill_(value)
        if rides.EMA in keys:
            state[rides.EMA] = self._first_average(param)
        return state

    def _state_keys(self, draws: bool, options: dict[str, Any]) -> set[str]:
        """What the state of a parameter has of the rule."""
        counted = {"step"} if self._rule.has_step or draws else set()
        return counted | ({"tensor_id"} if draws else set()) | {*self._rule.state_keys(options)}

    def _tensor_ids(self) -> dict[int, int]:
        """What random numbers know each parameter by: ``id(param)`` to its number, which no other has.

        It is that of its state, else the one that its group has for its place; a plain dict in place of a group has
        none, and places count on from group to group. Parameters that were put into a group by hand get numbers that
        nothing has.
        """
        if self._run.tensor_ids is None:
            states = [(p, self.state.get(p)) for group in self.param_groups for p in group["params"]]
            found = {id(p): s["tensor_id"] for p, s in states if isinstance(s, dict) and "tensor_id" in s}
            taken = set(found.values())
            fresh = itertools.count(self._next_tensor)
            first = 0
            for group in self.param_groups:
                count = len(group["params"])
                ids = _groups.run_time(group, self._run_time)["tensor_ids"]
                ids = range(first, first + count) if ids is None else ids[:count]
                first += count
                for p, number in itertools.zip_longest(group["params"], ids):
                    if id(p) not in found:
                        if number is None or number in taken:
                            number = next(n for n in fresh if n not in taken)
                        found[id(p)] = number
                        taken.add(number)
            self._run.tensor_ids = found
        return self._run.tensor_ids

    @property
    def total_norm(self) -> torch.Tensor | None:
        """Norm of the last step's gradients before clipping, float64, also of a step that was skipped; None if no group
        had a ``max_norm``. Like what follows a copy, on the gradients' device, in no checkpoint."""
        return self._run.read(0, torch.float64) if self._run.has_norm else None

    @property
    def clip_coefficient(self) -> torch.Tensor | None:
        """What the last step multiplied gradients by for their norm, float64: ``min(1, max_norm / (norm + 1e-6))``, the
        smallest of all groups; None if none had a ``max_norm``."""
        return self._run.read(1, torch.float64) if self._run.has_norm else None

    @property
    def clipped_steps(self) -> torch.Tensor:
        """How many steps had a :attr:`clip_coefficient` below 1, int64."""
        self._run.place(self._first_param())
        return self._run.read(2, torch.int64)

    @property
    def skipped_steps(self) -> torch.Tensor:
        """How many steps changed nothing, for ``nonfinite="skip"`` or a ``GradScaler`` that left the decision to the
        step, int64. One that a ``GradScaler`` does not call is not counted."""
        self._run.place(self._first_param())
        return self._run.read(3, torch.int64)

    def _has(self, group: dict[str, Any], *names: str) -> bool:
        """Whether a group has one of these options of the run."""
        options = _groups.run_time(group, self._run_time)
        return any(options[name] is not None for name in names)

    def _first_param(self) -> torch.Tensor | None:
        """Whose device counts: the first that is part of the norm, if any is."""
        first = None
        for group in self.param_groups:
            if params := group["params"]:
                if self._has(group, "max_norm"):
                    return cast(torch.Tensor, params[0])
                first = params[0] if first is None else first
        return first

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one update of all parameters that have a gradient.

        Args:
            closure: re-evaluates the model and returns the loss, which is returned.

        Raises:
            TypeError, ValueError: a parameter, gradient or state that cannot be updated; nothing was changed.
            RuntimeError: a non-finite norm with ``nonfinite="raise"``, or an error on another rank of ``norm_group``;
                nothing was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        label = type(self).__name__
        run_times = [_groups.run_time(group, self._run_time) for group in self.param_groups]
        if sharded := _mesh.is_used():
            for group, own in zip(self.param_groups, run_times, strict=True):
                _mesh.align_gradients(group["params"], own[GRAD_ATTR.name])
        if any(own["max_norm"] is not None for own in run_times):
            self._check_norm_group(label)
            dimensions = self._dimensions(run_times) if sharded else ()
            first = self._first_param()
            _ranks.together(
                label,
                self._run.norm_group,
                dimensions,
                lambda exchange: self._update(run_times, exchange),
                device=first.device if first is not None and on_gpu(first) else None,
            )
        else:
            self._update(run_times, None)
        self._run.round = Round()
        return loss

    def _dimensions(self, run_times: list[dict[str, Any]]) -> Sequence[_mesh.Dimension]:
        """The mesh dimensions that the norm is gathered over."""
        params: list[torch.Tensor] = []
        indices: list[int] = []
        first = 0
        for group, own in zip(self.param_groups, run_times, strict=True):
            if own["max_norm"] is not None:
                params += group["params"]
                indices += range(first, first + len(group["params"]))
            first += len(group["params"])
        return self._run.dimensions(params, indices)

    def _check_norm_group(self, label: str) -> None:
        if self._run.lost_norm_group:
            raise RuntimeError(
                f"{label}: this copy of an optimizer has lost its norm_group and would clip to the norm of its own "
                "shard: set opt.norm_group to the process group, or to None if nothing is sharded"
            )
        if self._run.norm_group is None and not self._run.warned:
            self._run.warned = True
            if _ranks.looks_sharded(p for group in self.param_groups for p in group["params"]):
                warn(
                    f"{label}: max_norm is the norm of this rank's shard alone; pass norm_group= (the process group "
                    "that the model is sharded over) for that of the whole model"
                )

    def _core_group(self, k: int, group: dict[str, Any], own: dict[str, Any]) -> _core.Group:
        values = [dict.get(group, name, _MISSING) for name in self._keys]
        values += [own[name] for name in _TOLD]
        values += [dict.get(group, "seed", self._seed), riding := own[_groups.RIDING], self._run.masked]
        if riding:
            values.append(dict.get(group, rides.DECAY_LR))

        def make() -> _core.Group:
            options = {**self.defaults, "seed": self._seed, **group, **own}
            capturable = bool(options.get("capturable", False))
            self._check_drawn(group, options)
            late = rides.late_decay_lr(label, options, dict.get(group, "initial_lr"), self._decay_lr)
            options |= late
            # As the constructor keeps it. Whatever else is set later (a torch.dtype) does not tell whether it changed.
            own["state_dtype"] = check.state_dtype(label, "state_dtype", own["state_dtype"])
            core = self._rule.group(
                label,
                _on_host(options),
                least_lr=_LEAST_LR,
                capturable=capturable,
                masks=self._has_masks(group, own),
                ema=own["ema_decay"] is not None,
            )
            group.update(late)
            return core

        label = type(self).__name__
        return self._run.groups.get(k, values, make)

    def _check_drawn(self, group: dict[str, Any], options: dict[str, Any]) -> None:
        """Raise ValueError where ``state_dtype`` was changed under state that exists, in the first parameter that has
        some."""
        label = type(self).__name__
        draws = self._rule.draws(label, options)
        if not draws and "seed" not in group:
            return
        states = (s for p in group["params"] if isinstance(s := self.state.get(p), dict))
        state = next((s for s in states if s.keys() - rides.ARRAYS), None)
        if state is not None and ("tensor_id" in state) != draws:
            raise ValueError(
                f"{label}: state_dtype is {options['state_dtype']!r}, which the state of this group was not made for; "
                "opt.load_state_dict(opt.state_dict()) converts it"
            )

    def _check_ready(self, label: str) -> None:
        if not isinstance(self.state, (dict, MutableMapping)):  # a dict is told at once
            raise TypeError(
                f"{label}: state is a {type(self.state).__name__}, expected a dict or another mutable mapping of "
                "parameters to dicts"
            )
        if self._run.swapped:
            raise RuntimeError(f"{label}: step() within swap_ema(), where parameters are their averages; step after it")

    def _update(self, run_times: list[dict[str, Any]], over_ranks: _ranks.Exchange | None) -> None:
        label = type(self).__name__
        self._check_ready(label)
        if self._run.release is not None:
            self._run.release.check_step(self)
        scale = getattr(self, "grad_scale", None)
        if not on_gpu(scale):
            scale = 1.0 if scale is None else check.POSITIVE.check(label, "grad_scale", scale)
        self._run.tensor_ids = None
        groups: list[_core.TorchGroup] = []
        riding: list[Riding] = []
        for k, (group, own) in enumerate(zip(self.param_groups, run_times, strict=True)):
            core = self._core_group(k, group, own)
            lr = group["lr"] if "lr" in group else self.defaults["lr"]
            params = group["params"]
            if self._run.round.released and own["ema_decay"] is not None:
                params = self._run.round.left(params)  # averages of the others have moved
            groups.append((core, params, lr if isinstance(lr, torch.Tensor) else None, group))
            if own[_groups.RIDING]:
                riding.append((core, group, own))
        max_norms = [float(own["max_norm"]) for own in run_times if own["max_norm"] is not None]
        nonfinite = check.strictest(run_times)
        check.needs_norm(label, nonfinite, bool(max_norms))
        found_inf = getattr(self, "found_inf", None)
        if over_ranks is not None and found_inf is not None and nonfinite == "propagate":
            nonfinite = "skip"  # a GradScaler knows of this rank's overflow alone; the norm has that of all
        report = self._run.place(self._first_param())
        self._run.has_norm = bool(max_norms)
        more, before = self._before_riding(riding) if riding else (_NOTHING, _NO_RIDES)
        norm = _core.step_torch(
            groups,
            self.state,
            self._new_state,
            on_device,
            grad_scale=scale,
            found_inf=found_inf,
            report=report,
            nonfinite=nonfinite,
            over_ranks=over_ranks,
            before_write=raise_versions,
            place_of=_mesh.place_of,
            **more,
        )
        if riding:
            self._after_riding(riding, before)
        if norm is not None and on_gpu(report):
            self._run.fill(norm, min(max_norms))


def _several(label: str, o: Option, value: Any) -> Any:
    """Any sequence of so many, as torch's constructor takes them: a tuple of numbers or tensors."""
    o.numbers(label, value)
    values = check.several(label, o.name, value, len(o.into))
    return tuple(x if isinstance(x, torch.Tensor) else float(x) for x in values)


def _on_host(options: dict[str, Any]) -> dict[str, Any]:
    """A group whose learning rate can be looked at without waiting for a device."""
    return {**options, "lr": 0.0} if on_gpu(options["lr"]) else options


def on_device(step: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """A step count, beside its parameter."""
    return step.to(param.device, non_blocking=True)


_NOTHING: dict[str, Any] = {}
_NO_RIDES: Before = (None, [])
_MISSING: Any = []  # no immutable object: a group without one of its keys is made anew each step
_TOLD = (*OF_A_RUN, GRAD_ATTR.name)  # of a group's options of the run, beside what rides along
_UNUSED: dict[str, Any] = {"foreach": None, "differentiable": False}
_LEAST_LR = -1e-12  # torch's LinearLR to zero ends a rounding error below it
