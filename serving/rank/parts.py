"""A large batch is ranked in parts, between which others have their turn; then it is one answer.

Knows how many candidates make a part; not how they are ranked.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from serving.candidates import join
from serving.cut import cut
from serving.domain import Slates

CANDIDATES_A_TURN = 8192
"""A batch with more candidates is ranked in several turns, between which others have theirs."""


def parts(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Queries [first, last) that are ranked in one turn: CANDIDATES_A_TURN, or one query's."""
    return cut(counts, most=CANDIDATES_A_TURN)


def together(slates: Sequence[Slates]) -> Slates:
    """The slates of all parts, one after the other."""

    def joined(values: Iterable[Any]) -> Any:
        return np.concatenate(list(values))

    return Slates(
        candidates=join([one.candidates for one in slates]),
        values=joined(one.values for one in slates),
        chances=joined(one.chances for one in slates),
        retrieval_ranks=joined(one.retrieval_ranks for one in slates),
        value_ranks=joined(one.value_ranks for one in slates),
        reasons=joined(one.reasons for one in slates),
        best_values=joined(one.best_values for one in slates),
        costs=joined(one.costs for one in slates),
        paced_shares=slates[-1].paced_shares,
        errors=[error for one in slates for error in one.errors],
        left_out=slates[0].left_out,
    )
