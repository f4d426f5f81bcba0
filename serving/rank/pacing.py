"""Floors that hold over many slates: a price on a group's places that rises while it falls short.

Maximising the value of all slates under one constraint, that a group has at least a share of all
places, is, by its dual, maximising each slate's value with one price added to every member, the
same for all slates (docs/decisions/0025). So slates where members cost little give more, and those
where they cost much give less. Knows no items and no requests.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock

STEP = 0.2
"""How far a slate without any member moves the price, in spreads of values times the share."""
FORGETS = 0.02
"""How much of the shares told and of the usual spread the latest slate makes up."""
HIGHEST = 2.0
"""The highest price, in spreads of values: at 1 every member stands before every other item."""
MOST_KEPT = 256
"""Accounts kept, least recently used first out; each group and share has its own."""


@dataclass(slots=True)
class _Account:
    price: float = 0.0
    spread: float = 0.0
    places: float = 0.0
    members: float = 0.0


class Pacer:
    """The prices of one worker's groups. Safe across threads.

    The sum of all shortfalls so far is the price over its step, so that the share of all slates
    falls short by HIGHEST / (STEP * slates) at most where there are members to show; workers that
    each hold a share hold it together.
    """

    def __init__(self) -> None:
        self._accounts: OrderedDict[Hashable, _Account] = OrderedDict()
        self._lock = Lock()

    def price(self, key: Hashable) -> float:
        """What a member's place is worth beside its value now, in the unit of values."""
        with self._lock:
            return self._account(key).price

    def shown(
        self, key: Hashable, share: float, *, places: int, members: int, there: int, spread: float
    ) -> None:
        """A slate was made. share: that is to be held. places, members: how many it has in all, and
        of the group. there: how many of its candidates were of the group: what there is none of
        makes no price rise. spread: between the highest and the lowest value of its candidates."""
        if not places:
            return
        share = min(share, there / places)
        with self._lock:
            one = self._account(key)
            forgets = FORGETS if one.places else 1.0
            one.spread += forgets * (spread - one.spread)
            # Begins as a plain mean: the first slates are all that there is to tell.
            one.places += places - FORGETS * one.places
            one.members += members - FORGETS * one.members
            price = one.price + STEP * one.spread * (share - members / places)
            one.price = min(max(price, 0.0), HIGHEST * one.spread)

    def share(self, key: Hashable) -> float:
        """What share of the latest places (of about 1 / FORGETS slates) the group had."""
        with self._lock:
            one = self._account(key)
            return one.members / one.places if one.places else 0.0

    def _account(self, key: Hashable) -> _Account:
        one = self._accounts.get(key)
        if one is None:
            one = self._accounts[key] = _Account()
            if len(self._accounts) > MOST_KEPT:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        return one
