"""The client's calls that change what is served: items, and which bundle. Sends nothing itself."""

from collections.abc import Sequence

from google.protobuf.message import Message

from interest.v1 import admin_service_pb2, ingest_service_pb2
from serving.client_answers import part_errors, read_source
from serving.client_messages import feature_message, message
from serving.domain import ItemChange
from serving.errors import BadRequest
from serving.results import Activation, Written
from serving.translation import Call

_INGEST, _ADMIN = "/interest.v1.IngestService", "/interest.v1.AdminService"


def upsert_items_call(items: ItemChange | Sequence[ItemChange]) -> Call[Written]:
    """UpsertItems. Raises BadRequest for what no message can say."""
    changes = [items] if isinstance(items, ItemChange) else items
    return Call(
        f"{_INGEST}/UpsertItems",
        message(ingest_service_pb2.UpsertItemsRequest, items=[_change(item) for item in changes]),
        ingest_service_pb2.UpsertItemsResponse,
        _upserted,
    )


def delete_items_call(item_ids: str | Sequence[str]) -> Call[Written]:
    """DeleteItems."""
    ids = [item_ids] if isinstance(item_ids, str) else list(item_ids)
    return Call(
        f"{_INGEST}/DeleteItems",
        message(ingest_service_pb2.DeleteItemsRequest, item_ids=ids),
        ingest_service_pb2.DeleteItemsResponse,
        _deleted,
    )


def activate_call(bundle_path: str, *, skips_gate: bool) -> Call[Activation]:
    """Activate."""
    request = admin_service_pb2.ActivateRequest(bundle_path=bundle_path, skips_gate=skips_gate)
    return Call(
        f"{_ADMIN}/Activate",
        request,
        admin_service_pb2.ActivateResponse,
        lambda response: _activation(response.generation),
    )


def rollback_call() -> Call[Activation]:
    """Rollback."""
    return Call(
        f"{_ADMIN}/Rollback",
        admin_service_pb2.RollbackRequest(),
        admin_service_pb2.RollbackResponse,
        lambda response: _activation(response.generation),
    )


def list_generations_call(most: int) -> Call[list[Activation]]:
    """ListGenerations."""
    return Call(
        f"{_ADMIN}/ListGenerations",
        message(admin_service_pb2.ListGenerationsRequest, page_size=most),
        admin_service_pb2.ListGenerationsResponse,
        lambda response: [_activation(one) for one in response.generations],
    )


def _change(item: ItemChange) -> Message:
    if not isinstance(item, ItemChange):
        raise BadRequest(f"{item!r:.80} is no ItemChange", field="items")
    return message(
        ingest_service_pb2.ItemUpsert,
        item_id=item.item_id,
        kind=item.kind,
        features=[feature_message(name, value) for name, value in item.features.items()],
        available=item.available,
        expires_at_us=item.expires_at_us,
        links=[
            message(ingest_service_pb2.ItemLink, relation=relation, to_item_id=to)
            for relation, to in item.links or ()
        ],
        replaces_links=item.links is not None,
    )


def _upserted(response: ingest_service_pb2.UpsertItemsResponse) -> Written:
    return Written(
        num_taken=response.num_taken,
        sequence=response.sequence,
        errors=part_errors(response.errors),
        source=read_source(response.info),
    )


def _deleted(response: ingest_service_pb2.DeleteItemsResponse) -> Written:
    return Written(
        num_taken=response.num_deleted,
        sequence=response.sequence,
        errors=part_errors(response.errors),
        source=read_source(response.info),
    )


def _activation(one: admin_service_pb2.Generation) -> Activation:
    return Activation(
        number=one.number,
        path=one.path,
        bundle_version=one.bundle_version,
        state=one.state,
        message=one.message,
        created=one.created,
        changed=one.changed,
    )
