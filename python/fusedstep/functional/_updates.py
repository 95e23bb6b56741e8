"""The update of each optimizer as a function of :mod:`fusedstep.functional`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import Signature, signature
from typing import Any, Literal

from .. import _arguments as check
from .. import _core, _docs, _dtypes
from .. import _rides as rides
from .._rule import DECAY_LR, ERROR_IF_NONFINITE, RIDES, RUN_TIME, SEED, Option, of_call
from .._signatures import make, parameter, parameter_of
from ..rules import ALL, Rule

Arrays = Any  # one array, or a list of arrays
_NAMES = {"__name__": "fusedstep.functional", "Any": Any, "Literal": Literal, "Arrays": Arrays, "Sequence": Sequence}

# What rides along: keywords of every update too.
BESIDE: tuple[Option, ...] = (
    *(RIDES[name] for name in ("l1", "cautious", "cautious_decay", "decay_mode")),
    replace(DECAY_LR, text="the learning rate of that"),
    of_call(
        "masks",
        None,
        'Arrays | Literal["nonzero"] | None',
        "bool arrays, or None for a parameter without one: where False, the parameter and its state become zero (what "
        'state starts from, if that is another number); ``"nonzero"`` keeps zeros zero',
    ),
    of_call("emas", None, "Arrays | None", "moving averages of ``params``: float32, or float64 or complex as they are"),
    of_call(
        "ema_weight",
        None,
        "float | None",
        "what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a gradient may then be "
        "None",
    ),
    of_call("stats_out", None, "Any", "a float64 array of a row of 7 for each parameter: ``reference.statistics``"),
)
# Keywords of every update.
CALL: tuple[Option, ...] = (
    of_call(
        "grad_scale", 1.0, "float", "what the gradients were multiplied by (loss scaling), > 0; they are divided by it"
    ),
    RUN_TIME["max_norm"],
    of_call("norm_type", 2.0, "float", "order of that norm: 1, 2, inf, or any p > 0"),
    of_call("per_tensor", False, "bool", "clip each gradient to ``max_norm`` on its own"),
    RUN_TIME["clip_value"],
    RUN_TIME["nonfinite"],
    ERROR_IF_NONFINITE,
    of_call("norm_out", None, "Any", "on CUDA devices: where to leave the norm, instead of returning it"),
    of_call("stream", None, "int | None", "on CUDA devices: the stream to work on"),
    SEED,
    of_call(
        "tensor",
        None,
        "int | Sequence[int] | None",
        "what these random numbers tell parameters apart by: a number of one parameter, or one for each, the same in "
        "every step; None is 0, 1, ... in the order of ``params``",
    ),
    *BESIDE,
)
_OFF = {o.name: o.default for o in BESIDE}
_OF_CALL = tuple(o.name for o in CALL if o.name not in _OFF)


def options_of(rule: type[Rule]) -> dict[str, Option]:
    """Without those that only say which state there is, or what it starts from: here the arrays say so."""
    chosen = {s.when for s in rule.states if rule.options.get(s.when, rule.options["lr"]).kind == "flag"}
    chosen |= {s.start for s in (*rule.states, *rule.numbers) if isinstance(s.start, str) and s.start != "lr"}
    return {n: o for n, o in rule.own.items() if n not in chosen}


def _required(rule: type[Rule]) -> list[str]:
    """The arguments for states that every variant has."""
    return [s.argument for s in rule.states if not s.when] + [n.argument for n in rule.numbers]


def _may_draw(rule: type[Rule]) -> bool:
    """Whether random numbers may be needed, for which steps are counted."""
    return any(s.kind == "unsigned" for s in rule.states)


def _signature_of(rule: type[Rule]) -> Signature:
    states = [
        parameter(s.argument, "Arrays | None" if s.when else "Arrays", *([None] if s.when else [])) for s in rule.states
    ]
    states += [parameter(n.argument, "Arrays") for n in rule.numbers]
    step = signature(rule.specification).parameters.get("step")
    counts = [] if step is None else [parameter("step", "int | Sequence[int]", step.default, True)]
    if not counts and _may_draw(rule):
        counts = [parameter("step", "int | Sequence[int] | None", None, True)]
    options = [
        parameter(n, o.annotation, *([] if n == "lr" else [o.default]), keyword_only=True)
        for n, o in options_of(rule).items()
    ]
    arrays = [parameter("params", "Arrays"), parameter("grads", "Arrays"), *states]
    return Signature([*arrays, *counts, *options, *map(parameter_of, CALL)], return_annotation="Any")


def _doc_of(rule: type[Rule]) -> str:
    entries = [("params, grads", "arrays (see the module), ``params`` updated in place")]
    for s in rule.states:
        needs = f"; given if and only if ``{s.when}`` is not 0" if s.when in options_of(rule) else ""
        given = f"; given, the update is that with ``{s.when}``" if s.when and not needs else ""
        start = f"; starts at ``{s.start}``" if s.start in options_of(rule) else ""
        entries.append((s.argument, f"state, updated in place{start}{needs}{given}"))
    for n in rule.numbers:
        start = f"``{n.start}``" if isinstance(n.start, str) else n.start
        text = f"state of one number, float32 or float64, updated in place; starts at {start}, where its parameter is"
        entries.append((n.argument, text))
    if rule.needs_step:
        entries.append(("step", "1 in the first call, one number or one per parameter"))
    elif _may_draw(rule):
        entries.append(("step", "1 in the first call, one number or one per parameter; needed for bfloat16 state"))
    entries += [(n, f"{o.text}{_docs.default_of(o)}") for n, o in options_of(rule).items()]
    entries += [(o.name, f"{o.text}, default {o.default!r}") for o in CALL]
    returns = "None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``."
    return f"{_docs.text_of(rule)}\n\n{_docs.arguments(entries)}\n\nReturns:\n    {returns}\n"


def _update(rule: type[Rule], params: Any, grads: Any, given: dict[str, Any], options: dict[str, Any]) -> Any:
    label = rule.name()
    call = {name: options.pop(name) for name in _OF_CALL}
    rode = {name: value for name, off in _OFF.items() if (value := options.pop(name)) is not off}
    step, params = options.pop("step", 1), check.arrays(params)
    steps = check.steps(label, 1 if step is None and not rule.needs_step else step, len(params))
    ids = call.pop("tensor")
    tensors = None if ids is None else check.tensor_ids(label, "tensor", ids, len(params))
    for s in rule.states:
        name, arrays = s.argument, given[s.argument]
        if s.when in options:
            o = rule.options[s.when]
            if (arrays is None) == any(o.numbers(label, options[s.when])):
                have = f"no {name}" if arrays is None else name
                raise ValueError(f"{label}: {s.when} is {options[s.when]} with {have}, expected both or neither")
        elif s.when:
            options[s.when] = arrays is not None
    for name in _required(rule):
        if given[name] is None:
            raise TypeError(f"{label}: {name} is None, expected an array or a list of arrays")
    options = {**rule.defaults, **options, "max_norm": call["max_norm"], "clip_value": call["clip_value"]}
    options["seed"] = call.pop("seed")
    lists = {name: check.arrays(arrays) for name, arrays in given.items() if arrays is not None}
    beside: _core.Beside | None = None
    if rode:
        group, beside = _group(rule, label, options, rode, tuple(lists))
    else:
        group = rule.group(label, options, state_args=tuple(lists))
    if step is None:
        _check_needs_no_step(rule, lists)
    has_norm = call.pop("max_norm") is not None
    call.pop("clip_value")
    per_tensor = check.flag(label, "per_tensor", call["per_tensor"])
    call["nonfinite"] = check.nonfinite(label, call["nonfinite"], call.pop("error_if_nonfinite"))
    check.needs_norm(label, call["nonfinite"], has_norm)
    if per_tensor and not has_norm:
        raise ValueError(f"{label}: per_tensor without max_norm, expected both or neither")
    if per_tensor and call["nonfinite"] == "skip":
        raise ValueError(f"{label}: nonfinite='skip' with per_tensor, expected 'propagate' or 'raise'")
    if call["norm_out"] is not None and not has_norm:
        raise ValueError(f"{label}: norm_out without max_norm, expected both or neither")
    arrays = list(lists.values())
    of_group = (group, params, check.arrays(grads), arrays, steps, None, tensors)
    groups: list[_core.ListsGroup] = [of_group if beside is None else (*of_group, beside)]
    return step_arrays(label, groups, stats=rode.get("stats_out"), **call)


def _group(
    rule: type[Rule], label: str, options: dict[str, Any], rode: Mapping[str, Any], state_args: tuple[str, ...]
) -> tuple[_core.Group, _core.Beside | None]:
    """The core's group, and the arrays that ride along, if there are some."""
    options = options | {n: v for n, v in rode.items() if n in RIDES or n == DECAY_LR.name}
    masks = rides.mask_arrays(label, rode.get("masks"))
    emas = None if "emas" not in rode else check.arrays(rode["emas"])
    weight = rode.get("ema_weight")
    if (emas is None) != (weight is None):
        have = "ema_weight without emas" if emas is None else "emas without ema_weight"
        raise ValueError(f"{label}: {have}, expected both or neither")
    weight = None if weight is None else rides.ZERO_TO_ONE.check(label, "ema_weight", weight)
    if rides.needs_decay_lr(options.get("decay_mode", "lr")) and options.get(DECAY_LR.name) is None:
        raise ValueError(f"{label}: decay_mode is {options['decay_mode']!r} without decay_lr, expected a number > 0")
    listed = None if isinstance(masks, str) else masks
    options = options | {"mask": "nonzero" if isinstance(masks, str) else None, "stats": "stats_out" in rode}
    ema = emas is not None
    group = rule.group(label, options, state_args=state_args, masks=listed is not None, ema=ema)
    if weight is not None:
        group.ema_weight = weight
    return group, (listed, emas) if listed is not None or ema else None


def _check_needs_no_step(rule: type[Rule], lists: dict[str, list[Any]]) -> None:
    """The same random numbers in every step would push the same elements in one direction."""
    for name in (s.argument for s in rule.states if s.kind == "unsigned"):
        for k, a in enumerate(lists.get(name, ())):
            if _dtypes.name_of(getattr(a, "dtype", None)) == "bfloat16":
                text = "is bfloat16, which is rounded by random numbers of each step, and step is None"
                raise TypeError(f"{rule.name()}: {name}[{k}] {text}, expected a number >= 1")


def _function_of(rule: type[Rule]) -> Any:
    states, required = [s.argument for s in (*rule.states, *rule.numbers)], _required(rule)

    def update(params: Any, grads: Any, *given: Any, **options: Any) -> Any:
        arrays = dict(zip(required, given, strict=True))
        return _update(rule, params, grads, {n: arrays[n] if n in arrays else options.pop(n) for n in states}, options)

    return make(rule.name(), rule.name(), _signature_of(rule), update, _doc_of(rule), _NAMES)


def step_arrays(
    label: str,
    groups: list[_core.ListsGroup],
    *,
    grad_scale: float = 1.0,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    nonfinite: str = "propagate",
    norm_out: Any = None,
    stream: int | None = None,
    report: Any = None,
    stats: Any = None,
) -> Any:
    """One call of the core. Returns the norm, the norms or None."""
    return _core.step_arrays(
        groups,
        grad_scale=check.POSITIVE.check(label, "grad_scale", grad_scale),
        norm_type=check.norm_type(label, norm_type),
        per_tensor=check.flag(label, "per_tensor", per_tensor),
        nonfinite=nonfinite,
        norm_out=norm_out,
        stream=check.stream(label, stream),
        report=report,
        stats=stats,
    )


globals().update({rule.name(): _function_of(rule) for rule in ALL})
__all__ = sorted(rule.name() for rule in ALL)
