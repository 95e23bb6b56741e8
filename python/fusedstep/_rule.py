"""What a declaration in ``rules/`` is made of. No array library's types, no torch: every face is built on this."""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from . import _arguments as check
from . import _core
from . import _rides as rides
from ._arguments import FINITE, FRACTION, GROWING, LIMIT, NON_NEGATIVE, POSITIVE, SHRINKING, STEPS, UNIT, Range

# What declarations are written with.
__all__ = ["CAPTURABLE", "DIFFERENTIABLE", "FINITE", "FOREACH", "FRACTION", "FUSED", "GROWING", "KEYWORD_ONLY"]
__all__ += ["LIMIT", "MAXIMIZE", "NON_NEGATIVE", "POSITIVE", "SHRINKING", "STEPS", "UNIT", "Options", "Rule"]
__all__ += ["StateNumber", "array", "decay", "flag", "ignored", "learning_rate", "number", "several"]

Options = Mapping[str, Any]
Check = Callable[[str, str, Any], Any]  # label, name, value
KEYWORD_ONLY = object()  # in a declaration: what follows it is


@dataclass(frozen=True)
class Option:
    """One option of an optimizer, named by the attribute that it is assigned to."""

    default: Any
    text: str
    kind: Literal["number", "several", "flag", "torch", "call"]  # torch: of the torch class alone; call: of no rule
    ranges: tuple[Range, ...] = ()  # of each number
    into: tuple[str, ...] = ()  # of several numbers: the kernel's names
    annotation: str = "float"  # of a torch option, and of others where no tensor is meant
    name: str = ""
    keyword_only: bool = False
    checked: Check | None = None  # of a call
    none: float | None = None  # of a number: what None is to the kernel, where it may be None
    ignored: bool = False  # of a torch option: no group has it

    @property
    def kernel_names(self) -> tuple[str, ...]:
        return self.into or (self.name,)

    def numbers(self, label: str, value: Any) -> tuple[float, ...]:
        """The value as the kernel's numbers; ValueError or TypeError if it is none."""
        if self.kind == "flag":
            return (float(check.flag(label, self.name, value)),)
        if self.kind == "several":
            values = zip(self.ranges, check.several(label, self.name, value, len(self.into)), strict=True)
            return tuple(r.check(label, f"{self.name}[{k}]", v) for k, (r, v) in enumerate(values))
        if value is None and self.none is not None:
            return (self.none,)
        (range,) = self.ranges
        try:
            return (range.check(label, self.name, value),)
        except (ValueError, TypeError) as error:
            if self.none is None:
                raise
            raise type(error)(f"{error} or None") from None


def of_call(name: str, default: Any, annotation: str, text: str, checked: Check | None = None) -> Option:
    """An option that every optimizer has, and that belongs to what is called rather than to what is trained."""
    return Option(default, text, "call", annotation=annotation, name=name, keyword_only=True, checked=checked)


def _limit(name: str, text: str) -> Option:
    return of_call(name, None, "float | None", text, check.limit_or_none)


_OF_A_RUN = (
    _limit("max_norm", "clip the gradients, as one vector, to this norm, in the same pass over memory"),
    _limit("clip_value", "bound on each element of the gradient, after ``max_norm``; not for complex ones"),
    of_call(
        "nonfinite",
        "propagate",
        'Literal["propagate", "skip", "raise"]',
        'what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch\'s would be; '
        '``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed. Needs a '
        '``max_norm``; not ``"skip"`` with ``per_tensor``',
        lambda label, _, value: check.nonfinite(label, value),
    ),
    of_call(
        "state_dtype",
        None,
        "str | Mapping[str, str] | None",
        'what state arrays are stored as: ``"float32"``, ``"bfloat16"``, or a dict of these by their names; None: '
        "float32, or the parameter's dtype where that is float64 or complex",
        check.state_dtype,
    ),
)
_OF_RIDES = (
    of_call(
        "l1",
        0.0,
        "float",
        "L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there",
        NON_NEGATIVE.check,
    ),
    of_call(
        "mask",
        None,
        'Literal["nonzero"] | None',
        '``"nonzero"``: what is zero stays zero, with its state, as in a model that was pruned before',
        rides.mask,
    ),
    of_call(
        "cautious",
        False,
        'Literal[False, "unscaled"]',
        '``"unscaled"``: elements that would move against their gradient stay where they are',
        rides.cautious,
    ),
    of_call("cautious_decay", False, "bool", "decay acts only where the step goes towards zero too", check.flag),
    of_call(
        "decay_mode",
        "lr",
        'Literal["lr", "fixed", "relative", "squared"]',
        "what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr * weight_decay`` or "
        "``lr * lr / decay_lr * weight_decay``",
        rides.decay_mode,
    ),
    of_call(
        "ema_decay",
        None,
        "float | None",
        "keep a moving average of the parameters, in float32, which forgets by this factor in each step",
        rides.ema_decay,
    ),
    of_call(
        "ema_warmup",
        None,
        'Literal["linear", "mean", "power"] | Mapping[str, Any] | None',
        "how that factor grows to ``ema_decay``",
        rides.ema_warmup,
    ),
    of_call("stats", False, "bool", "leave figures of each tensor, for ``stats()``", check.flag),
)
RIDES = {o.name: o for o in _OF_RIDES}  # docs/ride-alongs.md
OF_A_RUN = {o.name: o for o in _OF_A_RUN}
RUN_TIME = {**OF_A_RUN, **RIDES}  # in no checkpoint
DECAY_LR = of_call(
    "decay_lr", None, "float | None", "the learning rate of that; None is the ``lr`` at construction", rides.decay_lr
)
SEED = of_call("seed", 0, "int", "of the random numbers that bfloat16 state is rounded with, modulo 2**64", check.seed)
# Of the torch classes alone: where gradients are, and torch's word for one of the above.
GRAD_ATTR = of_call("grad_attr", "grad", "str", "the attribute of a parameter that has its gradient", check.attribute)
_CHECKED = {o.name: o.checked for o in (*RUN_TIME.values(), DECAY_LR, SEED, GRAD_ATTR) if o.checked}
ERROR_IF_NONFINITE = of_call("error_if_nonfinite", False, "bool", 'torch\'s word for ``nonfinite="raise"``')


def number(default: float | None, range: Range, text: str, none: float | None = None) -> Any:
    """An option that is a number; or None, which the kernel knows by the number ``none``."""
    return Option(default, text, "number", (range,), annotation="float" if none is None else "float | None", none=none)


def several(default: tuple[float, ...], ranges: Range | tuple[Range, ...], into: tuple[str, ...], text: str) -> Any:
    """An option that is so many numbers, which the kernel knows by the names ``into``; in one range, or one each."""
    ranges = (ranges,) * len(into) if isinstance(ranges, Range) else ranges
    assert len(default) == len(ranges) == len(into) > 1
    return Option(default, text, "several", ranges, into, annotation=f"tuple[{', '.join(['float'] * len(into))}]")


def flag(default: bool, text: str) -> Any:
    """An option that is on or off."""
    return Option(default, text, "flag", annotation="bool")


def of_torch(default: Any, annotation: str, text: str) -> Any:
    """An argument that torch's class has and that no kernel sees."""
    return Option(default, text, "torch", annotation=annotation)


def learning_rate(default: float) -> Any:
    return number(default, NON_NEGATIVE, "learning rate")


def decay(default: float = 0.0, text: str = "L2 decay: ``weight_decay * p`` is added to the gradient") -> Any:
    return number(default, NON_NEGATIVE, text)


def ignored(default: Any, annotation: str, text: str) -> Any:
    """An argument of another package's class that asks for nothing here."""
    return Option(default, text, "torch", annotation=annotation, ignored=True)


MAXIMIZE = flag(False, "ascend instead of descend")
FOREACH = of_torch(None, "bool | None", "refused if True: all tensors are updated in one pass here")
DIFFERENTIABLE = of_torch(False, "bool", "refused if True")
FUSED = of_torch(None, "bool | None", "True leaves unscaling and skipped steps of a GradScaler to the step")
CAPTURABLE = of_torch(False, "bool", "step counts live on the device, so that CUDA graphs can hold a step")


# How an array of each kind is stored where it has fewer bits than it is computed with; exact: it may not.
_ROUNDING = {
    "signed": "nearest",
    "unsigned": "stochastic",  # a running mean of squares: rounded to nearest it stops to decay
    "maximum": "nearest",  # a running maximum: rounded at random it would only rise
    "exact": "exact",
}


@dataclass(frozen=True)
class StateArray:
    """A state array per parameter, of its shape."""

    name: str  # torch's key
    kind: Literal["signed", "unsigned", "maximum", "exact"]  # which values a format has to hold
    when: str = ""  # the option that it takes: not zero, not False
    start: str = ""  # the option that its elements start from; zero otherwise
    exact_when: str = ""  # the option with which no bit of it may be lost, whatever its kind
    plural: str = ""  # what a function calls a list of them, where an option has the name with an s

    def __post_init__(self) -> None:
        assert self.kind in _ROUNDING

    def rounding(self, options: Options) -> str:
        """What happens where it is stored as bfloat16."""
        return "exact" if self.exact_when and options[self.exact_when] else _ROUNDING[self.kind]

    @functools.cached_property
    def argument(self) -> str:
        """Of the function, for a list of them."""
        return self.plural or f"{self.name}s"


def array(
    name: str,
    kind: Literal["signed", "unsigned", "maximum", "exact"],
    when: str = "",
    start: str = "",
    exact_when: str = "",
    plural: str = "",
) -> StateArray:
    return StateArray(name, kind, when, start, exact_when, plural)


@dataclass(frozen=True)
class StateNumber:
    """A state of one number per parameter, beside its step count: an array of no dimension."""

    name: str  # torch's key
    start: float | str  # a number, or the option that it starts from

    @property
    def argument(self) -> str:
        """Of the function, for a list of them."""
        return f"{self.name}s"


class Rule:
    """One optimizer: a subclass declares its options as attributes in torch's order, then what follows.

    The docstring has formula, papers, differences from torch, and an example that runs on NumPy.
    """

    kernel: ClassVar[str]  # the family of kernels
    states: ClassVar[tuple[StateArray, ...]] = ()  # in the kernel's order
    numbers: ClassVar[tuple[StateNumber, ...]] = ()  # in the kernel's order
    choices: ClassVar[str] = ""  # what its options make of it, for the table of optimizers
    torch_class: ClassVar[str] = ""  # the class of torch.optim that the torch class is mixed with, if there is one
    takes_sparse: ClassVar[str] = "torch.optim.SparseAdam"  # torch's class for sparse gradients, as this one takes none
    has_step: ClassVar[bool] = True  # the state has a step count
    decoupled: ClassVar[bool] = False  # weight decay always is; else this option says so, if there is one:
    decoupled_by: ClassVar[str] = "decoupled_weight_decay"
    spares_first: ClassVar[bool] = False  # decoupled decay is left out of the first step

    specification: ClassVar[Callable[..., Any]]
    """``(g, p, *states, *numbers, **hyper)``, perhaps with ``step``: the direction ``d``, new states and numbers."""

    options: ClassVar[dict[str, Option]] = {}
    own: ClassVar[dict[str, Option]]  # without those of torch alone
    defaults: ClassVar[dict[str, Any]]  # of these, of the options of the run, and of the seed
    needs_step: ClassVar[bool]  # the specification's keywords have ``step``
    hyper_names: ClassVar[tuple[str, ...]]  # the others
    of_kernel: ClassVar[dict[str, Option]]  # whose numbers they are

    def __init_subclass__(cls) -> None:
        options, keyword_only = dict(cls.options), False
        for name, value in vars(cls).items():
            if value is KEYWORD_ONLY:
                keyword_only = True
            elif isinstance(value, Option):
                inherited = options.get(name)
                place = inherited.keyword_only if inherited else keyword_only
                options[name] = replace(value, name=name, keyword_only=place)
            elif name in options:
                del options[name]
        cls.options = options
        cls.own = {name: o for name, o in options.items() if o.kind != "torch"}
        cls.defaults = {name: o.default for name, o in (cls.own | OF_A_RUN | {"seed": SEED}).items()}
        arguments = inspect.signature(cls.specification).parameters
        cls.needs_step = "step" in arguments
        cls.hyper_names = tuple(n for n, a in arguments.items() if a.kind is a.KEYWORD_ONLY and n != "step")
        cls.of_kernel = {n: o for n, o in cls.own.items() if {*o.kernel_names} <= {*cls.hyper_names}}

    @classmethod
    def check_together(cls, label: str, options: Options) -> None:
        """Raise ValueError for options that exclude each other. All are there, each in its range."""

    @classmethod
    def decay_inside(cls, options: Options) -> bool:
        """Whether weight decay is a part of the direction d: a hyper-parameter, and no affair of the loop."""
        return False

    # ------------------------------------------------------------------------------------------- what follows from it

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()

    @classmethod
    def check(cls, label: str, options: Options, least_lr: float = 0.0) -> None:
        """Raise ValueError or TypeError for an option that is out of range; those that are missing pass."""
        for name, o in cls.own.items():
            if name not in options or (name == "lr" and least_lr <= check.number(label, name, options[name]) < 0):
                continue
            o.numbers(label, options[name])
        for name, checked in _CHECKED.items():
            if name in options:
                checked(label, name, options[name])
        if cls.own.keys() <= options.keys():
            cls.check_together(label, options)
            if not RIDES.keys().isdisjoint(options):
                switch = cls.decoupled_by if cls.decoupled_by in cls.own and not cls.decay_inside(options) else ""
                rides.check_together(label, options, cls.is_decoupled(options), switch)
            if options.get("state_dtype") is not None:
                cls.formats(label, options)

    @classmethod
    def state_of(cls, options: Options) -> tuple[StateArray, ...]:
        return tuple(s for s in cls.states if not s.when or options[s.when])

    @classmethod
    def state_names(cls, options: Options) -> tuple[str, ...]:
        """Of the arrays."""
        return tuple(s.name for s in cls.state_of(options))

    @classmethod
    def state_keys(cls, options: Options) -> tuple[str, ...]:
        """What a parameter's state has beside the step count, in the order in which the core takes it."""
        return (*cls.state_names(options), *(n.name for n in cls.numbers))

    @classmethod
    def starts(cls, options: Options) -> dict[str, float]:
        """What the elements of each state array start from, both parts of complex ones."""
        return {s.name: float(options[s.start]) if s.start else 0.0 for s in cls.state_of(options)}

    @classmethod
    def number_starts(cls, options: Options) -> dict[str, float]:
        """What each state of one number starts from."""
        return {n.name: float(options[n.start]) if isinstance(n.start, str) else n.start for n in cls.numbers}

    @classmethod
    def formats(cls, label: str, options: Options) -> dict[str, str]:
        """What each state array is stored as, of a parameter that is computed in float32; ValueError or TypeError for a
        ``state_dtype`` that this rule or this variant of it cannot have."""
        asked = check.state_dtype(label, "state_dtype", options.get("state_dtype"))
        if asked is None:
            return dict.fromkeys(cls.state_names(options), "float32")
        names = [s.name for s in cls.states]
        if isinstance(asked, dict) and (unknown := [name for name in asked if name not in names]):
            known = f"of {', '.join(names)}" if names else "of none"
            raise ValueError(f"{label}: state_dtype names {unknown[0]!r}, expected the name {known}")
        found = {}
        for s in cls.state_of(options):
            dtype = asked.get(s.name) if isinstance(asked, dict) else asked
            if dtype == "bfloat16" and s.rounding(options) == "exact":
                why = f" with {s.exact_when}" if s.exact_when and options[s.exact_when] else ""
                raise ValueError(
                    f"{label}: state_dtype of {s.name} is 'bfloat16', expected 'float32'{why}; a dict names the other "
                    "arrays alone"
                )
            found[s.name] = dtype or "float32"
        return found

    @classmethod
    def draws(cls, label: str, options: Options) -> bool:
        """Whether a state array is rounded by random numbers: these need a seed, and the parameter a number."""
        if options.get("state_dtype") is None:
            return False
        formats = cls.formats(label, options)
        arrays = cls.state_of(options)
        return any(formats[s.name] == "bfloat16" and s.rounding(options) == "stochastic" for s in arrays)

    @classmethod
    def is_decoupled(cls, options: Options) -> bool:
        """Whether weight decay multiplies the parameter by ``1 - lr * weight_decay`` instead of being L2."""
        return not cls.decay_inside(options) and (cls.decoupled or bool(options.get(cls.decoupled_by, False)))

    @classmethod
    def decay_outside(cls, options: Options) -> float:
        """The weight decay that the loop applies, before the rule."""
        return 0.0 if cls.decay_inside(options) else float(options.get("weight_decay", 0.0))

    @classmethod
    def hyper(cls, label: str, options: Options) -> dict[str, float]:
        """The kernel's hyper-parameters by its names."""
        found: dict[str, float] = {}
        for name, o in cls.of_kernel.items():
            found |= zip(o.kernel_names, o.numbers(label, options[name]), strict=True)
        if "weight_decay" in found and not cls.decay_inside(options):
            found["weight_decay"] = 0.0
        return found

    @classmethod
    def specified(cls, label: str, options: Options) -> dict[str, Any]:
        """Options as the function of :mod:`fusedstep.reference` takes them."""
        decay, inside = float(options.get("weight_decay", 0.0)), "weight_decay" in cls.hyper_names
        found: dict[str, Any] = dict(cls.hyper(label, options)) | {"weight_decay": decay}
        found |= {"decoupled": cls.is_decoupled(options), "maximize": bool(options["maximize"])}
        return found | ({"decay_inside": cls.decay_inside(options)} if inside else {})

    @classmethod
    def variants(cls) -> dict[tuple[str, ...], dict[str, Any]]:
        """Every set of state arrays, and the fewest options that select it."""
        switches = list(dict.fromkeys(s.when for s in cls.states if s.when))
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for on in sorted(itertools.product([False, True], repeat=len(switches)), key=sum):
            asked = {n: x if cls.options[n].kind == "flag" else 0.9 * x for n, x in zip(switches, on, strict=True)}
            chosen = {n: x for n, x in asked.items() if bool(x) != bool(cls.options[n].default)}
            found.setdefault(cls.state_names({**cls.defaults, **chosen}), chosen)
        return found

    @classmethod
    def group(
        cls,
        label: str,
        options: Options,
        *,
        least_lr: float = 0.0,
        capturable: bool = False,
        state_args: Sequence[str] | None = None,
        masks: bool = False,
        ema: bool = False,
    ) -> _core.Group:
        """Checked options as the compiled core keeps them. ``state_args``: names in messages, in place of torch's.
        ``masks``, ``ema``: whether such arrays come with the parameters."""
        cls.check(label, options, least_lr)
        riding: dict[str, Any] = {}
        if masks or ema or not RIDES.keys().isdisjoint(options):
            riding = rides.of_core(label, options, functools.partial(cls.starts, options), masks, ema)
        return _core.Group(
            label=label,
            rule=cls.kernel,
            states=cls.state_names(options),
            state_args=cls.state_keys(options) if state_args is None else state_args,
            hyper=cls.hyper(label, {**options, "lr": 0.0}) | {"lr": float(options["lr"])},
            weight_decay=cls.decay_outside(options),
            decoupled=cls.is_decoupled(options),
            maximize=bool(options["maximize"]),
            max_norm=None if options["max_norm"] is None else float(options["max_norm"]),
            clip_value=None if options["clip_value"] is None else float(options["clip_value"]),
            has_step=cls.has_step,
            takes_sparse=cls.takes_sparse,
            capturable=capturable,
            rounding=[s.rounding(options) for s in cls.state_of(options)],
            seed=check.seed(label, "seed", options["seed"]),
            draws=cls.draws(label, options),
            grad_attr=options.get("grad_attr", GRAD_ATTR.default),
            **riding,
        )


class KeptGroups:
    """The core's groups of an optimizer, each made anew where an option is another object than at the last step."""

    def __init__(self) -> None:
        self._known: list[tuple[list[Any], _core.Group] | None] = []

    def __reduce__(self) -> tuple[type[KeptGroups], tuple[()]]:
        return KeptGroups, ()  # a copy makes its own

    def get(self, k: int, values: list[Any], make: Callable[[], _core.Group]) -> _core.Group:
        """Group k, whose options have these values; only where all are immutable can their identity tell."""
        known = self._known[k] if k < len(self._known) else None
        if known is not None and (
            all(map(operator.is_, values, known[0])) or all(map(_is_same_or_equal_dict, values, known[0]))
        ):
            return known[1]
        group = make()
        self._known += [None] * (k + 1 - len(self._known))
        kept = [dict(v) if type(v) is dict else v for v in values]
        self._known[k] = (kept, group) if all(map(_is_immutable, kept)) else None
        return group


_IMMUTABLE = frozenset({float, int, bool, str, type(None)})


def _is_immutable(value: Any) -> bool:
    """A dict is when it is a copy of our own."""
    if type(value) in _IMMUTABLE:
        return True
    items = value if type(value) is tuple else value.values() if type(value) is dict else [value]
    return all(type(item) in _IMMUTABLE for item in items)


def _is_same_or_equal_dict(value: Any, known: Any) -> bool:
    return value is known or (type(value) is dict and bool(value == known))
