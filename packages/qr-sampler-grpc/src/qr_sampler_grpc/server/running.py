# SPDX-License-Identifier: Apache-2.0
"""A server while it runs."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.server.lanes import Lane
from qr_sampler_grpc.server.monitoring.health import HealthService
from qr_sampler_grpc.server.monitoring.metrics import Metrics, MetricsEndpoint
from qr_sampler_grpc.server.servicer import EntropyServicer
from qr_sampler_grpc.server.wait_limits import WaitLimits

__all__ = ["EntropyServer"]


class EntropyServer:
    """A running server; :func:`~qr_sampler_grpc.server.serve` starts one.

    Leaving its ``with`` block stops it.
    """

    def __init__(
        self,
        server: grpc.Server,
        lanes: Sequence[Lane],
        address: Address,
        servicer: EntropyServicer,
        device: Device,
        health: HealthService | None,
        metrics: tuple[Metrics, MetricsEndpoint] | None,
        wait_limits: WaitLimits,
    ) -> None:
        self._server = server
        self._lanes = lanes
        self._address = address
        self._servicer = servicer
        self._device = device
        self._health = health
        self._metrics = metrics
        self._wait_limits = wait_limits

    @property
    def address(self) -> str:
        """The address that clients on this machine use, with the port that was really taken."""
        return str(self._address.reachable)

    @property
    def port(self) -> int:
        """The TCP port; 0 for a Unix domain socket."""
        return self._address.port

    @property
    def device(self) -> Device:
        """The device, for another listener beside this one."""
        return self._device

    @property
    def metrics_address(self) -> str:
        """Where the metrics are scraped, ``host:port``; empty when they are not offered."""
        return self._metrics[1].address if self._metrics else ""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the server to stop, and returns whether *timeout_s* seconds passed first."""
        return self._server.wait_for_termination(timeout_s)

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuses new requests, lets running ones finish for *grace_s* seconds, then cancels them.

        The health service reports at once that nothing is served. May be called more than
        once. The source is left open, and a measurement that does not end is left alone.
        """
        if self._health is not None:
            self._health.stop()
            self._device.detach(self._health)
        self._servicer.refuse_more()
        self._server.stop(grace_s).wait()
        # The threads end by themselves unless the device holds one.
        is_idle = self._device.wait_until_idle(grace_s)
        for lane in self._lanes:
            lane.shutdown(wait=is_idle, cancel_futures=True)
        self._wait_limits.stop()
        if self._metrics is not None:
            metrics, endpoint = self._metrics
            self._device.detach(metrics)
            endpoint.stop()

    def __enter__(self) -> EntropyServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
