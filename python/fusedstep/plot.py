"""Pictures of what ``opt.stats()`` returns. Needs matplotlib: ``pip install fusedstep[plot]``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .reference import STATISTICS

__all__ = ["stats"]

Figures = Mapping[str, Mapping[str, float]]  # of each tensor by its name, as stats() returns them


def stats(steps: Figures | Sequence[Figures], *, names: Sequence[str] | None = None) -> Any:
    """A ``matplotlib.figure.Figure`` of what ``opt.stats()`` returned: ``.savefig("stats.png")`` writes it.

    Args:
        steps: a list of such dicts draws a line over the steps for each tensor; a single one, a bar for each.
        names: of the tensors to draw; None is all.

    Norms have a logarithmic axis. A panel whose figures are all zero is left out.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("fusedstep.plot needs matplotlib: pip install fusedstep[plot]") from error
    rows: list[Figures] = [steps] if isinstance(steps, Mapping) else list(steps)
    _check(rows)
    known = list(dict.fromkeys(name for row in rows for name in row))
    chosen = known if names is None else list(names)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"plot.stats: names has {unknown[0]!r}, expected of {', '.join(known) or 'none'}")
    values = {s: {n: [row[n][s] if n in row else math.nan for row in rows] for n in chosen} for s in STATISTICS}
    drawn = [s for s in STATISTICS if any(row[n][s] != 0 for row in rows for n in chosen if n in row)]
    figure = Figure(figsize=(7, 1 + 2.2 * max(len(drawn), 1)), layout="constrained")
    panels = figure.subplots(max(len(drawn), 1), sharex=True, squeeze=False)[:, 0]
    for panel, s in zip(panels, drawn, strict=False):
        if isinstance(steps, Mapping):
            panel.bar(chosen, [line[0] for line in values[s].values()])
            panel.tick_params("x", rotation=90)
        else:
            for name, line in values[s].items():
                panel.plot(line, label=name, linewidth=1)
            panel.set_xlabel("step" if s == drawn[-1] else "")
        if s in ("param_norm", "grad_norm", "update_norm", "update_max"):
            panel.set_yscale("log", nonpositive="clip")
        panel.set_ylabel(s)
    if not isinstance(steps, Mapping) and 0 < len(chosen) <= 20 and drawn:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def _check(rows: Sequence[Any]) -> None:
    for k, row in enumerate(rows):
        for name, figures in row.items() if isinstance(row, Mapping) else [(None, None)]:
            if not isinstance(figures, Mapping) or any(s not in figures for s in STATISTICS):
                where = f"steps[{k}]" if name is None else f"steps[{k}][{name!r}]"
                raise TypeError(
                    f"plot.stats: {where} is not what opt.stats() returns, expected its dict or a list of such"
                )
