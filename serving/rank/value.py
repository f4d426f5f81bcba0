"""The value model of a bundle: how likely each candidate is to be clicked, liked, bought.

Runs value.onnx on ONNX Runtime. All that it reads of an item was computed at export
(docs/decisions/0013); a request costs a gather and the graph. Knows no requests and no slates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle, ValueModel
from model.encode import pad_histories
from model.freshness import UNKNOWN, freshness
from model.past import Kin, Past
from model.tower_session import TowerSession
from serving.encoder import history_arrays
from serving.profiles import Profiles

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

CANDIDATES_A_RUN = 8192
"""Candidates of one run of the graph, padding counted: its arrays stay small."""


class ValueRanker:
    """value.onnx of one bundle. Safe across threads."""

    def __init__(
        self, bundle: Bundle, model: ValueModel, profiles: Profiles, *, threads: int = 1
    ) -> None:
        """Load the graph. Raises BundleRejected where it is not what the manifest says."""
        self._session = TowerSession(model.path, inputs=model.inputs, threads=threads)
        # Plain: indexing a numpy.memmap is slow.
        self.items: Float32 = np.asarray(model.items)
        """[N, E], what the item side made of the bundle's items."""
        self.dim = model.dim
        self.candidates = model.candidates
        """How lists are made; None: of what retrieval finds alone."""
        self._num_events = len(bundle.event_codes)
        self._profiles, self._max_history = profiles, model.max_history
        self._profile_inputs = [n for n in self._session.inputs if n.startswith("profile.")]
        self._reads_past = "past" in self._session.inputs
        self._kin = model.kin
        self._reads_age = "age" in self._session.inputs
        self._reads_times = "gaps" in self._session.inputs or "idle" in self._session.inputs
        self.heads = tuple(head.name for head in model.heads)
        weights = [bundle.schema.worth(head.event) for head in model.heads]
        self.default_weights = np.array(weights, np.float64)
        """[T] what each head's chance counts in a candidate's value."""

    def chances(
        self,
        rows: Sequence[Int64],
        events: Sequence[Int64],
        times: Sequence[Int64],
        profiles: Sequence[str],
        interests: Float32,
        *,
        now: Int64,
        candidates: Int64,
        scores: Float32,
        vectors_of: Callable[[Int64], Float32] | None = None,
        codes_of: Callable[[str, Int64], Int32] | None = None,
        created_of: Callable[[Int64], Int64] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Float32:
        """Chances [B, C, T] float32, one a head, that B users do each head's act on an item shown.

        rows, events, times, profiles, now: as UserTower.interests; whole histories, however much of
        them the graph reads. interests: [B, M, D], what it gave. candidates: [B, C] item rows, then
        -1 where a user has fewer (what is given for those means nothing). scores: [B, C] float32,
        each candidate's best inner product with the interests. vectors_of: rows [...] → [..., E],
        of -1 anything; None: those of the bundle. codes_of: column and rows [n] → their values as
        numbers, below 0 for none; None where the graph reads no kin. created_of: rows [n] → UTC
        µs; None where the graph reads no ages. check: called before each run of the graph; what it
        raises ends the work.
        """
        batch = pad_histories(
            rows,
            events,
            times if self._reads_times else None,
            now=now,
            max_history=self._max_history,
        )
        vectors_of = vectors_of or self._vectors_of
        arrays = history_arrays(batch, vectors_of)
        arrays["interests"] = interests
        if self._profile_inputs:
            arrays.update(self._profiles.arrays(profiles, self._profile_inputs))
        past = {"past": self._past(rows, events, candidates)} if self._reads_past else {}
        if self._kin:
            assert codes_of is not None
            past["kin"] = self._of_kin(rows, events, candidates, codes_of)
        if self._reads_age:
            assert created_of is not None
            created = np.full(candidates.shape, UNKNOWN)
            created[candidates >= 0] = created_of(candidates[candidates >= 0])
            past["age"] = freshness(created, now)
        num_users, num_candidates = candidates.shape
        if num_users * num_candidates <= CANDIDATES_A_RUN:
            check()
            return self._run(
                arrays, candidates, scores, past, slice(None), num_candidates, vectors_of
            )
        # Users with about as many candidates go together: one with many must not widen all.
        counts = (candidates >= 0).sum(axis=1)
        order = np.argsort(-counts, kind="stable")
        found = np.zeros((*candidates.shape, len(self.heads)), np.float32)
        start = 0
        while start < num_users and counts[order[start]]:
            check()
            width = int(counts[order[start]])
            users = order[start : start + max(CANDIDATES_A_RUN // width, 1)]
            found[users, :width] = self._run(
                arrays, candidates, scores, past, users, width, vectors_of
            )
            start += len(users)
        return found

    def _past(self, rows: Sequence[Int64], events: Sequence[Int64], candidates: Int64) -> Float32:
        """[B, C, num_events] what each user did with each candidate before."""
        starts = np.concatenate([[0], np.cumsum([len(one) for one in rows])])
        items = np.concatenate(rows)
        done = Past(
            items,
            np.concatenate(events),
            starts,
            num_items=int(max(items.max(initial=0), candidates.max(initial=0))) + 1,
            num_events=self._num_events,
        )
        return done.of(np.arange(len(rows)), candidates)

    def _of_kin(
        self,
        rows: Sequence[Int64],
        events: Sequence[Int64],
        candidates: Int64,
        codes_of: Callable[[str, Int64], Int32],
    ) -> Float32:
        """[B, C, G * num_events] what each user did before with kin of each candidate."""
        starts = np.concatenate([[0], np.cumsum([len(one) for one in rows])])
        read, real = np.concatenate(rows), candidates >= 0
        mine, theirs = [], []
        for column in self._kin:
            mine.append(codes_of(column, read))
            codes = np.full(candidates.shape, -1, np.int32)
            codes[real] = codes_of(column, candidates[real])
            theirs.append(codes)
        kin = Kin(mine, np.concatenate(events), starts, num_events=self._num_events)
        return kin.of(np.arange(len(rows)), theirs)

    def _run(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        candidates: Int64,
        scores: Float32,
        past: Mapping[str, Float32],
        users: slice | Int64,
        width: int,
        vectors_of: Callable[[Int64], Float32],
    ) -> Float32:
        """The first `width` candidates of some users."""
        part = {name: values[users] for name, values in arrays.items()}
        part["candidates"] = vectors_of(candidates[users, :width])
        part["scores"] = scores[users, :width]
        part.update({name: values[users, :width] for name, values in past.items()})
        return self._session.run(part)

    def _vectors_of(self, rows: Int64) -> Float32:
        return self.items.take(rows, axis=0)
