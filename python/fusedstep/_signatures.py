"""Functions with signatures of their own, made from what is declared once.

As ``dataclasses`` makes ``__init__``: type checkers read the stubs that ``tools/generate.py`` writes from the same
signatures; ``inspect``, ``help`` and pickle see an ordinary function of an ordinary module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

POSITIONAL, KEYWORD_ONLY = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
REQUIRED = Parameter.empty


def parameter(name: str, annotation: str = "Any", default: Any = REQUIRED, keyword_only: bool = False) -> Parameter:
    return Parameter(name, KEYWORD_ONLY if keyword_only else POSITIONAL, default=default, annotation=annotation)


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
    bases: tuple[type, ...], signature: Signature, doc: str, names: Mapping[str, Any], members: Mapping[str, Any]
) -> Any:
    """A subclass of ``bases`` whose ``__init__`` has this signature and hands all arguments to the first of them.

    ``names``: as for :func:`make`. ``members["_rule"]`` names the class.
    """
    name = members["_rule"].__name__

    def init(self: Any, params: Any, **options: Any) -> None:
        bases[0].__init__(self, params, **options)  # type: ignore[misc]

    made = make("__init__", f"{name}.__init__", signature, init, "", names)
    return type(name, bases, {"__init__": made, "__doc__": doc, "__module__": names["__name__"], **members})
