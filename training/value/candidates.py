"""The lists that the value model ranks for users at their questions, and what came true of them.

A list is the best of retrieval, and after it what the user engaged with and did not convert on. The
same lists are learned from, evaluated and served. Knows no losses and no files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.encode import pad_flat
from model.freshness import freshness
from model.past import Kin, Past, conversions, unconverted
from model.schema import Head
from training.dataset import Interactions
from training.ranking import blocks, last_events
from training.splits import Questions, Split
from training.tower_ranker import TowerRanker
from training.value.batch import Batch, make_batch

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_ALL = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Relations:
    """What every user did with items of one creator, or of whatever else makes kin."""

    codes: tuple[Int32, ...]
    """Of each column [V] the value of each item."""
    done: Kin

    @classmethod
    def of(cls, data: Interactions, codes: Sequence[Int32]) -> "Relations":
        """codes: of kin_codes."""
        num_events = len(data.schema.history_events)
        by_event = [column[data.items] for column in codes]
        return cls(tuple(codes), Kin(by_event, data.events, data.starts, num_events=num_events))

    def of_candidates(self, users: Int64, candidates: Int64) -> Float32:
        """As Kin.of. candidates: [B, C] item rows, -1 for none."""
        real, rows = candidates >= 0, np.maximum(candidates, 0)
        return self.done.of(users, [np.where(real, c[rows], -1) for c in self.codes])


@dataclass(frozen=True, slots=True)
class Lists:
    """The candidates of R users, N in all: user i has starts[i] .. starts[i + 1]. An Examples."""

    histories: Interactions
    """What every user of the dataset did before the question."""
    done: Past
    """The same, to be asked about candidates."""
    kin: Relations | None
    """The same, to be asked about their kin; None where no column makes any."""
    created: Int64 | None
    """[V] of created_at; None where ages are not read."""
    profiles: dict[str, Tensor]
    """Encoded user features of all user rows; empty where users have none."""
    users: Int64
    """[R] user rows."""
    idle: Float32
    """[R] seconds from the last event to the question."""
    interests: Float32
    """[R, M, D]"""
    starts: Int64
    """[R + 1]"""
    items: Int64
    """[N] item rows, each once in a list: what retrieval found, best first; then the others."""
    scores: Float32
    """[N] best inner product with the interests."""
    heads: tuple[Head, ...]
    labels: Bool
    """[N, T] whether the question's answer makes the head true."""

    @classmethod
    def joined(cls, parts: "Sequence[Lists]") -> "Lists":
        """The lists of some users, and after them those of others; of one ListMaker."""
        each = ("users", "idle", "interests", "items", "scores", "labels")
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        return replace(
            parts[0],
            starts=np.concatenate([[0], np.cumsum(counts)]),
            **{n: np.concatenate([getattr(part, n) for part in parts]) for n in each},  # type: ignore[arg-type]
        )

    def with_heads(self, places: tuple[int, ...]) -> "Lists":
        """The same lists with some of the heads, in this order."""
        heads = tuple(self.heads[place] for place in places)
        return replace(self, heads=heads, labels=self.labels[:, list(places)])

    @property
    def owners(self) -> Int64:
        """[N] which of the R users each candidate belongs to."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.starts))

    @property
    def num_owners(self) -> int:
        """R"""
        return len(self.users)

    @property
    def known(self) -> Bool:
        """[N, T] True: a question has been answered."""
        return np.ones_like(self.labels)

    def shuffled(self, rng: np.random.Generator) -> Int64:
        """The users in a random order."""
        return rng.permutation(len(self.users))

    def by_length(self) -> Int64:
        """The users, those with short histories first."""
        return np.argsort(self.histories.lengths[self.users], kind="stable")

    def batches(
        self, order: Int64, *, size: int, max_history: int
    ) -> Iterator[tuple[Int64, Batch]]:
        """Cut users, in this order, into batches of `size` candidates, or of one user's."""
        for some in blocks(np.diff(self.starts)[order], size):
            chosen = order[some]
            counts = np.diff(self.starts)[chosen]
            ends = np.cumsum(counts)
            places = np.arange(ends[-1]) + np.repeat(self.starts[chosen + 1] - ends, counts)
            if len(places):
                yield places, self._batch(chosen, counts, places, max_history)

    def _batch(self, chosen: Int64, counts: Int64, places: Int64, max_history: int) -> Batch:
        """The lists `chosen` [B], whose candidates are at `places`."""
        data, users = self.histories, self.users[chosen]
        real = np.arange(int(counts.max())) < counts[:, None]
        candidates, scores = np.full(real.shape, -1), np.zeros(real.shape, np.float32)
        candidates[real], scores[real] = self.items[places], self.scores[places]
        read, starts = last_events(data, users, max_history)
        padded = pad_flat(
            data.items[read].astype(np.int64),
            data.events[read].astype(np.int64),
            data.times[read] if data.schema.has_times else None,
            np.diff(starts),
            max_history=max_history,
        )
        padded.idle[:] = self.idle[chosen]
        rows = torch.from_numpy(users)
        return make_batch(
            padded,
            candidates,
            scores,
            self.done.of(users, candidates),
            None if self.kin is None else self.kin.of_candidates(users, candidates),
            None if self.created is None else self._ages(chosen, candidates),
            self.labels[places],
            np.ones_like(self.labels[places]),
            interests=self.interests[chosen],
            profile={name: value.index_select(0, rows) for name, value in self.profiles.items()},
            has_times=data.schema.has_times,
        )

    def _ages(self, chosen: Int64, candidates: Int64) -> Float32:
        """[B, C, 2] at the questions of the lists `chosen`. candidates: item rows, -1 for none."""
        assert self.created is not None
        data, users = self.histories, self.users[chosen]
        last = np.maximum(data.starts[users + 1] - 1, 0)
        # Of one without a history no moment is known: the last of all.
        none = data.starts[users + 1] == data.starts[users]
        asked = data.times[last] + (self.idle[chosen] * 1e6).astype(np.int64)
        now = np.where(none, data.times.max(initial=0), asked)
        return freshness(self.created[np.maximum(candidates, 0)], now)


@dataclass(frozen=True, slots=True)
class ListMaker:
    """Makes the lists of any of the questions' users."""

    towers: TowerRanker
    questions: Questions
    done: Past
    kin: Relations | None
    created: Int64 | None
    profiles: dict[str, Tensor]
    retrieved: int
    """How many of retrieval's best a list has."""
    engaged: int
    """How many a list has at most of what the user engaged with."""

    @classmethod
    def of(
        cls,
        towers: TowerRanker,
        questions: Questions,
        *,
        kin: Sequence[Int32],
        created: Int64 | None,
        profiles: dict[str, Tensor],
        retrieved: int,
        engaged: int,
    ) -> "ListMaker":
        """kin: of kin_codes. created: of created_at, where ages are read. profiles: encoded user
        features of all user rows."""
        data = questions.histories
        done = Past(
            data.items,
            data.events,
            data.starts,
            num_items=data.num_items,
            num_events=len(data.schema.history_events),
        )
        relations = Relations.of(data, kin) if kin else None
        return cls(towers, questions, done, relations, created, profiles, retrieved, engaged)

    def lists(
        self,
        users: Int64,
        *,
        excluded: Sequence[Int64] | None,
        heads: tuple[Head, ...],
        retrieved: int | None = None,
    ) -> Lists:
        """The lists of these users, no label true. excluded: as of Ranker.top. retrieved: another
        number than usual."""
        data, towers = self.questions.histories, self.towers
        found = towers.find(data, users, retrieved or self.retrieved, excluded=excluded)
        real = found.rows >= 0
        added, num_added = self._engaged(users, excluded)
        # Query after query, what was retrieved before what is added; of two the first stays.
        owner = np.concatenate([np.nonzero(real)[0], np.repeat(np.arange(len(users)), num_added)])
        items = np.concatenate([found.rows[real], added])
        products = np.einsum(
            "nmd,nd->nm", found.interests[owner[real.sum() :]], towers.vectors[added]
        )
        scores = np.concatenate([found.scores[real], products.max(axis=1)])
        order = np.argsort(owner, kind="stable")
        pairs = (owner * data.num_items + items)[order]
        kept = order[np.sort(np.unique(pairs, return_index=True)[1])]
        owner, items, scores = owner[kept], items[kept], scores[kept]
        return Lists(
            histories=data,
            done=self.done,
            kin=self.kin,
            created=self.created,
            profiles=self.profiles,
            users=users,
            idle=self.questions.idle[np.searchsorted(self.questions.users, users)],
            interests=found.interests,
            starts=np.searchsorted(owner, np.arange(len(users) + 1)),
            items=items,
            scores=scores,
            heads=heads,
            labels=np.zeros((len(items), len(heads)), bool),
        )

    def _engaged(self, users: Int64, excluded: Sequence[Int64] | None) -> tuple[Int64, Int64]:
        """Item rows of what each user engaged with, user after user, and how many each has."""
        data = self.questions.histories
        places, starts = last_events(data, users, _ALL)
        items = data.items[places].astype(np.int64)
        allowed = None
        if excluded is not None:
            owners = np.repeat(np.arange(len(users)), np.diff(starts))
            gone = np.repeat(np.arange(len(users)), [len(rows) for rows in excluded])
            out = gone * data.num_items + np.concatenate([*excluded, np.empty(0, np.int64)])
            allowed = ~np.isin(owners * data.num_items + items, out)
        return unconverted(
            items,
            data.events[places],
            starts,
            conversions(data.schema),
            most=self.engaged,
            has_order=data.schema.has_order,
            num_items=data.num_items,
            allowed=allowed,
        )


def target_keys(split: Split, heads: Sequence[Head]) -> list[Int64]:
    """Of each head, the pairs of user and item (user × V + item) that validation asks for with its
    event."""
    data = split.data
    asked = np.flatnonzero(split.asked["validation"])
    keys = data.owners[asked] * data.num_items + data.items[asked]
    codes = {name: code for code, name in enumerate(data.schema.history_events, 1)}
    return [keys[data.events[asked] == codes[head.event]] for head in heads]
