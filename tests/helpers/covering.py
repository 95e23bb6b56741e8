"""Which cases of a product are run: a covering array, in which every pair of values occurs that the product has."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from allpairspy import AllPairs

Case = tuple[Hashable, ...]


def pairwise(cases: Sequence[Case], turn: int = 0) -> set[Case]:
    """Of all cases (one value for each parameter) so many that every pair of values of two parameters occurs.

    The cases need not be a full product: only given ones are drawn. Another ``turn`` may draw others, so that tests
    which differ in nothing else do not all run the same combinations.
    """
    if len(cases[0]) < 2:
        return set(cases)
    values = [list(dict.fromkeys(column)) for column in zip(*cases, strict=True)]
    values = [column[turn % len(column) :] + column[: turn % len(column)] for column in values]
    begun = {case[:n] for case in cases for n in range(1, len(case) + 1)}
    return {tuple(row) for row in AllPairs(values, filter_func=lambda row: tuple(row) in begun)}
