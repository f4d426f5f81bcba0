"""interest.v1.AdminService over one runtime: what is served, and by which bundle from now on."""

import dataclasses
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from interest.v1 import admin_service_pb2, admin_service_pb2_grpc, types_pb2
from serving.budget import Context
from serving.checks import between
from serving.runtime import Runtime
from serving.store.generations import StoredGeneration

_LISTED = 20


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """interest.v1.AdminService over one runtime."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime, self._worker = runtime, worker

    def GetStatus(  # noqa: N802
        self, request: admin_service_pb2.GetStatusRequest, context: Context
    ) -> admin_service_pb2.GetStatusResponse:
        """The worker that answers, and the bundle that it serves."""
        runtime, catalogue = self._runtime, self._runtime.catalogue
        generation = catalogue.generation
        bundle, manifest = generation.bundle, generation.bundle.manifest
        return admin_service_pb2.GetStatusResponse(
            info=types_pb2.AnswerInfo(bundle_version=generation.version, worker=self._worker),
            server_version=_release(),
            uptime_seconds=time.monotonic() - self._runtime.ready_at,
            bundle=admin_service_pb2.BundleStatus(
                version=generation.version,
                name=generation.schema.name,
                created=manifest.created.isoformat(),
                as_of=manifest.as_of.isoformat() if manifest.as_of else "",
                num_items=generation.items.num_items,
                num_active=generation.items.num_active,
                dim=bundle.dim,
                num_interests=bundle.num_interests,
                max_history=bundle.max_history,
                num_circles=bundle.circles.num_rows,
                objectives=bundle.objectives,
                history_events=list(generation.event_codes),
                filterable=list(generation.schema.filterable()),
                columns=generation.columns,
                heads=[] if generation.value is None else generation.value.heads,
                default_weights=[]
                if generation.value is None
                else generation.value.default_weights.tolist(),
            ),
            store=admin_service_pb2.StoreStatus(
                kind=runtime.store_kind, num_users=runtime.store.num_users()
            ),
            live=admin_service_pb2.LiveStatus(
                applied_sequence=runtime.follower.applied,
                newest_sequence=runtime.items.newest(),
                num_sealed=catalogue.num_sealed,
                num_delta=catalogue.num_delta,
                num_replaced=catalogue.num_replaced,
            ),
            limits=admin_service_pb2.Limits(**dataclasses.asdict(runtime.limits)),
        )

    def ListUsers(  # noqa: N802
        self, request: admin_service_pb2.ListUsersRequest, context: Context
    ) -> admin_service_pb2.ListUsersResponse:
        """The users of the store, page by page."""
        users = self._runtime.list_users(request.page_size, request.page_token)
        return admin_service_pb2.ListUsersResponse(
            info=types_pb2.AnswerInfo(
                bundle_version=self._runtime.generation.version, worker=self._worker
            ),
            user_ids=[user_id for _, user_id, _ in users],
            num_events=[num_events for _, _, num_events in users],
            next_page_token=str(users[-1][0]) if len(users) == request.page_size else "",
        )

    def Activate(  # noqa: N802
        self, request: admin_service_pb2.ActivateRequest, context: Context
    ) -> admin_service_pb2.ActivateResponse:
        """Serve another bundle from now on."""
        asked = self._runtime.activate(request.bundle_path, skips_gate=request.skips_gate)
        return admin_service_pb2.ActivateResponse(generation=_generation(asked))

    def Rollback(  # noqa: N802
        self, request: admin_service_pb2.RollbackRequest, context: Context
    ) -> admin_service_pb2.RollbackResponse:
        """Serve what was served before."""
        return admin_service_pb2.RollbackResponse(generation=_generation(self._runtime.roll_back()))

    def ListGenerations(  # noqa: N802
        self, request: admin_service_pb2.ListGenerationsRequest, context: Context
    ) -> admin_service_pb2.ListGenerationsResponse:
        """The bundles that were activated, newest first."""
        between("page_size", request.page_size, 0, self._runtime.limits.max_page)
        newest = self._runtime.generations.newest(request.page_size or _LISTED)
        return admin_service_pb2.ListGenerationsResponse(generations=map(_generation, newest))


def _generation(stored: StoredGeneration) -> admin_service_pb2.Generation:
    return admin_service_pb2.Generation(
        number=stored.number,
        path=str(stored.path),
        bundle_version=stored.version,
        state=stored.state,
        message=stored.message,
        created=_iso(stored.created_us),
        changed=_iso(stored.changed_us),
    )


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()


def _release() -> str:
    try:
        return version("penchant")
    except PackageNotFoundError:
        return "uninstalled"
