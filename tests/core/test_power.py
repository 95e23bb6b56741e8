"""Powers of constants: the same bits in C++ and in the specification, and close to the powers of decimal arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from fusedstep import _core, reference
from tests.helpers.bits import assert_same_bits

RNG = np.random.default_rng(0)
SPECIAL = [0.0, 5e-324, 1e-310, 2.0**-1022, 0.5, 0.7071067811865475, 0.7071067811865476, 1 - 2**-53, 1.0, 1 + 2**-52]
SPECIAL += [1.4142135623730949, 1.4142135623730951, 2.0, 1e300, 1.7976931348623157e308, math.inf, math.nan, -1.0]
# As rules take them: t**-0.8, t**0.25, (1 + t)**(-2/3), squares; decays; anything.
USES = [(float(t), x) for t in (1, 2, 3, 7, 10, 1000, 123457, 10**6, 2**24) for x in (-0.8, 0.25, -2 / 3, 0.5, 2.0)]
DECAYS = [(b, float(x)) for b in (0.96, 0.9, 0.999, 0.5) for x in (1.0, 4e-3, 3.7, 40.0, 1000.0)]
ANY = [(float(b), float(x)) for b, x in zip(10 ** RNG.uniform(-300, 300, 5000), RNG.uniform(-3, 3, 5000), strict=True)]


def exact(b: float, x: float) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return (Decimal(b).ln() * Decimal(x)).exp()


def relative_error(b: float, x: float) -> float:
    with localcontext() as context:
        context.prec = 60
        wanted = exact(b, x)
        return float(abs(Decimal(_core.fs_pow(b, x)) - wanted) / wanted)


def test_same_bits_as_the_specification() -> None:
    pairs = [*USES, *DECAYS, *ANY, *((b, x) for b in SPECIAL for x in [*SPECIAL, -0.8, -700.0, 1e300, -1e300])]
    got = np.array([_core.fs_pow(b, x) for b, x in pairs])
    assert_same_bits(got, np.array([reference.fs_pow(b, x) for b, x in pairs]))


@pytest.mark.parametrize(("b", "x"), [*USES, *DECAYS])
def test_error_as_used(b: float, x: float) -> None:
    assert relative_error(b, x) < max(2e-15, 2**-52 * abs(x * math.log(b)))


def test_error_anywhere() -> None:
    for b, x in ANY:
        wanted = exact(b, x)
        if 1e-300 < wanted < 1e300:
            assert relative_error(b, x) < 2**-52 * (4 + abs(x * math.log(b))), (b, x)


@pytest.mark.parametrize(
    ("b", "x", "power"),
    [
        (0.0, 2.0, 0.0),
        (0.0, -2.0, math.inf),
        (0.0, 0.0, 1.0),
        (math.inf, 0.5, math.inf),
        (math.inf, -0.5, 0.0),
        (math.nan, 0.0, 1.0),
        (math.nan, 1.0, math.nan),
        (-1.0, 0.5, math.nan),
        (2.0, 1e308, math.inf),
        (2.0, -1e308, 0.0),
        (1.0, math.inf, math.nan),
        (1.0, 0.7, 1.0),
    ],
)
def test_limits(b: float, x: float, power: float) -> None:
    assert_same_bits(_core.fs_pow(b, x), power)


def test_largest_and_smallest() -> None:
    assert relative_error(2.0, 1023.9) < 1e-12
    assert _core.fs_pow(2.0, -1074.0) == 5e-324
