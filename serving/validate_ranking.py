"""What of Recommend and Rerank is checked beside what they share with other requests.

As serving/validate.py: each check raises BadRequest, naming the field.
"""

from collections.abc import Mapping

from model.schema import KINDS
from serving.checks import LARGEST, between, check_ids, check_time
from serving.config import Limits
from serving.domain import RecommendRequest, RerankRequest, SlateRules
from serving.errors import BadRequest, UnknownField
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.validate import (
    check_fields,
    check_filters,
    check_k,
    check_objective,
    check_queries,
    check_search,
    most_rows,
    num_vectors,
)


def check_recommend(request: RecommendRequest, limits: Limits, catalogue: Catalogue) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered.

    Its num_candidates says how many are ranked; a caller's 0 has been replaced by then.
    """
    generation = catalogue.generation
    check_k(request.k, limits)
    between("k", request.k, 1, limits.max_ranked)  # what is shown was ranked
    where = "num_candidates"
    between(where, request.num_candidates, request.k, limits.max_ranked, unit="candidates")
    check_objective(request.objective, limits, generation)
    check_queries(request.queries, limits, generation)
    check_search(num_vectors(request.queries, generation), request.num_candidates, limits)
    check_filters(request.filters, limits, generation)
    num_rows = len(request.queries) * most_rows(request.k, catalogue)
    check_fields(request.fields, num_rows, limits, generation)
    check_time(request.time_us)
    _check_weights(request.weights, generation)
    _check_slate(request.slate, limits, generation)


def check_rerank(request: RerankRequest, limits: Limits, generation: Generation) -> None:
    """Raise BadRequest, naming the field, for a request that cannot be answered."""
    check_queries(request.queries, limits, generation)
    if len(request.counts) != len(request.queries):
        raise BadRequest(
            f"{len(request.counts)} counts for {len(request.queries)} queries; give one a query",
            field="counts",
        )
    for i, count in enumerate(request.counts):
        between(f"counts[{i}]", count, 0, limits.max_ranked, unit="candidates")
    if sum(request.counts) != len(request.item_ids):
        raise BadRequest(
            f"counts add up to {sum(request.counts)}, item_ids are {len(request.item_ids)}",
            field="counts",
        )
    check_ids(request.item_ids, "item_ids", limits)
    between("k", request.k, 0, limits.max_ranked)
    check_objective(request.objective, limits, generation)
    check_fields(request.fields, len(request.item_ids), limits, generation)
    check_time(request.time_us)
    _check_weights(request.weights, generation)
    _check_slate(request.slate, limits, generation)


def _check_weights(weights: Mapping[str, float], generation: Generation) -> None:
    heads = () if generation.value is None else generation.value.heads
    for i, (head, weight) in enumerate(weights.items()):
        if head not in heads:
            raise BadRequest(
                f"no head {head!r:.80}; "
                + (
                    f"this bundle has: {', '.join(heads)}"
                    if heads
                    else "this bundle has no value model: leave weights out, or train one and "
                    "export again"
                ),
                field=f"weights[{i}].head",
            )
        if not abs(weight) <= LARGEST:  # NaN is not, either
            raise BadRequest(
                f"a weight of {weight}; allowed: numbers from -{LARGEST:g} to {LARGEST:g}",
                field=f"weights[{i}].weight",
            )


def _check_slate(slate: SlateRules, limits: Limits, generation: Generation) -> None:
    if slate.diversity is not None and not 0 <= slate.diversity <= 1:  # NaN is neither
        raise BadRequest(
            f"diversity = {slate.diversity} is not allowed; allowed: 0 to 1",
            field="slate.diversity",
        )
    between("slate.caps", len(slate.caps), 0, limits.max_filters, unit="caps")
    for i, cap in enumerate(slate.caps):
        if cap.field not in generation.groupable:
            raise UnknownField(
                f"no cap can be put on {cap.field!r:.80}; on: {', '.join(generation.groupable)}",
                field=f"slate.caps[{i}].field",
            )
        if cap.most < 1:
            raise BadRequest(
                f"a cap of {cap.most} on {cap.field!r:.80} is not allowed; allowed: 1 or more "
                "(to show none of a value, use a filter)",
                field=f"slate.caps[{i}].most",
            )
    seen: set[str] = set()
    for i, kind in enumerate(slate.kinds):
        where = f"slate.kinds[{i}]"
        if kind.kind not in KINDS:
            raise BadRequest(
                f"no kind {kind.kind!r:.80}; kinds: {', '.join(KINDS)}", field=f"{where}.kind"
            )
        if kind.kind in seen:
            raise BadRequest(
                f"kind {kind.kind!r} is named twice; give one share", field=f"{where}.kind"
            )
        seen.add(kind.kind)
        if not 0 < kind.share <= 1:
            raise BadRequest(
                f"share = {kind.share} is not allowed; allowed: above 0, at most 1",
                field=f"{where}.share",
            )
    total = sum(kind.share for kind in slate.kinds)
    if total > 1 + 1e-9:
        raise BadRequest(f"the shares add up to {total:g}; allowed: at most 1", field="slate.kinds")
