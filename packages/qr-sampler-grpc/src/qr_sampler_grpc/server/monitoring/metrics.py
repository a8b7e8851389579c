# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of a server, and the address where they are scraped."""

from __future__ import annotations

import socket
import threading
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.device.telemetry import Telemetry
from qr_sampler_grpc.server.binding import ServerStartError

__all__ = ["Metrics", "MetricsEndpoint"]

_BUCKETS_S: Final = tuple(float(f"{factor}e{power}") for power in range(-5, 2) for factor in (1, 3))
_SCRAPE_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
"""Longest time to stop the endpoint."""


class Metrics(Telemetry):
    """Counts into its own registry, so that two servers in one process stay apart.

    Raises:
        ConfigError: When the package ``prometheus-client`` is missing.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise ConfigError(
                "metrics need the package prometheus-client: pip install prometheus-client"
            ) from error
        self.registry: Any = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "qr_entropy_requests",
            "Requests by method and status code, each request of a stream by itself.",
            ("method", "code"),
            registry=self.registry,
        )
        self._bytes = prometheus.Counter(
            "qr_entropy_bytes", "Bytes that the device generated.", registry=self.registry
        )
        self._seconds = prometheus.Histogram(
            "qr_entropy_device_seconds",
            "Time that the device took for one request.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._streams = prometheus.Gauge(
            "qr_entropy_open_streams", "Streams that are open.", registry=self.registry
        )
        self._serving = prometheus.Gauge(
            "qr_entropy_serving",
            "1 when the last measurement went well, 0 when it failed.",
            registry=self.registry,
        )

    def answered(self, method: str, code: str) -> None:
        """Counts the request."""
        self._requests.labels(method, code).inc()

    def measured(self, n: int, seconds: float) -> None:
        """Counts the bytes and the time that they took."""
        self._bytes.inc(n)
        self._seconds.observe(seconds)

    def streams(self, change: int) -> None:
        """Counts the open streams."""
        self._streams.inc(change)

    def health(self, *, serving: bool) -> None:
        """Notes the state of the device."""
        self._serving.set(int(serving))


class MetricsEndpoint:
    """Answers scrapes over HTTP from its own thread, until it is stopped.

    Args:
        metrics: What is scraped.
        address: ``host:port``; port 0 takes a free one. Nothing is encrypted and no key is asked
            for: the metrics hold no secret.

    Raises:
        ConfigError: When the address is malformed or a Unix domain socket.
        ServerStartError: When the address cannot be listened at.
    """

    def __init__(self, metrics: Metrics, address: str) -> None:
        place = Address.parse(address, listening=True)
        if place.path:
            raise ConfigError(f"metrics address {address!r}: use host:port; scrapers speak TCP")
        try:
            self._server = _server_class(place)((place.host, place.port), _handler(metrics))
        except OSError as error:
            raise ServerStartError(
                f"cannot offer metrics at {place}: {error}; choose another address"
            ) from error
        bound = Address(host=place.host, port=self._server.server_address[1])
        self.address = str(bound.reachable)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_POLL_S,),
            name="qr-entropy-metrics",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Frees the address. May be called more than once."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _ScrapeServer(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The inherited one asks the name service for our own name, which may take seconds.
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), port


class _ScrapeServerV6(_ScrapeServer):
    address_family = socket.AF_INET6


def _server_class(place: Address) -> type[_ScrapeServer]:
    return _ScrapeServerV6 if ":" in place.host else _ScrapeServer


def _handler(metrics: Metrics) -> Any:
    from prometheus_client import MetricsHandler

    handler: Any = MetricsHandler.factory(metrics.registry)
    # A client that connects and stays silent must not keep its thread.
    handler.timeout = _SCRAPE_TIMEOUT_S
    return handler
