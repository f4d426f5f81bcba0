"""What the value model reads of items and at an exposure, with the towers frozen.

The user tower reads each history as it stood at the exposure, as a server would have run it then,
so that scores and interests are those that serving will give. Knows no losses and no files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.config import FeatureSpec
from model.encode import HistoryBatch, pad_flat
from model.freshness import freshness
from model.past import Kin, Past
from model.schema import Head
from model.towers import TwoTower
from model.value import ValueNetwork
from training.dataset import Interactions, read_users_table
from training.run import Run, encode_profiles
from training.tower_ranker import item_vectors
from training.user_states import encode_users
from training.value.batch import Batch, logits_from, make_batch
from training.value.exposures import Exposures
from training.value.item_stats import ItemStats

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]

_BLOCK = 8192
"""Histories that are encoded together."""


@dataclass(frozen=True, slots=True)
class ItemArrays:
    """All that the item side reads, of all V items, as tensors on the CPU."""

    vectors: Tensor
    """[V, D] float32 from the item tower."""
    stats: Tensor
    """[V, S] float32."""
    features: dict[str, Tensor]
    """Arrays of Encoder.encode_items that the network reads."""

    @classmethod
    def of(cls, run: Run, vectors: Tensor, stats: ItemStats) -> "ItemArrays":
        """vectors: [V, D] of the item tower, on the CPU."""
        names = {f"item.{spec.name}" for spec in read_features(run)}
        features = {n: value for n, value in run.items.features.items() if n in names}
        return cls(vectors, torch.from_numpy(stats.values), features)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """vectors, stats and features of item rows [I]."""
        features = {name: value.index_select(0, rows) for name, value in self.features.items()}
        return self.vectors.index_select(0, rows), self.stats.index_select(0, rows), features


def item_arrays(run: Run, model: TwoTower, stats: ItemStats) -> ItemArrays:
    """Run the item tower, and lay what else the item side reads beside it."""
    return ItemArrays.of(run, item_vectors(run.items, model), stats)


def read_features(run: Run) -> tuple[FeatureSpec, ...]:
    """The item features that the item side reads beside the retrieval vector: those of the item
    tower but texts and content vectors, which are large, and which the vector already sums up."""
    return tuple(spec for spec in run.tower.item_features if spec.type not in ("text", "vector"))


@dataclass(frozen=True, slots=True)
class ShownExamples:
    """Exposures with what the towers say at each of them: requests for one candidate each."""

    exposures: Exposures
    histories: Interactions
    """The run's events; exposure n reads those before its stop."""
    profiles: dict[str, Tensor]
    """Encoded user features of all people [P, …]; empty where users have none."""
    interests: Float32
    """[K, M, D] of the K distinct moments."""
    moments: Int64
    """[N] which of the K each exposure is at."""
    scores: Float32
    """[N] the item's best inner product with the interests."""
    past: Float32
    """[N, num_events] log1p of how often the user had done what with the item."""
    kin: Float32 | None
    """[N, G * num_events] the same with all items of its creator and so on; None where G is 0."""

    age: Float32 | None
    """[N, 2] of model/freshness.py; None where it is not read."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The T heads."""
        return self.exposures.heads

    @property
    def owners(self) -> Int64:
        """[N] who was shown it."""
        return self.exposures.owners

    @property
    def num_owners(self) -> int:
        """All who were shown anything in any part."""
        return len(self.exposures.people)

    @property
    def labels(self) -> Bool:
        """[N, T]"""
        return self.exposures.labels

    @property
    def known(self) -> Bool:
        """[N, T]"""
        return self.exposures.known

    def shuffled(self, rng: np.random.Generator) -> Int64:
        """The exposures in a random order of users, so that those of one user meet in a batch."""
        places = rng.permutation(int(self.owners.max()) + 1)
        return np.lexsort((rng.random(len(self.owners)), places[self.owners]))

    def by_length(self) -> Int64:
        """The exposures, those with short histories first, which then need little padding."""
        return np.argsort(self.lengths(), kind="stable")

    def batches(
        self, order: Int64, *, size: int, max_history: int
    ) -> Iterator[tuple[Int64, Batch]]:
        """Cut exposures, in this order, into batches."""
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield chosen, self.batch(chosen, max_history=max_history)

    def batch(self, chosen: Int64, *, max_history: int) -> Batch:
        """The exposures `chosen` [n] as a batch."""
        owners = torch.from_numpy(self.owners[chosen])
        return make_batch(
            self.padded(chosen, max_history=max_history),
            self.exposures.items[chosen, None],
            self.scores[chosen, None],
            self.past[chosen, None],
            None if self.kin is None else self.kin[chosen, None],
            None if self.age is None else self.age[chosen, None],
            self.labels[chosen],
            self.known[chosen],
            interests=self.interests[self.moments[chosen]],
            profile={n: value.index_select(0, owners) for n, value in self.profiles.items()},
            has_times=self.histories.schema.has_times,
        )

    def lengths(self) -> Int64:
        """[N] how many events the user had before the exposure."""
        rows = self.exposures.rows[self.exposures.owners]
        starts = self.histories.starts[np.maximum(rows, 0)]
        return np.where(rows >= 0, self.exposures.stops - starts, 0)

    def padded(self, chosen: Int64, *, max_history: int) -> HistoryBatch:
        """The histories of n of the exposures as the network reads them."""
        data = self.histories
        stops, lengths = self.exposures.stops[chosen], self.lengths()[chosen]
        places, kept = last_before(stops, lengths, max_history)
        return pad_flat(
            data.items[places].astype(np.int64),
            data.events[places].astype(np.int64),
            data.times[places] if data.schema.has_times else None,
            kept,
            now=self.exposures.times[chosen],
            max_history=max_history,
        )


def last_before(stops: Int64, lengths: Int64, most: int) -> tuple[Int64, Int64]:
    """Where the last events of B histories lie, one history after the other, oldest first.

    stops: [B] the place after a history's last event. lengths: [B] its events. most: so many of the
    newest are wanted. Returns places [sum of kept] and kept [B].
    """
    kept = np.minimum(lengths, most)
    ends = np.cumsum(kept)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(stops - ends, kept), kept


def make_examples(
    run: Run,
    model: TwoTower,
    exposures: Exposures,
    vectors: Tensor,
    *,
    kin: Sequence[Int32],
    created: Int64 | None,
    progress: Progress | None = None,
) -> ShownExamples:
    """Run the user tower at every exposure. vectors: [V, D] of the item tower. kin: of kin_codes.
    created: of created_at, [V]; None where ages are not read."""
    profiles = _profiles(run, exposures.people)
    moments, first = _distinct_moments(run, exposures)
    bare = ShownExamples(
        exposures,
        run.data,
        profiles,
        np.empty((len(first), run.tower.num_interests, run.tower.dim), np.float32),
        moments,
        np.empty(len(moments), np.float32),
        _past(run.data, exposures),
        _kin(run.data, exposures, kin) if kin else None,
        None
        if created is None
        else freshness(created[exposures.items][:, None], exposures.times)[:, 0],
    )
    _encode(run, model, bare, first, vectors, progress or (lambda done, what: None))
    matrix = vectors.numpy()
    for start in range(0, len(moments), 1 << 16):
        part = slice(start, start + (1 << 16))
        found = np.einsum(
            "nmd,nd->nm", bare.interests[moments[part]], matrix[exposures.items[part]]
        )
        bare.scores[part] = found.max(axis=1)
    return bare


def _past(data: Interactions, exposures: Exposures) -> Float32:
    """[N, num_events] what each user had done with the item before each exposure."""
    num_events = len(data.schema.history_events)
    past = Past(
        data.items, data.events, data.starts, num_items=data.num_items, num_events=num_events
    )
    rows = exposures.rows[exposures.owners]
    # Of one who has no history at all, no candidate was met before.
    items = np.where(rows >= 0, exposures.items, -1)
    return past.of(np.maximum(rows, 0), items[:, None], stops=exposures.stops)[:, 0]


def _kin(data: Interactions, exposures: Exposures, codes: Sequence[Int32]) -> Float32:
    """[N, G * num_events] what each user had done with kin of the item before each exposure."""
    kin = Kin(
        [column[data.items] for column in codes],
        data.events,
        data.starts,
        num_events=len(data.schema.history_events),
    )
    rows = exposures.rows[exposures.owners]
    wanted = [np.where(rows >= 0, column[exposures.items], -1)[:, None] for column in codes]
    return kin.of(np.maximum(rows, 0), wanted, stops=exposures.stops)[:, 0]


def _distinct_moments(run: Run, exposures: Exposures) -> tuple[Int64, Int64]:
    """Which moment each exposure is at [N], and one exposure of each moment [K]: exposures of one
    user at one time, or with nothing between them where no time counts, are at one moment."""
    when = exposures.times if run.data.schema.has_times else np.zeros_like(exposures.times)
    keys = np.stack([exposures.owners, exposures.stops, when], axis=1)
    _, first, moments = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return moments.reshape(-1), first


def _encode(
    run: Run,
    model: TwoTower,
    examples: ShownExamples,
    first: Int64,
    vectors: Tensor,
    progress: Progress,
) -> None:
    """Fill examples.interests: the user tower at the K exposures `first`."""
    exposures, data = examples.exposures, run.data
    lengths = examples.lengths()[first]
    # Similar lengths together, so that a block has little padding.
    order = np.argsort(lengths, kind="stable")
    for begin in range(0, len(order), _BLOCK):
        block = order[begin : begin + _BLOCK]
        chosen = first[block]
        places, kept = last_before(exposures.stops[chosen], lengths[block], run.tower.max_history)
        starts = np.concatenate([[0], np.cumsum(kept)])
        histories: Any = SimpleNamespace(
            starts=starts,
            items=data.items[places],
            events=data.events[places],
            times=data.times[places],
            weights=data.weights[places],
        )
        idle = np.zeros(len(chosen), np.float32)
        if run.data.schema.has_times:
            some = kept > 0
            last = data.times[places[starts[1:][some] - 1]]
            idle[some] = np.maximum(exposures.times[chosen][some] - last, 0) / 1e6
        owners = torch.from_numpy(exposures.owners[chosen])
        profiles = {name: v.index_select(0, owners) for name, v in examples.profiles.items()}
        users = np.arange(len(chosen))
        for rows, found in encode_users(model, vectors, histories, users, idle, profiles=profiles):
            examples.interests[block[rows]] = found
        progress(min(1.0, (begin + _BLOCK) / len(order)), "read histories with the towers")


def _profiles(run: Run, people: list[str]) -> dict[str, Tensor]:
    """Encoded user features of people, whether they have a history or not."""
    if not run.tower.profile_features:
        return {}
    users = read_users_table(run.dataset)
    assert users is not None  # profile features were fitted on it
    return encode_profiles(run.encoder, users, people)


def logits_of(network: ValueNetwork, items: ItemArrays, batch: Batch) -> Tensor:
    """Logits [n, T] of a batch; the item side runs once on each distinct item."""
    return logits_from(network, network.item_side(*items.take(batch.item_rows)), batch)
