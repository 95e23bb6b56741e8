"""Functions with signatures of their own, made from what is declared once.

As ``dataclasses`` makes ``__init__``: type checkers read the stubs that ``tools/generate.py`` writes from the same
signatures; ``inspect``, ``help`` and pickle see an ordinary function of an ordinary module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any

from . import _docs
from ._rule import Option, Rule

POSITIONAL, KEYWORD_ONLY = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
REQUIRED = Parameter.empty


def parameter(name: str, annotation: str = "Any", default: Any = REQUIRED, keyword_only: bool = False) -> Parameter:
    return Parameter(name, KEYWORD_ONLY if keyword_only else POSITIONAL, default=default, annotation=annotation)


def parameter_of(o: Option) -> Parameter:
    return parameter(o.name, o.annotation, o.default, o.keyword_only)


def make(
    name: str, qualname: str, signature: Signature, call: Callable[..., Any], doc: str, names: Mapping[str, Any]
) -> Any:
    """A function that passes ``call`` its arguments by name, those without a default by position.

    ``names``: what annotations mean (``typing.get_type_hints`` looks them up), ``__name__`` among them: its module.
    """
    heads, passed, star = [], [], False
    for p in signature.parameters.values():
        if p.kind is KEYWORD_ONLY and not star:
            heads.append("*")
            star = True
        heads.append(p.name if p.default is REQUIRED else f"{p.name}=_default[{p.name!r}]")
        passed.append(f"{p.name}={p.name}" if star or p.default is not REQUIRED else p.name)
    source = f"def {name}({', '.join(heads)}):\n    return _call({', '.join(passed)})\n"
    scope = {**names, "_call": call, "_default": {p.name: p.default for p in signature.parameters.values()}}
    exec(compile(source, f"<{names['__name__']}.{qualname}>", "exec"), scope)
    function = scope[name]
    function.__qualname__, function.__doc__ = qualname, doc
    function.__annotations__ = {p.name: p.annotation for p in signature.parameters.values() if p.name != "self"}
    function.__annotations__["return"] = signature.return_annotation
    return function


def make_class(
    rule: type[Rule],
    bases: tuple[type, ...],
    params: str,
    own: Iterable[Option],
    shared: Mapping[str, Option],
    names: Mapping[str, Any],
    example: str = "",
    **members: Any,
) -> Any:
    """A subclass of ``bases`` for a rule, whose ``__init__`` hands all arguments to the first of them.

    ``params``: what they may be. ``shared``: the options that the first base explains. ``names``: as for :func:`make`.
    """
    name, own = rule.__name__, list(own)
    parameters = [parameter("self"), parameter("params"), *map(parameter_of, (*own, *shared.values()))]

    def init(self: Any, params: Any, **options: Any) -> None:
        bases[0].__init__(self, params, **options)  # type: ignore[misc]

    made = make("__init__", f"{name}.__init__", Signature(parameters, return_annotation="None"), init, "", names)
    entries = [("params", params), *((o.name, o.text + _docs.default_of(o)) for o in own)]
    entries.append((", ".join(shared), f"see :class:`{bases[0].__name__}`"))
    doc = "\n\n".join(filter(None, [_docs.text_of(rule), example, _docs.arguments(entries)])) + "\n"
    return type(
        name, bases, {"__init__": made, "__doc__": doc, "__module__": names["__name__"], "_rule": rule, **members}
    )
