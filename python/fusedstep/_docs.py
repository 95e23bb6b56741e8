"""Docstrings of functions and classes, from the declarations."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable

from ._rule import Option, Rule


def text_of(rule: type[Rule]) -> str:
    """The declaration's docstring without its example."""
    return inspect.cleandoc(rule.__doc__ or "").split("\n>>>")[0].rstrip()


def example_of(rule: type[Rule]) -> str:
    """The example that runs on NumPy."""
    return ">>>" + inspect.cleandoc(rule.__doc__ or "").split("\n>>>", 1)[1]


def papers_of(rule: type[Rule]) -> str:
    """Authors and years of the declaration's line of papers: "Hinton 2012; Graves 2013"."""
    found = re.search(r"^Papers?: (.*)", text_of(rule), re.MULTILINE)
    assert found, rule
    return "; ".join(re.findall(r"(?:^|; )(?:[^;:]*: )?([^;]*? \d{4})", found[1]))


def range_of(o: Option, name: str) -> str:
    if len(set(o.ranges)) < 2:
        text = "".join(r.text.format(name=f"each of {name}" if o.into else name) for r in o.ranges[:1])
        return text if o.none is None else f"{text} or None"
    texts = [(r.text if "{name}" in r.text else "{name}: " + r.text) for r in o.ranges]
    return "; ".join(text.format(name=f"{name}[{k}]") for k, text in enumerate(texts))


def default_of(o: Option) -> str:
    """ ", a finite number >= 0; default 0.001"."""
    range = range_of(o, o.name)
    return (f", {range}" if range else "") + ("" if o.default is None else f"; default {o.default!r}")


def arguments(entries: Iterable[tuple[str, str]]) -> str:
    """The section ``Args`` of a docstring."""
    lines = ["Args:"]
    for name, text in entries:
        lines += textwrap.wrap(f"{name}: {text}.", 112, initial_indent="    ", subsequent_indent="        ")
    return "\n".join(lines)
