# SPDX-License-Identifier: Apache-2.0
"""Starts a server: one call from a device to a listening address."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.connection.fork_guard import FORK_GUARD
from qr_sampler_grpc.connection.large_blocks import keep_large_blocks
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.device.generate import Generate
from qr_sampler_grpc.server.binding import (
    ServerStartError,
    bind,
    check_exposure,
    check_metrics_exposure,
)
from qr_sampler_grpc.server.keys import ApiKeys, read_secrets
from qr_sampler_grpc.server.lanes import Lane
from qr_sampler_grpc.server.monitoring.apart import ServiceApart
from qr_sampler_grpc.server.monitoring.health import HealthService, add_health, add_reflection
from qr_sampler_grpc.server.monitoring.metrics import Metrics, MetricsEndpoint
from qr_sampler_grpc.server.running import EntropyServer
from qr_sampler_grpc.server.servicer import EntropyServicer
from qr_sampler_grpc.server.wait_limits import WaitLimits

if TYPE_CHECKING:
    from qr_sampler_grpc.device.witness_log import WitnessLog
    from qr_sampler_grpc.protocol.attestation import SigningKey
    from qr_sampler_grpc.server.tls import ServerTls

__all__ = ["MAX_WATCHES", "REFLECTION_STREAMS", "serve"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")
_HEALTH_THREADS: Final = 2
_WAITING_CHECKS: Final = 30
MAX_WATCHES: Final = 64
"""Most clients that may watch the health at once."""
REFLECTION_STREAMS: Final = 2
"""Most clients that may use reflection at once."""

_OPTIONS: Final = (
    # Without it two servers may listen on one port, and each gets half of the requests.
    ("grpc.so_reuseport", 0),
    # A request is a number, a digest and little more.
    ("grpc.max_receive_message_length", 64 * 2**10),
)
_EXPOSED_KEYS: Final = (
    "API KEYS TRAVEL UNENCRYPTED to %s: whoever sees the traffic can use them; "
    "give the server a certificate"
)
_DEFAULT_MAX_BYTES: Final = 16 * 2**20


def serve(
    source: EntropySource | Generate | Device,
    address: str = "127.0.0.1:50051",
    *,
    device_id: str = "",
    tls: ServerTls | None = None,
    insecure: bool = False,
    api_key: str | Iterable[str] | None = None,
    api_key_file: Path | None = None,
    api_key_header: str = "api-key",
    max_bytes_per_request: int = _DEFAULT_MAX_BYTES,
    max_streams: int = 16,
    requests_per_minute: int | None = None,
    bytes_per_day: int | None = None,
    signing_key: SigningKey | None = None,
    witness_log: WitnessLog | None = None,
    metrics_address: str | None = None,
) -> EntropyServer:
    """Returns a server that answers from *source*, already listening.

    A stream occupies one thread for as long as it is open, even while it is silent; one beyond the
    *max_streams* that are admitted ends with RESOURCE_EXHAUSTED. Single calls have threads of their
    own. A call without a valid key ends before anything of it is waited for; one whose message does
    not follow within seconds is ended, and so is one whose answer is not read.

    With the extra ``server`` installed, ``grpc.health.v1`` and reflection are offered too. They
    answer everybody who can connect, without an API key, and never from the threads of those who
    draw.

    Args:
        source: Where the bytes come from: an entropy source; a function that returns as many fresh
            bytes as it is asked for; or a :class:`~qr_sampler_grpc.device.Device` that another
            listener shares. Drawn from on request only, by one thread at a time.
        address: Where to listen: this machine alone unless told otherwise. Port 0 takes a free
            port. A Unix domain socket is open to the same user only.
        device_id: Identity to report; the source's name when empty.
        tls: Encrypts every connection, and asks clients for certificates if it names an authority.
        insecure: Allows an address that other machines can reach without *tls*, and a
            *metrics_address* that they can reach at all.
        api_key: One key or several; every call must carry one of them. ``None`` answers everybody
            who can connect. Without *tls* a key protects on trusted networks only.
        api_key_file: File with further keys, one a line.
        api_key_header: Lower-case metadata key of the API key.
        max_bytes_per_request: Largest request that is answered.
        max_streams: Most streams that may be open at once.
        requests_per_minute: Most requests of one key in any minute, those of streams counted one by
            one; ``None`` means unlimited. Without keys all callers share the quota.
        bytes_per_day: Most bytes of one key in any 24 hours; ``None`` means unlimited.
        signing_key: Signs the answers, and once more what records hold of them.
        witness_log: Takes in what can be recorded of every answer; left open.
        metrics_address: ``host:port`` where Prometheus metrics are offered over HTTP; ``None``
            offers none.

    Raises:
        ConfigError: When an argument is malformed, a file cannot be used, an address that other
            machines can reach is neither encrypted nor *insecure*, or a package is missing.
        ServerStartError: When an address cannot be listened at.
    """
    place = Address.parse(address, listening=True)
    check_exposure(place, encrypted=tls is not None, insecure=insecure)
    if metrics_address is not None:
        check_metrics_exposure(Address.parse(metrics_address, listening=True), insecure=insecure)
    if max_streams < 1:
        raise ConfigError(f"max_streams={max_streams} must be at least 1")
    keys = _keys(api_key, api_key_file, api_key_header)
    credentials = None if tls is None else tls.credentials()
    device = _device(
        source,
        device_id=device_id,
        max_bytes_per_request=max_bytes_per_request,
        requests_per_minute=requests_per_minute,
        bytes_per_day=bytes_per_day,
        signing_key=signing_key,
        witness_log=witness_log,
    )
    if keys is not None and credentials is None and not place.is_local:
        _LOGGER.warning(_EXPOSED_KEYS, place)
    if reason := FORK_GUARD.reason_to_refuse():
        raise ServerStartError(reason)
    wait_limits = WaitLimits()
    try:
        servicer = EntropyServicer(
            device, wait_limits=wait_limits, keys=keys, max_streams=max_streams
        )
        return _start(device, place, credentials, servicer, wait_limits, metrics_address)
    except BaseException:
        wait_limits.stop()
        raise


def _start(
    device: Device,
    place: Address,
    credentials: grpc.ServerCredentials | None,
    servicer: EntropyServicer,
    wait_limits: WaitLimits,
    metrics_address: str | None,
) -> EntropyServer:
    keep_large_blocks()
    checks = Lane(_HEALTH_THREADS, "qr-entropy-health", waiting=_WAITING_CHECKS)
    watches = Lane(MAX_WATCHES, "qr-entropy-watch")
    reflection = Lane(REFLECTION_STREAMS, "qr-entropy-reflection")
    # Each kind of call is bounded in its lane: one bound for all would let a flood of calls that
    # are refused shut out those that are not.
    server = grpc.server(servicer.refusals, options=_OPTIONS)
    apart = (
        ServiceApart(checks, watches, servicer.refusals, wait_limits),
        ServiceApart(reflection, reflection, servicer.refusals, wait_limits),
    )
    health = _add_standard_services(*apart)
    server.add_generic_rpc_handlers((servicer, *apart))
    metrics = _offered_metrics(metrics_address)
    try:
        bound = bind(server, place, credentials)
    except ServerStartError:
        if metrics is not None:
            metrics[1].stop()
        raise
    for telemetry in (health, metrics[0] if metrics else None):
        if telemetry is not None:
            device.attach(telemetry)
    server.start()
    _LOGGER.info("serving %s at %s", device.name, bound)
    lanes = (*servicer.lanes, checks, watches, reflection, servicer.refusals)
    return EntropyServer(server, lanes, bound, servicer, device, health, metrics, wait_limits)


def _keys(api_key: str | Iterable[str] | None, file: Path | None, header: str) -> ApiKeys | None:
    if api_key is None and file is None:
        return None
    given = (api_key,) if isinstance(api_key, str) else tuple(api_key or ())
    return ApiKeys(header, given + (() if file is None else read_secrets(file)))


def _device(source: EntropySource | Generate | Device, *, device_id: str, **options: Any) -> Device:
    if not isinstance(source, Device):
        return Device(source, device_id, **options)
    unset = {None, _DEFAULT_MAX_BYTES}
    if device_id or any(value not in unset for value in options.values()):
        raise ConfigError(
            f"the device {source.device_id!r} exists already; give device_id, "
            f"{', '.join(options)} to Device() and not to serve()"
        )
    return source


def _offered_metrics(address: str | None) -> tuple[Metrics, MetricsEndpoint] | None:
    if address is None:
        return None
    metrics = Metrics()
    return metrics, MetricsEndpoint(metrics, address)


def _add_standard_services(
    for_health: ServiceApart, for_reflection: ServiceApart
) -> HealthService | None:
    health = add_health(for_health)
    missing = [] if health is not None else ["grpcio-health-checking"]
    if not add_reflection(for_reflection, with_health=health is not None):
        missing.append("grpcio-reflection")
    if missing:
        _LOGGER.info("not offered: what needs %s; install with pip", " or ".join(missing))
    return health
