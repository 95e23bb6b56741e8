"""What rides along in the pass, of the torch classes: masks, moving averages of parameters, statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch

from .. import _arguments as check
from .. import _core, _dtypes
from .. import _rides as rides
from ..reference import STATISTICS
from . import _groups, _mesh, _ranks
from ._run import Run, on_gpu

Riding = tuple[
    _core.Group, dict[str, Any], dict[str, Any]
]  # a group with ride-alongs: of the core, its keys, of the run
Before = tuple[float | None, list[Any]]


class RidesAlong:
    """The part of :class:`FusedOptimizer` that is about ride-alongs."""

    param_groups: list[dict[str, Any]]
    state: Any
    defaults: dict[str, Any]
    _run: Run
    _run_time: dict[str, Any]
    _decay_lr: float | None = None  # of a pickle of an older version

    # ---------------------------------------------------------------------------------------------------------- masks

    def set_mask(self, masks: Mapping[torch.Tensor, torch.Tensor | None]) -> None:
        """Give parameters masks: where a mask is False, the parameter and its state are zero from the next step on.

        State that starts from another value has that value there. A mask is a bool tensor of the parameter's shape, on
        its device; it is copied. None takes the mask away. Masks are in the state of their parameters, so checkpoints
        have them.

        Raises:
            TypeError, ValueError: a mask that is none, or a parameter that cannot have one; nothing was changed.
        """
        label = type(self).__name__
        places = {id(p): (k, group) for k, group, p in self._places()}
        given = list(check.mapping(label, "masks", masks, "masks by their parameters").items())
        for p, mask in given:
            if id(p) not in places:
                what = f"of shape {tuple(p.shape)}" if isinstance(p, torch.Tensor) else f"a {type(p).__name__}"
                raise ValueError(f"{label}: set_mask names a tensor {what} that is no parameter of this optimizer")
            k, group = places[id(p)]
            if mask is not None:
                self._check_mask(f"{label}: mask of params[{k}]", p, mask, group)
        for p, mask in given:
            if mask is not None:
                kept = torch.empty_like(p, dtype=torch.bool, memory_format=torch.preserve_format, requires_grad=False)
                self.state.setdefault(p, {})[rides.MASK] = kept.copy_(_mesh.mask_as(mask, p))
            elif isinstance(state := self.state.get(p), dict):
                state.pop(rides.MASK, None)
                if not state:
                    del self.state[p]
        self._find_masks()

    def _check_mask(self, where: str, param: torch.Tensor, mask: Any, group: dict[str, Any]) -> None:
        if not isinstance(mask, torch.Tensor):
            raise TypeError(f"{where} is a {type(mask).__name__}, expected a tensor of torch.bool or None")
        if mask.dtype != torch.bool:
            raise TypeError(f"{where} has dtype {mask.dtype}, expected torch.bool: pass mask.bool()")
        if mask.shape != param.shape:
            raise ValueError(f"{where} has shape {tuple(mask.shape)}, expected {tuple(param.shape)} to match it")
        if mask.device != param.device:
            raise ValueError(f"{where} is on device {mask.device}, expected {param.device} as the parameter is")
        if _mesh.is_sharded(mask) and not (_mesh.is_sharded(param) and _mesh.on_mesh_of(mask, param)):
            of_param = _mesh.mesh_text(param) if _mesh.is_sharded(param) else "a plain tensor as the parameter is"
            raise TypeError(
                f"{where} is on {_mesh.mesh_text(mask)}, expected {of_param}: pass a plain tensor of the whole"
            )
        if param.is_complex():
            raise TypeError(f"{where}: the parameter has dtype {param.dtype}, which takes no mask")
        if _groups.run_time(group, self._run_time)["mask"] is not None:
            raise ValueError(f"{where} in a group with mask='nonzero', expected one of both: set that to None first")

    def _find_masks(self) -> None:
        self._run.masked = any(isinstance(s, dict) and rides.MASK in s for s in self.state.values())

    def _has_masks(self, group: dict[str, Any], own: dict[str, Any]) -> bool:
        """Whether the core is to look for masks in the state of a group's parameters."""
        if not self._run.masked or own["mask"] is None:
            return self._run.masked
        states = [self.state.get(p) for p in group["params"]]
        return any(isinstance(s, dict) and rides.MASK in s for s in states)

    # -------------------------------------------------------------------------------------------------------- averages

    def ema_parameters(self) -> list[torch.Tensor]:
        """The moving averages of the parameters in groups with ``ema_decay``, in the order of the groups.

        These are the tensors that steps go on writing, in float32 (in the parameter's dtype if that is float64 or
        complex). Before the first step they equal the parameters.
        """
        return [self._average(p) for p in self._averaged("ema_parameters()")]

    @contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Within ``with opt.swap_ema():`` the parameters are their moving averages, rounded to their dtype.

        Afterwards they are what they were. A step inside raises. It takes memory for a copy of the parameters.
        """
        label = type(self).__name__
        if self._run.swapped:
            raise RuntimeError(f"{label}: swap_ema() within swap_ema()")
        params = self._averaged("swap_ema()")
        averages = [self._average(p) for p in params]
        kept = [p.detach().clone() for p in params]
        self._run.swapped = True
        try:
            _copy(params, averages)
            yield
        finally:
            self._run.swapped = False
            _copy(params, kept)

    def attach_ema(self, averaged_model: Any, model: torch.nn.Module | None = None) -> None:
        """Make the parameters of a ``torch.optim.swa_utils.AveragedModel`` the moving averages, from the next step on.

        The steps then write into that model and count its ``n_averaged``: do not call its ``update_parameters``, and
        move it to its device before. Its ``avg_fn`` is not used; ``ema_decay`` and ``ema_warmup`` say what is done.
        Buffers are not averaged. ``model`` tells by name which parameter belongs to which. Without it the optimizer
        has to have been given names, or all parameters of the model in one group, in the model's order.

        Raises:
            TypeError, ValueError: what cannot be attached; nothing was changed.
        """
        label = type(self).__name__
        if not isinstance(averaged_model, torch.optim.swa_utils.AveragedModel):
            raise TypeError(
                f"{label}: attach_ema has a {type(averaged_model).__name__}, expected an AveragedModel of "
                "torch.optim.swa_utils"
            )
        params = self._averaged("attach_ema()")
        pairs = list(zip(params, self._matching(label, params, averaged_model.module, model), strict=True))
        for k, (p, average) in enumerate(pairs):
            where = f"{label}: attach_ema: parameter {k} of the averaged model"
            if p.dtype != torch.float32 or average.dtype != torch.float32:
                got = average.dtype if p.dtype == torch.float32 else f"that of a {p.dtype} parameter"
                raise TypeError(
                    f"{where} is {got}, expected torch.float32; ema_parameters() has averages of the others"
                )
            if average.shape != p.shape:
                raise ValueError(f"{where} has shape {tuple(average.shape)}, expected {tuple(p.shape)}")
            if average.device != p.device:
                raise ValueError(f"{where} is on device {average.device}, expected {p.device} as the parameter is")
        attached = {p: average.detach() for p, average in pairs}
        for p, average in attached.items():
            self.state.setdefault(p, {})[rides.EMA] = average
        self._run.attached = averaged_model, attached
        count = int(averaged_model.n_averaged)
        for group in self.param_groups:
            if self._own(group)["ema_decay"] is not None:
                group[rides.EMA_STEP] = count

    def _matching(
        self, label: str, params: list[torch.Tensor], averaged: torch.nn.Module, model: torch.nn.Module | None
    ) -> list[torch.Tensor]:
        """The parameters of the averaged model that belong to these."""
        groups = [g for g in self.param_groups if self._own(g)["ema_decay"] is not None]
        named = dict(averaged.named_parameters(remove_duplicate=False))
        if model is not None:
            names = {id(p): n for n, p in model.named_parameters()}
        elif all("param_names" in g for g in groups):
            names = {id(p): n for g in groups for p, n in zip(g["params"], g["param_names"], strict=True)}
        else:
            found = list(averaged.parameters())
            if len(groups) > 1 or len(found) != len(params):
                raise ValueError(
                    f"{label}: attach_ema cannot tell which of {len(found)} parameters of the averaged model belong to "
                    f"the {len(params)} of {len(groups)} groups: pass attach_ema(averaged_model, model)"
                )
            return list(found)
        for k, p in enumerate(params):
            if names.get(id(p)) not in named:
                raise ValueError(f"{label}: attach_ema: the averaged model has no parameter for the averaged one {k}")
        return [named[names[id(p)]] for p in params]

    def _averaged(self, what: str) -> list[torch.Tensor]:
        found = [g for g in self.param_groups if self._own(g)["ema_decay"] is not None]
        if not found:
            raise ValueError(f"{type(self).__name__}: {what} without ema_decay, expected it in a group")
        for group in found:
            group[rides.EMA_STEP] = self._ema_step(group)  # before averages are made
        return [p for group in found for p in group["params"]]

    def _average(self, param: torch.Tensor) -> torch.Tensor:
        state = self.state.setdefault(param, {})
        if rides.EMA not in state:
            state[rides.EMA] = self._first_average(param)
        return cast(torch.Tensor, state[rides.EMA])

    def _first_average(self, param: torch.Tensor) -> torch.Tensor:
        """Where there is none: that of the model that is attached, if it has one."""
        known = None if self._run.attached is None else self._run.attached[1].get(param)
        return self._new_average(param) if known is None else known

    @staticmethod
    def _new_average(param: torch.Tensor) -> torch.Tensor:
        dtype = getattr(torch, _dtypes.stored_as(str(_dtypes.name_of(param.dtype)), "float32"))
        average = torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
        return average.copy_(param.detach())

    # ------------------------------------------------------------------------------------------------------ statistics

    def stats(self) -> dict[str, dict[str, float]]:
        """Figures of the last step that each parameter took part in, of groups with ``stats=True``, by its name.

        ``param_norm`` is the 2-norm of the parameter before the step, ``grad_norm`` that of its gradient, unscaled and
        before clipping, ``update_norm`` that of what the step subtracted, and ``update_max`` the largest element of
        that. ``clipped`` is the share of the gradient's elements that ``clip_value`` bounded; ``nan`` and ``inf`` are
        counts. Elements that a mask leaves out count as zero. A parameter that has not been updated yet is left out.
        Names are those of named parameters, else ``"0"``, ``"1"``, ... in the order of the groups. A name that two
        groups have is followed by that number: ``"weight#2"``. On a GPU this waits. With DTensors the figures are of
        whole parameters, and every rank has to call this.
        """
        rows = self._run.rows
        every = list(self._places())
        if not any(self._own(group)["stats"] for group in self.param_groups):
            raise ValueError(f"{type(self).__name__}: stats() without stats=True, expected it in a group")
        found: dict[str, dict[str, float]] = {}
        if rows is None:
            return found
        names = [n for g in self.param_groups for n in dict.get(g, "param_names", [None] * len(g["params"]))]
        times = Counter(names)  # groups of two models may have the same names
        shards: list[list[float]] = rows.tolist()
        dimensions = _mesh.dimensions([p for _, _, p in every], range(len(every)))
        for (k, group, p), name, row in zip(every, names, _ranks.statistics(shards, dimensions), strict=False):
            figures = dict(zip(STATISTICS, row, strict=True))
            if figures["clipped"] >= 0 and self._own(group)["stats"]:
                figures["clipped"] /= max(p.numel(), 1)
                found[str(k) if name is None else name if times[name] == 1 else f"{name}#{k}"] = figures
        return found

    # ------------------------------------------------------------------------------------------------------- in a step

    def _before_riding(self, riding: list[Riding]) -> tuple[dict[str, Any], Before]:
        """What the core is told beside its groups; how many steps were skipped, where the host knows, and how many the
        groups with averages have averaged over."""
        label, first = type(self).__name__, next((p for _, _, p in self._places()), None)
        counts: list[Any] = []
        for core, group, own in riding:
            if own["ema_decay"] is not None:
                counts.append(count := self._ema_step(group))
                if on_gpu(first) and (count == 0 or own["ema_warmup"] is not None):
                    self._check_not_capturing(label, own["ema_warmup"])
                core.ema_weight = rides.weight(label, count, own)
        more: dict[str, Any] = {}
        if any(own["stats"] for _, _, own in riding):
            more["stats"] = self._run.place_rows(sum(len(g["params"]) for g in self.param_groups), first)
        values = self._run.values
        skipped = None if values is None or isinstance(values, torch.Tensor) else float(values[3])
        return more, (skipped, counts)

    def _after_riding(self, riding: list[Riding], before: Before) -> None:
        values, (skipped, counts) = self._run.values, before
        if skipped is not None and values is not None and float(values[3]) != skipped:
            return
        averaging = [group for _, group, own in riding if own["ema_decay"] is not None]
        for group, count in zip(averaging, counts, strict=True):
            group[rides.EMA_STEP] = count + 1
        if averaging and self._run.attached is not None:
            self._run.attached[0].n_averaged.add_(1)

    def _ema_step(self, group: dict[str, Any]) -> int:
        attached, params = self._run.attached, group["params"]
        of_model = attached is not None and any(p in attached[1] for p in params)  # not a group that was added later
        if attached is not None and of_model and not on_gpu(attached[0].n_averaged):
            return int(attached[0].n_averaged)
        count = check.step_count(type(self).__name__, rides.EMA_STEP, dict.get(group, rides.EMA_STEP, 0), 0)
        states = (self.state.get(p) for p in params)
        anew = params and not of_model and not any(isinstance(s, Mapping) and rides.EMA in s for s in states)
        return 0 if anew else count  # state.clear() starts anew

    @staticmethod
    def _check_not_capturing(label: str, warmup: Any) -> None:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            why = "a first step" if warmup is None else f"a step with ema_warmup {warmup!r}"
            raise RuntimeError(
                f"{label}: {why} cannot be captured: a graph would average with the same weight in every replay; take "
                "the first step before, without ema_warmup"
            )

    # ------------------------------------------------------------------------------------------------- keys of a group

    def _own(self, group: dict[str, Any]) -> dict[str, Any]:
        return _groups.run_time(group, self._run_time)

    def _places(self) -> Iterator[tuple[int, dict[str, Any], torch.Tensor]]:
        """Every parameter, with its number and its group."""
        k = 0
        for group in self.param_groups:
            for p in group["params"]:
                yield k, group, p
                k += 1

    def _loaded(self, group: dict[str, Any], before: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Takes these keys out of a group that was loaded in the place of another; all options that count now."""
        step = group.pop(rides.EMA_STEP, 0)
        lr = group.pop(rides.DECAY_LR, None)
        if lr is None:
            lr = dict.get(cast("dict[str, Any]", before), rides.DECAY_LR, self.__dict__.get("_decay_lr"))
        return {**self.defaults, **group, **own, rides.EMA_STEP: step, rides.DECAY_LR: lr}

    def _follow_loaded(self) -> None:
        """State is another: where its masks are, and the averaged model that is attached."""
        self._find_masks()
        if self._run.attached is None:
            return
        model, attached = self._run.attached
        loaded = 0
        for p, average in attached.items():
            state = self.state[p]
            if rides.EMA in state and state[rides.EMA] is not average:
                average.copy_(state[rides.EMA])
                loaded += 1
            state[rides.EMA] = average
        if loaded:
            counts = [dict.get(g, rides.EMA_STEP) for g in self.param_groups]
            model.n_averaged.fill_(next((n for n in counts if n is not None), 0))


@torch.no_grad()
def _copy(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
