"""The examples of docs/frameworks.md, as they are and with torch.optim put back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


class Example(NamedTuple):
    section: str
    line: int
    code: str

    def with_torch(self) -> str:
        """``# before: x`` takes the place of the next line, ``# no longer: x`` its own; ours is not even imported."""
        lines, replaced = [], False
        for line in self.code.splitlines():
            indent, marker, old = re.fullmatch(r"( *)(?:# (before|no longer): )?(.*)", line).groups()
            if marker:
                assert not replaced, f"{self.section}: two comments for one line"
                lines.append(indent + old)
                replaced = marker == "before"
                if replaced:
                    lines.append("")  # so that lines keep their numbers; the next one goes
                continue
            if replaced:
                replaced = False
                continue
            lines.append("" if line == "import fusedstep.torch" else line)
        code = "\n".join(lines)
        assert "fusedstep" not in code, f"{self.section}: a line with fusedstep has no comment that says what was before"
        return code

    def run(self, code: str) -> dict[str, Any]:
        """What the script leaves. Tracebacks show its lines in the page."""
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile("\n" * self.line + code, str(PAGE), "exec"), names)
        return names


def examples() -> dict[str, Example]:
    section, found = "", {}
    text = PAGE.read_text().splitlines()
    for number, line in enumerate(text):
        if line.startswith("## "):
            section = line[3:]
        elif line == "```python":
            assert section not in found, f"two examples in {section}"
            code = "\n".join(text[number + 1 : text.index("```", number)])
            found[section] = Example(section, number + 1, code)
    return found
