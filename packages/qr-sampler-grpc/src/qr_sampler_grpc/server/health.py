# SPDX-License-Identifier: Apache-2.0
"""The standard services beside the bytes: ``grpc.health.v1`` and reflection.

Both answer without an API key, as the tools that ask them expect. They tell whether the device
works and what the contract is, which is public; they never touch the device.
"""

from __future__ import annotations

from typing import Any, Final

from qr_sampler_grpc.proto.entropy_service_pb2 import DESCRIPTOR
from qr_sampler_grpc.server.apart import ServiceApart
from qr_sampler_grpc.telemetry import Telemetry

__all__ = ["HealthService", "add_health", "add_reflection"]

_SERVICE: Final = DESCRIPTOR.services_by_name["EntropyService"].full_name


class HealthService(Telemetry):
    """Reports the last known state of the device, for the whole server and for its service.

    Args:
        servicer: The health servicer of ``grpcio-health-checking``.
    """

    def __init__(self, servicer: Any) -> None:
        self._servicer = servicer

    def health(self, *, serving: bool) -> None:
        """Sets the state and tells those who watch it."""
        from grpc_health.v1.health_pb2 import HealthCheckResponse

        state = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for service in ("", _SERVICE):
            self._servicer.set(service, state)

    def stop(self) -> None:
        """Reports from now on that nothing is served any more, whatever the device does."""
        self._servicer.enter_graceful_shutdown()


def add_health(services: ServiceApart) -> HealthService | None:
    """Adds the health service to *services*; returns ``None`` where its package is missing."""
    try:
        from grpc_health.v1 import health, health_pb2_grpc
    except ImportError:
        return None
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, services)
    return HealthService(servicer)


def add_reflection(services: ServiceApart, *, with_health: bool) -> bool:
    """Adds reflection to *services*; returns whether its package is there."""
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
    except ImportError:
        return False
    names = [_SERVICE, reflection.SERVICE_NAME]
    if with_health:
        names.append("grpc.health.v1.Health")
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.ReflectionServicer(names), services
    )
    return True
