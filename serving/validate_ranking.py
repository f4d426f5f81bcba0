"""What of Recommend and Rerank is checked beside what they share with other requests.

As serving/validate.py: each check raises BadRequest, naming the field.
"""

from collections.abc import Mapping, Sequence

from model.schema import KINDS
from serving.checks import LARGEST, between, check_ids, check_time
from serving.config import Limits
from serving.domain import (
    ExposureFloor,
    NewItems,
    RecommendRequest,
    RerankRequest,
    SlateRules,
    SmallCreators,
)
from serving.errors import BadRequest, UnknownField
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.origins import MOST_CIRCLES, ORIGINS
from serving.rank.explain import LANGUAGES
from serving.rank.rules import least_of
from serving.rank.slate import METHODS
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
from serving.wanted import DEEPER

MOST_FLOORS = 12
"""Kinds, origins and exposure floors of one slate: what each combination of them needs is worked
out."""
_MOST_DAYS = 36_500


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
    _check_wanted(request, limits, generation)
    check_filters(request.filters, limits, generation)
    num_rows = len(request.queries) * most_rows(request.k, catalogue)
    check_fields(request.fields, num_rows, limits, generation)
    check_time(request.time_us)
    _check_weights(request.weights, generation)
    _check_slate(request.slate, limits, generation)
    _check_language(request.language)


def _check_wanted(request: RecommendRequest, limits: Limits, generation: Generation) -> None:
    """What is searched for beside the candidates of each user's own interests: all of it together
    is held to what one search may cost."""
    slate, num = request.slate, request.num_candidates
    vectors = num_vectors(request.queries, generation)
    rows = vectors * num
    for kind in slate.kinds:
        if 0 < kind.share <= 1:  # else it is refused for that
            rows += vectors * least_of(kind.share, num)
    for floor in slate.floors:
        if isinstance(floor.group, NewItems | SmallCreators):
            rows += vectors * DEEPER * num
        elif 0 < floor.share <= 1:
            rows += vectors * max(least_of(floor.share, num), floor.least)
    for one in slate.origins:
        if 0 < one.share <= 1:
            rows += len(request.queries) * MOST_CIRCLES * DEEPER * least_of(one.share, num)
    if rows > limits.max_search:
        raise BadRequest(
            f"{vectors} vectors (of all queries together) are searched with for {num} candidates, "
            f"and again for floors and shares, {rows} rows in all; allowed: at most "
            f"{limits.max_search}; ask for fewer queries, candidates or floors",
            field="slate",
        )


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
    _check_language(request.language)


def _check_language(language: str) -> None:
    if language and language not in LANGUAGES:
        raise BadRequest(
            f"no explanations in {language!r:.80}; languages: {', '.join(LANGUAGES)}",
            field="language",
        )


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
        _check_share(kind.share, where)
    _check_total([kind.share for kind in slate.kinds], "slate.kinds")
    if slate.method and slate.method not in METHODS:
        raise BadRequest(
            f"no method {slate.method!r:.80}; methods: {', '.join(METHODS)}", field="slate.method"
        )
    between("slate.window", slate.window, 0, limits.max_ranked, unit="items")
    if slate.window and slate.method != "dpp":
        raise BadRequest("a window is for the method dpp; leave it out", field="slate.window")
    _check_exploration(slate.exploration, generation)
    for i, floor in enumerate(slate.floors):
        _check_floor(floor, f"slate.floors[{i}]", limits, generation)
        if any(floor.group == other.group for other in slate.floors[:i]):
            raise BadRequest(
                "the floor's group is that of a floor before it; give one share",
                field=f"slate.floors[{i}]",
            )
    origins: set[str] = set()
    for i, one in enumerate(slate.origins):
        where = f"slate.origins[{i}]"
        if one.origin not in ORIGINS:
            raise BadRequest(
                f"no origin {one.origin!r:.80}; origins: {', '.join(ORIGINS)}",
                field=f"{where}.origin",
            )
        if one.origin in origins:
            raise BadRequest(
                f"origin {one.origin!r} is named twice; give one share", field=f"{where}.origin"
            )
        origins.add(one.origin)
        _check_share(one.share, where)
    _check_total([one.share for one in slate.origins], "slate.origins")
    between(
        "slate",
        len(slate.kinds) + len(slate.origins) + len(slate.floors),
        0,
        MOST_FLOORS,
        unit="floors and shares together",
    )


def _check_share(share: float, where: str) -> None:
    if not 0 < share <= 1:  # NaN is not, either
        raise BadRequest(
            f"share = {share} is not allowed; allowed: above 0, at most 1", field=f"{where}.share"
        )


def _check_total(shares: Sequence[float], where: str) -> None:
    total = sum(shares)
    if total > 1 + 1e-9:
        raise BadRequest(f"the shares add up to {total:g}; allowed: at most 1", field=where)


def _check_exploration(exploration: float, generation: Generation) -> None:
    if not 0 <= exploration <= 1:
        raise BadRequest(
            f"exploration = {exploration} is not allowed; allowed: 0 to 1",
            field="slate.exploration",
        )
    if exploration and generation.value is None:
        raise BadRequest(
            "this bundle has no value model, whose chances are what is explored: leave "
            "exploration out, or train one and export again",
            field="slate.exploration",
        )


def _check_floor(floor: ExposureFloor, where: str, limits: Limits, generation: Generation) -> None:
    """Floors may overlap, so that their shares may well add up to more than 1."""
    _check_share(floor.share, where)
    between(f"{where}.least", floor.least, 0, limits.max_ranked, unit="items")
    if floor.least and not floor.paced:
        raise BadRequest(
            "least is for a paced floor; one that is not has its share in each slate",
            field=f"{where}.least",
        )
    group = floor.group
    if isinstance(group, NewItems):
        _check_new_items(group, f"{where}.new_items", generation)
    elif isinstance(group, SmallCreators):
        if group.field not in generation.groupable:
            raise UnknownField(
                f"no creators can be told by {group.field!r:.80}; by: "
                f"{', '.join(generation.groupable)}",
                field=f"{where}.small_creators.field",
            )
        if not 0 <= group.tail < 1:
            raise BadRequest(
                f"tail = {group.tail} is not allowed; allowed: above 0, below 1",
                field=f"{where}.small_creators.tail",
            )
    else:
        try:
            check_filters((group,), limits, generation)
        except BadRequest as error:
            inner = (error.field or "").removeprefix("filters[0]").removeprefix("filters")
            raise type(error)(str(error), field=f"{where}.filter{inner}") from None


def _check_new_items(group: NewItems, where: str, generation: Generation) -> None:
    if not 0 <= group.max_age_days <= _MOST_DAYS:
        raise BadRequest(
            f"max_age_days = {group.max_age_days} is not allowed; allowed: 0 to {_MOST_DAYS}",
            field=f"{where}.max_age_days",
        )
    if group.max_age_days and not generation.has_ages:
        raise UnknownField(
            "the items of this bundle have no created_at; give max_events instead",
            field=f"{where}.max_age_days",
        )
