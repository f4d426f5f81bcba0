"""What the value model reads at an exposure, with the towers frozen: arrays and batches.

The user tower reads each history as it stood at the exposure, as a server would have run it then,
so that scores and interests are those that serving will give. Knows no losses and no files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import FeatureSpec
from model.encode import HistoryBatch, pad_flat
from model.towers import TwoTower
from model.value import ValueNetwork
from training.dataset import Interactions, read_users_table
from training.loop import encode_users
from training.run import Run, encode_profiles
from training.tower_ranker import item_vectors
from training.value.exposures import Exposures
from training.value.item_stats import ItemStats

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
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

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """vectors, stats and features of item rows [I]."""
        features = {name: value.index_select(0, rows) for name, value in self.features.items()}
        return self.vectors.index_select(0, rows), self.stats.index_select(0, rows), features


def item_arrays(run: Run, model: TwoTower, stats: ItemStats) -> ItemArrays:
    """Run the item tower, and lay what else the item side reads beside it."""
    names = {f"item.{spec.name}" for spec in read_features(run)}
    return ItemArrays(
        vectors=item_vectors(run.items, model),
        stats=torch.from_numpy(stats.values),
        features={n: value for n, value in run.items.features.items() if n in names},
    )


def read_features(run: Run) -> tuple[FeatureSpec, ...]:
    """The item features that the item side reads beside the retrieval vector: those of the item
    tower but texts and content vectors, which are large, and which the vector already sums up."""
    return tuple(spec for spec in run.tower.item_features if spec.type not in ("text", "vector"))


@dataclass(frozen=True, slots=True)
class Examples:
    """Exposures with what the towers say at each of them."""

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
    progress: Progress | None = None,
) -> Examples:
    """Run the user tower at every exposure. vectors: [V, D] of the item tower."""
    profiles = _profiles(run, exposures.people)
    moments, first = _distinct_moments(run, exposures)
    bare = Examples(
        exposures,
        run.data,
        profiles,
        np.empty((len(first), run.tower.num_interests, run.tower.dim), np.float32),
        moments,
        np.empty(len(moments), np.float32),
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


def _distinct_moments(run: Run, exposures: Exposures) -> tuple[Int64, Int64]:
    """Which moment each exposure is at [N], and one exposure of each moment [K]: exposures of one
    user at one time, or with nothing between them where no time counts, are at one moment."""
    when = exposures.times if run.tower.has_times else np.zeros_like(exposures.times)
    keys = np.stack([exposures.owners, exposures.stops, when], axis=1)
    _, first, moments = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return moments.reshape(-1), first


def _encode(
    run: Run,
    model: TwoTower,
    examples: Examples,
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
        if run.tower.has_times:
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


@dataclass(frozen=True, slots=True)
class Batch:
    """n exposures, each a request for one candidate, as tensors."""

    item_rows: Tensor
    """[I] int64: the distinct items of histories and candidates."""
    history: Tensor
    """[n, L] int64 into item_rows."""
    events: Tensor
    gaps: Tensor | None
    mask: Tensor
    idle: Tensor | None
    interests: Tensor
    profile: dict[str, Tensor]
    candidates: Tensor
    """[n, 1] int64 into item_rows."""
    scores: Tensor
    labels: Tensor
    """[n, T] float32."""
    known: Tensor
    """[n, T] float32: 1 where the label is known, else 0."""


def make_batch(examples: Examples, chosen: Int64, *, max_history: int) -> Batch:
    """The exposures `chosen` [n] as a batch."""
    exposures = examples.exposures
    padded = examples.padded(chosen, max_history=max_history)
    candidates = exposures.items[chosen]
    item_rows, places = np.unique(
        np.concatenate([np.maximum(padded.rows, 0).reshape(-1), candidates]), return_inverse=True
    )
    split = padded.rows.size
    owners = torch.from_numpy(exposures.owners[chosen])
    has_times = examples.histories.schema.has_times
    return Batch(
        item_rows=torch.from_numpy(item_rows),
        history=torch.from_numpy(places[:split].reshape(padded.rows.shape)),
        events=torch.from_numpy(padded.events),
        gaps=torch.from_numpy(padded.gaps) if has_times else None,
        mask=torch.from_numpy(padded.mask),
        idle=torch.from_numpy(padded.idle) if has_times else None,
        interests=torch.from_numpy(examples.interests[examples.moments[chosen]]),
        profile={n: value.index_select(0, owners) for n, value in examples.profiles.items()},
        candidates=torch.from_numpy(places[split:, None]),
        scores=torch.from_numpy(examples.scores[chosen, None]),
        labels=torch.from_numpy(exposures.labels[chosen].astype(np.float32)),
        known=torch.from_numpy(exposures.known[chosen].astype(np.float32)),
    )


def logits_of(network: ValueNetwork, items: ItemArrays, batch: Batch) -> Tensor:
    """Logits [n, T] of a batch; the item side runs once on each distinct item."""
    vectors = network.item_side(*items.take(batch.item_rows))
    return logits_from(network, vectors, batch)


def logits_from(network: ValueNetwork, vectors: Tensor, batch: Batch) -> Tensor:
    """Logits [n, T] of a batch. vectors: [I, E], the item side's output for batch.item_rows."""
    logits: Tensor = network.request_side(
        F.embedding(batch.history, vectors),
        batch.events,
        batch.gaps,
        batch.mask,
        batch.idle,
        batch.interests,
        batch.profile,
        F.embedding(batch.candidates, vectors),
        batch.scores,
    )
    return logits.squeeze(1)


def batches(
    examples: Examples, order: Int64, *, size: int, max_history: int
) -> Iterator[tuple[Int64, Batch]]:
    """Cut exposures, in this order, into batches."""
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield chosen, make_batch(examples, chosen, max_history=max_history)
