"""Asks a server for its health, as a load balancer would: no retries, no other replica.

Knows grpc.health.v1 and nothing of what the server serves.
"""

from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.channels import HEALTH_SERVICE
from serving.errors import ServerUnavailable

ADMIN_SERVICE = "interest.v1.AdminService"


def probe_health(address: str, *, timeout: float) -> Mapping[str, str]:
    """Service name → SERVING or NOT_SERVING, of one worker at host:port.

    Raises ServerUnavailable where nothing answers within timeout seconds.
    """
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        found = {}
        for service in (HEALTH_SERVICE, ADMIN_SERVICE):
            try:
                answer = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
            except grpc.RpcError as error:
                raise ServerUnavailable(
                    f"no health check answers at {address} ({error.code().name})."
                ) from None
            found[service] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return found
