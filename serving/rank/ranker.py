"""Candidates become slates: their value, then the slate that is made of them.

Ranks one request at a time, so that each keeps its own deadline, and a large batch in several
turns: what does not fit into the time that is left is left out, in the order of
serving/rank/costs.py, and named. Knows no protos.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.domain import Budget, Candidates, PartError, SlateRules, Slates
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.origins import candidate_origins
from serving.rank.compose import Composed, compose
from serving.rank.costs import Costs
from serving.rank.pacing import Pacer
from serving.rank.parts import parts, together
from serving.rank.rules import Listed, RuleBook
from serving.rank.value import ValueRanker
from serving.readers import Reader, times_as_trained
from serving.stages import stage
from serving.turns import Turns

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class Wish:
    """How the candidates of a request are to be ranked.

    k: items of a slate; 0: all candidates. weights: by head; none: the bundle's default.
    """

    k: int
    weights: Mapping[str, float]
    slate: SlateRules


class Ranker:
    """Ranks candidates. Safe across threads."""

    def __init__(self, costs: Costs, *, diversity: float) -> None:
        """diversity: where a request does not say."""
        self._costs, self._diversity = costs, diversity
        self._pacer = Pacer()
        # One request at a time: the networks of two would share a core and its caches.
        self._turns = Turns()

    def rank(
        self,
        catalogue: Catalogue,
        candidates: Candidates,
        readers: Sequence[Reader],
        vectors: Sequence[Float32],
        wish: Wish,
        *,
        now: Int64,
        budget: Budget,
        hurries: bool = False,
    ) -> Slates:
        """One slate a query, out of its candidates, which are rows of the catalogue.

        readers, vectors: [Q], each query's user and interests [M, D]. now: [Q] UTC µs. hurries: the
        candidates were searched for in haste, so what is left out first is left out. Raises
        DeadlineExceeded where there is no time left at all, and Cancelled where nobody waits.
        """
        ends = np.cumsum(candidates.counts)
        plan: _Plan | None = None
        slates: list[Slates] = []
        for first, last in parts(candidates.counts.tolist()):
            start, end = int(ends[first] - candidates.counts[first]), int(ends[last - 1])
            part = Candidates(
                candidates.rows[start:end],
                candidates.scores[start:end],
                candidates.interests[start:end],
                candidates.counts[first:last],
            )
            some = slice(first, last)
            with self._turns.held(budget):
                plan = plan or self._plan(catalogue.generation, candidates, wish, budget, hurries)
                slates.append(
                    self._rank(
                        catalogue,
                        part,
                        readers[some],
                        vectors[some],
                        wish,
                        now[some],
                        budget,
                        plan,
                        first,
                    )
                )
        return slates[0] if len(slates) == 1 else together(slates)

    def _plan(
        self,
        generation: Generation,
        candidates: Candidates,
        wish: Wish,
        budget: Budget,
        hurries: bool,
    ) -> "_Plan":
        """What there is time for, the same for all slates of a request."""
        diversity = self._diversity if wish.slate.diversity is None else wish.slate.diversity
        model, num_slates = generation.value, len(candidates.counts)
        use_model = model is not None and bool(len(candidates.rows))
        left_out = []
        counts = candidates.counts
        shown = int(np.minimum(counts, wish.k).sum() if wish.k else counts.sum())
        left = budget.deadline - time.monotonic() - self._costs.answer.of(shown + num_slates)
        value_cost = self._costs.value.of(len(candidates.rows)) if use_model else 0.0
        if diversity and (hurries or left < value_cost + self._costs.arrange.of(num_slates)):
            diversity = 0.0
            left_out.append("diversity")
        if use_model and (hurries or left < value_cost):
            use_model = False
            left_out.append("value_model")
        return _Plan(diversity, use_model, tuple(left_out))

    def _rank(
        self,
        catalogue: Catalogue,
        candidates: Candidates,
        readers: Sequence[Reader],
        vectors: Sequence[Float32],
        wish: Wish,
        now: Int64,
        budget: Budget,
        plan: "_Plan",
        first: int,
    ) -> Slates:
        """The slates of some queries, of which the first is the request's query number `first`."""
        model = catalogue.generation.value
        if plan.uses_model and model is not None and len(candidates.rows):
            chances = self._chances(catalogue, candidates, readers, vectors, now, budget)
            values = (chances @ _weights(model, wish.weights)).astype(np.float32)
        else:
            num_heads = len(model.heads) if plan.uses_model and model is not None else 0
            chances = np.empty((len(candidates.rows), num_heads), np.float32)
            values = candidates.scores
        with stage("slate"):
            began = time.perf_counter()
            book = RuleBook(
                catalogue,
                wish.slate,
                wish.weights,
                _weights(model, wish.weights) if chances.shape[1] and model is not None else None,
                diversity=plan.diversity,
                pacer=self._pacer,
            )
            origins = None
            if wish.slate.origins:
                origins = candidate_origins(catalogue, readers, now, candidates)
            made, errors, paced = list[Composed](), list[PartError](), list[float]()
            start = 0
            for query, count in enumerate(candidates.counts.tolist()):
                budget.check()
                span = slice(start, start + count)
                listed = Listed(
                    candidates.rows[span],
                    values[span],
                    chances[span],
                    None if origins is None else origins[span],
                    int(now[query]),
                    first + query,
                )
                k = wish.k or count
                composed = compose(listed.values, k, book.rules(listed, k))
                made.append(composed)
                errors += book.not_met(first + query, composed)
                paced = book.shown(listed, composed)
                start += count
            if plan.diversity:
                self._costs.arrange.observe(len(made), time.perf_counter() - began)
        return _joined(candidates, values, chances, made, errors, paced, plan.left_out)

    def _chances(
        self,
        catalogue: Catalogue,
        candidates: Candidates,
        readers: Sequence[Reader],
        vectors: Sequence[Float32],
        now: Int64,
        budget: Budget,
    ) -> Float32:
        """[n, T] of all candidates, query after query."""
        generation = catalogue.generation
        model = generation.value
        assert model is not None
        counts = candidates.counts
        by_day = generation.schema.time == "day"
        with stage("value"):
            began = time.perf_counter()
            real = np.arange(int(counts.max())) < counts[:, np.newaxis]
            rows, scores = np.full(real.shape, -1), np.zeros(real.shape, np.float32)
            rows[real], scores[real] = candidates.rows, candidates.scores
            times, moments = times_as_trained(readers, now, by_day=by_day)
            found = model.chances(
                [reader.rows for reader in readers],
                [reader.events for reader in readers],
                times,
                [reader.profile for reader in readers],
                np.stack([_as_many(one, generation.bundle.num_interests) for one in vectors]),
                now=moments,
                candidates=rows,
                scores=scores,
                vectors_of=catalogue.value_vectors_of,
                codes_of=catalogue.codes_of,
                created_of=catalogue.created_of,
                check=budget.check,
            )[real]
            self._costs.value.observe(len(candidates.rows), time.perf_counter() - began)
        return found


def _joined(
    candidates: Candidates,
    values: Float32,
    chances: Float32,
    made: Sequence[Composed],
    errors: Sequence[PartError],
    paced: Sequence[float],
    left_out: tuple[str, ...],
) -> Slates:
    slates = [one.slate for one in made]
    starts = (np.cumsum(candidates.counts) - candidates.counts).tolist()
    counts = np.array([len(slate.places) for slate in slates], np.int64)
    within = np.concatenate([slate.places for slate in slates])
    places = within + np.repeat(starts, counts)
    ranks = np.empty(len(values), np.int64)
    for start, count in zip(starts, candidates.counts.tolist(), strict=True):
        order = np.argsort(-values[start : start + count], kind="stable")
        ranks[start + order] = np.arange(count)
    return Slates(
        candidates=Candidates(
            candidates.rows[places],
            candidates.scores[places],
            candidates.interests[places],
            counts,
        ),
        values=values[places],
        chances=chances[places],
        retrieval_ranks=within,
        value_ranks=ranks[places],
        reasons=np.concatenate([slate.reasons for slate in slates]),
        best_values=np.array([one.best_value for one in made], np.float32),
        costs=np.array([one.costs for one in made], np.float32),
        paced_shares=paced,
        errors=errors,
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the time that is left allows."""

    diversity: float
    uses_model: bool
    left_out: tuple[str, ...]


def _weights(model: ValueRanker, given: Mapping[str, float]) -> Float64:
    """[T] what each head weighs."""
    if not given:
        return model.default_weights
    return np.array([given.get(head, 0.0) for head in model.heads], np.float64)


def _as_many(vectors: Float32, num: int) -> Float32:
    """[M, D] → [num, D], which is what the value model knows: a query that brings its own interests
    may bring fewer, which are repeated, or more, of which some are left out."""
    return vectors if len(vectors) == num else vectors[np.arange(num) * len(vectors) // num]
