"""How many examples a property test tries: the profiles of hypothesis.

``ci`` is the default. Its examples are the same in every run. ``pytest --hypothesis-profile=hour`` draws new ones, and
so many that all property tests together take about an hour on one core.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

# A shared machine is slow now and then; that is no fault of a test.
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
_USUAL, _HOUR = 100, 16_000


def register() -> None:
    """Makes the profiles known, and ``ci`` the default: before any test is read."""
    settings.register_profile("ci", max_examples=_USUAL, derandomize=True, database=None, **_COMMON)
    settings.register_profile("hour", max_examples=_HOUR, derandomize=False, print_blob=True, **_COMMON)
    settings.load_profile("ci")


def examples(number: int, **options: Any) -> settings:
    """``number`` of them in ``ci``, as many times more in another profile as that has more."""
    return settings(max_examples=number * settings.default.max_examples // _USUAL, **options)
