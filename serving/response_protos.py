"""The server's side of the wire, outwards: answers to protos.

On the hot path: whole Python lists go into repeated fields at once. The client's side is
serving/translation.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from interest.v1 import circle_service_pb2, retrieval_service_pb2, types_pb2
from model.histories import NO_TIME
from serving.domain import Candidates, PartError, Slates
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.origins import ORIGINS, candidate_origins
from serving.pipeline import Answer
from serving.rank.compose import STEPS
from serving.rank.slate import REASONS
from serving.readers import MAX_ERRORS, Reader

Int64 = npt.NDArray[np.int64]


def put_candidates(
    target: types_pb2.Candidates,
    candidates: Candidates,
    catalogue: Catalogue,
    fields: Sequence[str],
) -> None:
    """Fill in the candidates of all queries, with the item columns `fields`."""
    circles, names = catalogue.circles_of(candidates.rows)
    target.item_ids.extend(catalogue.ids_of(candidates.rows))
    target.scores.extend(candidates.scores.tolist())
    target.counts.extend(candidates.counts.tolist())
    target.interests.extend(candidates.interests.tolist())
    target.circles.extend(circles)
    target.circle_names.extend(names)
    put_columns(target.columns, candidates.rows, catalogue, fields)


def put_columns(target: Any, rows: Int64, catalogue: Catalogue, fields: Sequence[str]) -> None:
    """Fill in the item columns `fields` of rows (each >= 0). target: a repeated field of Column."""
    for name in fields:
        _put_column(target.add(field=name), catalogue.column(name, rows))


def _put_column(target: types_pb2.Column, values: pa.Array) -> None:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        flat = pc.list_flatten(values)
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        target.lists.values.extend(pc.fill_null(flat.cast(pa.string()), "").to_pylist())
        target.lists.counts.extend(lengths.to_pylist())
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64())
        target.numbers.values.extend(pc.fill_null(numbers, float("nan")).to_pylist())
    else:
        target.strings.values.extend(pc.fill_null(values.cast(pa.string()), "").to_pylist())


def put_provenance(
    target: retrieval_service_pb2.Provenance, slates: Slates, generation: Generation
) -> None:
    """Fill in why each item of the slates stands where it does."""
    target.values.extend(slates.values.tolist())
    if slates.chances.shape[1]:
        assert generation.value is not None
        target.heads.extend(generation.value.heads)
        target.chances.extend(slates.chances.ravel().tolist())
    target.retrieval_ranks.extend(slates.retrieval_ranks.tolist())
    target.value_ranks.extend(slates.value_ranks.tolist())
    target.reasons.extend(slates.reasons.tolist())
    target.reason_names.extend(REASONS)
    target.best_values.extend(slates.best_values.tolist())
    target.costs.extend(slates.costs.ravel().tolist())
    target.cost_names.extend(STEPS)
    target.paced_shares.extend(slates.paced_shares)


def put_origins(
    target: types_pb2.Candidates, answer: Answer, candidates: Candidates
) -> npt.NDArray[np.int8]:
    """Fill in where the candidates of the answer's queries come from; returns the same, [n]."""
    found = candidate_origins(answer.catalogue, answer.readers, answer.now, candidates)
    target.origins.extend(found.tolist())
    target.origin_names.extend(ORIGINS)
    return found


def put_readers(
    target: retrieval_service_pb2.RetrieveResponse
    | retrieval_service_pb2.RecommendResponse
    | retrieval_service_pb2.EmbedUsersResponse
    | circle_service_pb2.GetUserCirclesResponse,
    readers: Sequence[Reader],
) -> None:
    """Fill in what is said about each query's user."""
    cold = [not len(reader.rows) and not reader.gave_vectors for reader in readers]
    target.history_lengths.extend(len(reader.rows) for reader in readers)
    target.cold.extend(cold)
    errors = [error for reader in readers for error in reader.errors][:MAX_ERRORS]
    put_errors(target.errors, errors)
    num_more = sum(reader.num_errors for reader in readers) - len(errors)
    if num_more:
        target.errors.add(
            index=errors[-1].index,
            code="MORE_ERRORS",
            field="queries",
            message=f"{num_more} more parts of histories were left aside",
        )


def put_errors(target: Any, errors: Sequence[PartError]) -> None:
    """target: a repeated field of ItemError."""
    for error in errors:
        target.add(index=error.index, code=error.code, field=error.field, message=error.message)


def put_history(
    target: types_pb2.HistoryItems,
    readers: Sequence[Reader],
    catalogue: Catalogue,
    fields: Sequence[str],
) -> None:
    """Fill in the events that each query asked to see."""
    target.counts.extend(len(reader.shown.item_ids) if reader.shown else 0 for reader in readers)
    shown = [reader.shown for reader in readers if reader.shown is not None]
    target.item_ids.extend(item_id for one in shown for item_id in one.item_ids)
    target.events.extend(name for one in shown for name in one.events)
    times = [moment for one in shown for moment in one.timestamps_us.tolist()]
    if any(moment != NO_TIME for moment in times):
        target.timestamps_us.extend(0 if moment == NO_TIME else moment for moment in times)
    rows = catalogue.rows_of(target.item_ids)
    for name in fields:
        values = catalogue.column(name, np.maximum(rows, 0))
        unknown = pa.array(rows < 0)
        _put_column(target.columns.add(field=name), pc.if_else(unknown, None, values))
