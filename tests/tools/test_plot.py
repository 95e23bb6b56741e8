"""``fusedstep.plot`` draws what ``opt.stats()`` returns."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest

import fusedstep.numpy
from fusedstep.reference import STATISTICS
from tests.helpers.tools import need_package


def history(steps: int = 3) -> list[dict[str, dict[str, float]]]:
    rng = np.random.default_rng(0)
    opt = fusedstep.numpy.AdamW([np.ones(3), np.ones((2, 2))], clip_value=0.5, stats=True)
    found = []
    for step in range(steps):
        opt.step([rng.standard_normal(3), None if step == 1 else rng.standard_normal((2, 2))])
        found.append(opt.stats())
    return found


def drawn(figure: Any) -> list[str]:
    return [panel.get_ylabel() for panel in figure.axes]


def test_lines_over_steps() -> None:
    need_package("matplotlib")
    from fusedstep import plot

    steps = history()
    figure = plot.stats(steps)
    assert drawn(figure) == list(STATISTICS[:5])  # no NaN and no Inf: no panel for them
    lines = figure.axes[1].get_lines()
    assert [line.get_label() for line in lines] == ["0", "1"]
    assert list(lines[0].get_ydata()) == [row["0"]["grad_norm"] for row in steps]
    assert math.isnan(lines[1].get_ydata()[1])  # took no part
    assert figure.axes[1].get_yscale() == "log"
    assert figure.axes[4].get_yscale() == "linear"
    only = plot.stats(steps, names=["1"])
    assert [line.get_label() for line in only.axes[0].get_lines()] == ["1"]


def test_bars_of_one_step(tmp_path: Any) -> None:
    need_package("matplotlib")
    from fusedstep import plot

    (row,) = history(1)
    figure = plot.stats(row)
    assert [bar.get_height() for bar in figure.axes[2].patches] == [row[n]["update_norm"] for n in ("0", "1")]
    figure.savefig(tmp_path / "stats.png")
    assert (tmp_path / "stats.png").stat().st_size > 1000
    assert drawn(plot.stats([])) == drawn(plot.stats({})) == [""]


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    need_package("matplotlib")
    from fusedstep import plot

    steps = history(1)
    with pytest.raises(ValueError, match=r"plot.stats: names has '7', expected of 0, 1"):
        plot.stats(steps, names=["7"])
    for bad, where in (({"0": {"grad_norm": 1.0}}, r"steps\[0\]\['0'\]"), ([*steps, 3], r"steps\[1\]")):
        with pytest.raises(TypeError, match=rf"plot.stats: {where} is not what opt.stats\(\) returns"):
            plot.stats(bad)  # type: ignore[arg-type]
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"fusedstep.plot needs matplotlib: pip install fusedstep\[plot\]"):
        plot.stats(steps)
