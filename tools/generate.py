"""Writes what follows from ``fusedstep.rules``: the list of rules, stubs, the table in README, docs/optimizers.

    python tools/generate.py          # write
    python tools/generate.py --check  # fail if something is not as it would be written

The package has to be installed as it is in this tree (the stubs come from its signatures), torch too.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python/fusedstep"
OPTIONS = "Every class also has the [options of clipping](../clipping.md), those of [what rides along]"
OPTIONS += "(../ride-alongs.md), `state_dtype` and `seed`."
BY = "# Written by tools/generate.py from fusedstep.rules."


def list_of_rules() -> str:
    """Of the files in ``rules/``, read and not imported: it has to work where a new one is not listed yet."""
    found: dict[str, str] = {}
    for path in sorted((PACKAGE / "rules").glob("[a-z]*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = path.stem
    names = sorted(found, key=str.lower)
    imports = "\n".join(f"from .{module} import {name}" for name, module in sorted(found.items(), key=lambda x: x[1]))
    every = f"ALL: tuple[type[Rule], ...] = ({', '.join(names)},)"
    by = "# Written by tools/generate.py from the files of this folder."
    return f"{by}\nfrom .._rule import Rule\n{imports}\n\n{every}\n"


def indented(text: str, by: str) -> str:
    return "\n".join(by + line if line else "" for line in text.rstrip().splitlines()) + "\n"


def docstring(text: str, by: str) -> str:
    return indented(f'"""{text.rstrip()}\n"""' if "\n" in text.strip() else f'"""{text.strip()}"""', by)


def signature_text(function: object) -> str:
    """``(self, params: Any, lr: float = 0.001, ...) -> None``; annotations are text in these signatures."""
    parts, star = [], False
    signature = inspect.signature(function)  # type: ignore[arg-type]
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        annotation = "" if p.annotation is p.empty else f": {p.annotation}"
        default = "" if p.default is p.empty else f" = {p.default!r}" if annotation else f"={p.default!r}"
        parts.append(f"{p.name}{annotation}{default}")
    return f"({', '.join(parts)}) -> {signature.return_annotation}"


def function_stub(function: object, name: str, doc: str, by: str = "") -> str:
    body = docstring(doc, by + "    ") if doc else ""
    return f"{by}def {name}{signature_text(function)}:{' ...' if not doc else ''}\n{body}"


def stubs() -> Iterator[tuple[Path, str]]:
    import fusedstep.torch
    from fusedstep import functional, numpy, reference, rules

    functions = [rule.name() for rule in rules.ALL]
    every = f"__all__ = {sorted(functions)!r}\n"
    text = "".join(function_stub(getattr(functional, n), n, getattr(functional, n).__doc__) for n in functions)
    call = "CALL: tuple[Option, ...]\n\ndef options_of(rule: type[Rule]) -> dict[str, Option]: ...\n"
    step = function_stub(functional._updates.step_arrays, "step_arrays", "")
    imports = "from collections.abc import Sequence\nfrom typing import Any, Literal\n\nfrom .. import _core\n"
    imports += "from .._rule import Option\nfrom ..rules import Rule\n\nArrays = Any\n"
    yield PACKAGE / "functional/_updates.pyi", f"{BY}\n{imports}{every}{call}{step}{text}"

    text = "".join(function_stub(getattr(reference, n), n, getattr(reference, n).__doc__) for n in functions)
    typing = "from collections.abc import Mapping\n" if "Mapping[" in text else ""
    typing += "from typing import Any\n\n" if ": Any" in text else ""
    yield PACKAGE / "reference/_specified.pyi", f"{BY}\n{typing}from .._arithmetic import Array\n\n{every}{text}"

    classes = [rule.__name__ for rule in rules.ALL]
    every = f"__all__ = {classes!r}\n"
    for path, module, base, imports in (
        (
            PACKAGE / "numpy/_classes.pyi",
            numpy,
            "Optimizer",
            "from numpy.typing import DTypeLike\n\nfrom ._optimizer import Optimizer\n",
        ),
        (
            PACKAGE / "torch/optimizers.pyi",
            fusedstep.torch,
            "FusedOptimizer",
            "import torch\nfrom torch import Tensor, dtype\n\n"
            "from .._rule import Option\nfrom ._base import FusedOptimizer\n",
        ),
    ):
        text = ""
        for rule in rules.ALL:
            cls = getattr(module, rule.__name__)
            of_torch = f", torch.optim.{rule.torch_class}" if module is fusedstep.torch and rule.torch_class else ""
            text += f"class {rule.__name__}({base}{of_torch}):\n{docstring(cls.__doc__, '    ')}\n"
            text += function_stub(cls.__init__, "__init__", "", "    ") + "\n"
        ours = "OURS: dict[str, Option]\n\n" if module is fusedstep.torch else ""
        imports = f"from collections.abc import Mapping\nfrom typing import Any, Literal\n\n{imports}"
        yield path, f"{BY}\n{imports}\n{every}\n{ours}{text}"


def table() -> str:
    from fusedstep import _docs, rules

    rows = [
        f"| [`{rule.__name__}`](docs/optimizers/{rule.name()}.md) | {rule.choices or '-'} | {_docs.papers_of(rule)} |"
        for rule in rules.ALL
    ]
    return "\n".join(["| class | variants | source |", "|---|---|---|", *rows])


def page(rule: type) -> str:
    """``docs/optimizers/<name>.md``."""
    from fusedstep import _docs, functional
    from fusedstep.functional._updates import options_of

    name, text = rule.__name__, _docs.text_of(rule)  # type: ignore[attr-defined]
    text = re.sub(r"::\n\n((?:    .*\n|\n)+)", lambda m: ":\n\n" + m[1], text)
    text = re.sub(r":class:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    lines = [f"# {name}", "", f"<!-- {BY[2:]} -->", "", text, "", "## Options", ""]
    lines += ["| option | default | range | meaning |", "|---|---|---|---|"]
    for option, o in rule.options.items():  # type: ignore[attr-defined]
        where = " (torch only)" if o.kind == "torch" else ""
        meaning = o.text.replace("``", "`")
        lines.append(f"| `{option}` | `{o.default!r}` | {_docs.range_of(o, option)} | {meaning}{where} |")
    lines += ["", OPTIONS, "", "## State", ""]
    for s in rule.states:  # type: ignore[attr-defined]
        needs = f", with `{s.when}`" if s.when else ""
        start = f"starts at `{s.start}`" if s.start else "starts at zero"
        exact = f"; always float32 with `{s.exact_when}`" if s.exact_when else ""
        lines.append(f"- `{s.name}`: an array of the parameter's shape, {s.kind}{needs}; {start}{exact}.")
    for n in rule.numbers:  # type: ignore[attr-defined]
        lines.append(f"- `{n.name}`: one number; starts at `{n.start}`.")
    if rule.has_step:  # type: ignore[attr-defined]
        lines.append("- `step`: how many steps were taken.")
    function = rule.name()  # type: ignore[attr-defined]
    arrays = [
        n for n, p in inspect.signature(getattr(functional, function)).parameters.items() if n not in options_of(rule)
    ]
    arrays = arrays[: arrays.index("step") if "step" in arrays else arrays.index("grad_scale")]
    lines += ["", "## Calls", "", "```python"]
    lines += [f"fusedstep.torch.{name}(params, ...)  # or fusedstep.torch.get({function!r})"]
    lines += [
        f"fusedstep.numpy.{name}(params, ...)",
        f"fusedstep.functional.{function}({', '.join(arrays)}, ...)",
        "```",
    ]
    lines += ["", "## Example", "", "```python", _docs.example_of(rule), "```", ""]
    return "\n".join(lines)


def everything() -> Iterator[tuple[Path, str]]:
    from fusedstep import rules

    yield from stubs()
    readme = ROOT / "README.md"
    marked = re.compile(r"(<!-- rules: begin -->\n).*?(<!-- rules: end -->)", re.DOTALL)
    yield readme, marked.sub(lambda m: m[1] + table() + "\n" + m[2], readme.read_text())
    for rule in rules.ALL:
        yield ROOT / f"docs/optimizers/{rule.name()}.md", page(rule)
    index = "\n".join(f"- [{rule.__name__}]({rule.name()}.md)" for rule in rules.ALL)
    yield ROOT / "docs/optimizers/README.md", f"# Optimizers\n\n<!-- {BY[2:]} -->\n\n{index}\n"


def formatted(path: Path, text: str) -> str:
    if path.suffix not in (".py", ".pyi"):
        return text
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_text(text)
        for action in (["check", "-q", "--select", "I,RUF022", "--fix"], ["format", "-q"]):
            command = [sys.executable, "-m", "ruff", *action, "--config", str(ROOT / "pyproject.toml"), str(file)]
            subprocess.run(command, check=True)
        return file.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something would change")
    check = parser.parse_args().check
    listed = PACKAGE / "rules/_all.py"
    wanted = formatted(listed, list_of_rules())
    if listed.read_text() != wanted:  # before anything is imported, which a wrong list may break
        if not check:
            listed.write_text(wanted)
        print("the list of rules is new: install the package again, then run this once more", file=sys.stderr)
        return 1
    differ = []
    for path, text in everything():
        wanted = formatted(path, text)
        if path.is_file() and path.read_text() == wanted:
            continue
        differ.append(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted)
    for path in differ:
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and differ else 0


if __name__ == "__main__":
    sys.exit(main())
