"""Which candidates may still be given a place: what caps have closed, and what floors still need.

One slate's state while it is filled, in plain lists: a slate is filled place by place, and for one
place a list is read ten times as fast as an array. Knows values only as far as floors need them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.rank.floors import Classes, Floor, classes_of, reserved

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Group:
    """At most so many items of one value of a column."""

    codes: Int32
    """[C] each candidate's value; below 0: none, which is not counted."""
    most: int


class _Members:
    """The candidates of each value of a column, sorted once it is needed."""

    def __init__(self, group: Group) -> None:
        self.most, self._codes = group.most, group.codes
        self._order: list[int] = []
        self._sorted: list[int] = []

    def of(self, code: int) -> list[int]:
        """The candidates with this value."""
        if not self._order:
            order = np.argsort(self._codes, kind="stable")
            self._order, self._sorted = order.tolist(), self._codes[order].tolist()
        start = bisect_left(self._sorted, code)
        return self._order[start : bisect_right(self._sorted, code, start)]


class Places:
    """What is left to fill."""

    def __init__(
        self, values: Float32, k: int, caps: Sequence[Group], floors: Sequence[Floor]
    ) -> None:
        """values: [C], by which floors are met at least cost."""
        num = len(values)
        self.left = k
        """Places that are not filled yet."""
        self.gone = bytearray(num)
        """[C] 1 for what has a place already, or may not have one."""
        self.needed = 0
        """How many of the places left floors need."""
        self._values, self._floors = values, floors
        self._lacks = [floor.least for floor in floors]
        self._caps = [(group.codes.tolist(), _Members(group), dict[int, int]()) for group in caps]
        self._held: frozenset[int] = frozenset()
        self._classes: Classes | None = None
        self._floors_of: list[list[int]] = []
        self._needs: list[int] = []
        self._lost = 0
        """How many places more than `needed` floors may need: items that were counted on are
        closed, and each floor of such an item may need another."""
        self._there: list[int] = []
        self.class_of: list[int] = [-1] * num
        """[C] the class of serving/rank/floors.py, -1 for a member of no floor."""
        if floors:
            self._classes = classes_of(floors)
            self.class_of = self._classes.of.tolist()
            self._floors_of = [np.flatnonzero(one).tolist() for one in self._classes.members]
            self._reserve()

    def hold(self, places: Sequence[int]) -> None:
        """Let these count against caps from now on: they are to have places in any case."""
        self._held = frozenset(places)
        for place in places:
            self._count(place)
        if self._lost:
            self._reserve()

    def missing(self) -> tuple[int, ...]:
        """Of each floor, how many items it still lacks."""
        return tuple(max(lacks, 0) for lacks in self._lacks)

    def is_needed(self, place: int) -> bool:
        """Whether a floor still lacks this candidate's class."""
        of = self.class_of[place]
        return of >= 0 and self._needs[of] > 0

    def wanted(self) -> Bool:
        """[C] the candidates of the classes that floors lack."""
        assert self._classes is not None
        lacking = np.array([need > 0 for need in self._needs] + [False])  # class -1: the last
        found: Bool = lacking[self._classes.of]
        return found

    def reason(self, place: int) -> str:
        """Why a floor needs this candidate."""
        for floor, lacks in zip(self._floors, self._lacks, strict=True):
            if lacks > 0 and floor.members[place]:
                return floor.reason
        return self._floors[0].reason

    def take(self, place: int) -> list[int]:
        """Give a candidate a place; returns those that may not have one any more for it."""
        self.left -= 1
        self.gone[place] = 1
        of = self.class_of[place]
        if of >= 0:
            self._there[of] -= 1
            if self._needs[of] > 0:
                self._needs[of] -= 1
                self.needed -= 1
            for floor in self._floors_of[of]:
                self._lacks[floor] -= 1
        closed = [] if place in self._held else self._count(place)
        # Worked out again only once it may matter: it takes as long as some ten places.
        if self._lost and self.needed + self._lost >= self.left:
            self._reserve()
        return closed

    def _count(self, place: int) -> list[int]:
        """Count a candidate for each cap; returns those that a cap closes."""
        closed: list[int] = []
        for codes, members, seen in self._caps:
            code = codes[place]
            if code >= 0:
                number = seen[code] = seen.get(code, 0) + 1
                if number == members.most:
                    closed += members.of(code)
        if not closed:
            return closed
        gone, held = self.gone, self._held
        closed = [one for one in dict.fromkeys(closed) if not gone[one] and one not in held]
        for one in closed:
            gone[one] = 1
            of = self.class_of[one]
            if of >= 0:
                self._there[of] -= 1
                if self._there[of] < self._needs[of]:
                    self._lost += len(self._floors)
        return closed

    def _reserve(self) -> None:
        """What each class needs of what is left, so that a floor that cannot be met forces nobody
        early."""
        assert self._classes is not None
        allowed = np.frombuffer(self.gone, np.uint8) == 0
        least = [max(lacks, 0) for lacks in self._lacks]
        counts = np.bincount(
            self._classes.of[allowed] + 1, minlength=len(self._classes.members) + 1
        )
        self._there = counts[1:].tolist()
        self._needs = reserved(self._values, self.left, self._classes, least, allowed)
        self.needed, self._lost = sum(self._needs), 0
