"""Which cases of a product are run: a covering array, in which every pair of values occurs that the product has."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from itertools import combinations

Case = tuple[Hashable, ...]


def pairs(case: Case) -> set[tuple[int, Hashable, int, Hashable]]:
    """The values of each two parameters, with their places."""
    return {(i, a, j, b) for (i, a), (j, b) in combinations(enumerate(case), 2)}


def pairwise(cases: Sequence[Case], turn: int = 0) -> set[Case]:
    """Of all cases (one value for each parameter) so many that every pair of values of two parameters occurs.

    Greedy: next is the case with the most pairs that none before it has. The cases need not be a full product, which
    the libraries for this take for granted or treat wrongly (allpairspy leaves out pairs). Another ``turn`` prefers
    others of equal worth, so that tests which differ in nothing else do not all run the same combinations.
    """
    first = turn * 7 % len(cases)
    ordered = [*cases[first:], *cases[:first]]
    left = set().union(*map(pairs, ordered))
    if not left:
        return set(cases)
    drawn: set[Case] = set()
    queue = [(-len(pairs(case)), k) for k, case in enumerate(ordered)]
    while left:
        _, k = heapq.heappop(queue)
        new = len(pairs(ordered[k]) & left)
        if queue and (-new, k) > queue[0]:
            heapq.heappush(queue, (-new, k))  # worth less than when it was counted
        else:
            drawn.add(ordered[k])
            left -= pairs(ordered[k])
    return drawn
