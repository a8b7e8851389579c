# SPDX-License-Identifier: Apache-2.0
"""The standard services beside the bytes: ``grpc.health.v1`` and reflection.

Both answer without an API key, as the tools that ask them expect. They tell whether the device
works and what the contract is, which is public; they never touch the device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc

from qr_sampler_grpc.device.telemetry import Telemetry
from qr_sampler_grpc.proto.entropy_service_pb2 import DESCRIPTOR
from qr_sampler_grpc.server.monitoring.apart import ServiceApart

__all__ = ["HealthService", "add_health", "add_reflection"]

_HEALTH: Final = "grpc.health.v1.Health"
_SERVICE: Final = DESCRIPTOR.services_by_name["EntropyService"].full_name


class HealthService(Telemetry):
    """Reports the last known state of the device, for the whole server and for its service.

    The servicer of ``grpcio-health-checking`` sends while it holds its lock, so a watcher that
    reads nothing, or goes at the wrong moment, would hold up all others and the device.

    Args:
        messages: The module ``grpc_health.v1.health_pb2``.
    """

    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self._states = dict.fromkeys(("", _SERVICE), self._kinds.SERVING)
        # Held for a moment only, never while something is sent.
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def _kinds(self) -> Any:
        return self._messages.HealthCheckResponse

    def health(self, *, serving: bool) -> None:
        """Sets the state and wakes those who watch it."""
        self._set(self._kinds.SERVING if serving else self._kinds.NOT_SERVING)

    def stop(self) -> None:
        """Reports from now on that nothing is served, whatever the device does."""
        self._set(self._kinds.NOT_SERVING)
        self._stopped = True

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the state."""
        state = self._states.get(request.service)
        if state is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._kinds(status=state)

    def watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Sends the state, and again whenever it has changed."""
        reported = None
        if not context.add_callback(self._wake):
            return
        while context.is_active():
            with self._changed:
                while self._state(request) == reported and context.is_active():
                    self._changed.wait()
                reported = self._state(request)
            yield self._kinds(status=reported)

    def add_to(self, services: ServiceApart) -> None:
        """Offers the two methods."""
        ask, tell = self._messages.HealthCheckRequest.FromString, self._kinds.SerializeToString
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, ask, tell),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, ask, tell),
        }
        generic = grpc.method_handlers_generic_handler(_HEALTH, handlers)
        services.add_generic_rpc_handlers((generic,))

    def _state(self, request: Any) -> Any:
        return self._states.get(request.service, self._kinds.SERVICE_UNKNOWN)

    def _set(self, state: Any) -> None:
        with self._changed:
            if not self._stopped:
                self._states = dict.fromkeys(self._states, state)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def add_health(services: ServiceApart) -> HealthService | None:
    """Adds the health service to *services*; returns ``None`` where its package is missing."""
    try:
        from grpc_health.v1 import health_pb2
    except ImportError:
        return None
    health = HealthService(health_pb2)
    health.add_to(services)
    return health


def add_reflection(services: ServiceApart, *, with_health: bool) -> bool:
    """Adds reflection to *services*; returns whether its package is there."""
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
    except ImportError:
        return False
    names = [_SERVICE, reflection.SERVICE_NAME]
    if with_health:
        names.append(_HEALTH)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.ReflectionServicer(names), services
    )
    return True
