"""Options on the command line of the examples: optimizers and their options as ``fusedstep.rules`` declares them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from fusedstep.rules import ALL, Rule

RULES: dict[str, type[Rule]] = {rule.name(): rule for rule in ALL}
SUITED = {  # what suits small models, where the default does not
    "adabelief": "lr=0.01",
    "adagrad": "lr=0.03",
    "adam": "lr=0.003",
    "adamax": "lr=0.01",
    "adamw": "lr=0.003 weight_decay=0.1",
    "adan": "lr=0.01",
    "ademamix": "lr=0.003",
    "adopt": "lr=0.01",
    "asgd": "lr=1",
    "laprop": "lr=0.003",
    "lion": "lr=0.001",
    "nadam": "lr=0.005",
    "radam": "lr=0.01",
    "rmsprop": "lr=0.003",
    "rprop": "lr=0.001",
    "sgd": "lr=0.3 momentum=0.9 nesterov=true",
    "yogi": "lr=0.03",
}


def integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from ``low`` to ``high``."""

    def integer(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return integer


def parsed(rule: type[Rule], texts: list[str]) -> dict[str, Any]:
    """``lr=0.3 betas=0.9,0.98 amsgrad=true`` as options of a rule; ValueError or TypeError if one is none of it."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in rule.own:
            raise ValueError(f"{rule.__name__} has no option {name!r}, expected of {', '.join(rule.own)}")
        kind = rule.own[name].kind
        if kind == "flag":
            if value not in ("true", "false"):
                raise ValueError(f"{name} is {value!r}, expected true or false")
            found[name] = value == "true"
        elif value == "none" and rule.own[name].none is not None:
            found[name] = None
        else:
            numbers = tuple(map(float, value.split(",")))
            found[name] = numbers if kind == "several" else numbers[0]
    rule.check(rule.__name__, {**rule.defaults, **found})
    return found


def add_to(parser: argparse.ArgumentParser, *more: str) -> None:
    """--optimizer, of the rules and of what else a script knows, and --options."""
    parser.add_argument("--optimizer", choices=[*RULES, *more], default="adamw", help="default: %(default)s")
    parser.add_argument(
        "--options",
        nargs="+",
        metavar="NAME=VALUE",
        help="of the optimizer, as lr=0.3 momentum=0.9; default: what suits small models",
    )


def add_formats(parser: argparse.ArgumentParser, dtypes: tuple[str, ...], states: tuple[str, ...]) -> None:
    """--dtype and --state-dtype."""
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="of the model, default: %(default)s")
    parser.add_argument("--state-dtype", choices=states, help="of fusedstep's state, default: float32")


def chosen(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """The options that --options asks for; a bad one ends the script with its name."""
    texts = args.options if args.options is not None else SUITED.get(args.optimizer, "").split()
    try:
        return parsed(RULES[args.optimizer], texts)
    except (ValueError, TypeError) as error:
        parser.error(f"argument --options: {error}")
