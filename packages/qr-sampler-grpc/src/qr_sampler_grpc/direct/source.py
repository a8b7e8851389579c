# SPDX-License-Identifier: Apache-2.0
"""The entropy source that asks a server on this machine over a Unix domain socket."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from qr_sampler.entropy import EntropyDraw, JitClass, SourceLimits
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.settings.recorded import recorded_values
from qr_sampler_grpc.direct.connection import (
    Connection,
    DirectAnswer,
    OlderServerError,
    StaleConnectionError,
)
from qr_sampler_grpc.direct.endpoint import Endpoint
from qr_sampler_grpc.direct.frame import MAX_COMMITMENT_BYTES, VERSION
from qr_sampler_grpc.direct.pool import Pool, Pools
from qr_sampler_grpc.direct.settings import DirectOptions, DirectSettings
from qr_sampler_grpc.link import LinkFailure, Refused
from qr_sampler_grpc.link.linked_source import LinkedSource, unguessable

__all__ = ["DirectSource"]

_NAME: Final = "direct"
_NS_PER_MS: Final = 1_000_000
_NS_PER_US: Final = 1_000
_NOTHING: Final = DirectAnswer(b"", "", 0, None, None)


class DirectSource(LinkedSource):
    """Fetches bytes over a Unix domain socket, as ``PROTOCOL.md`` describes, when they are drawn.

    Connects on the first draw, never at construction. Nothing is asked for ahead of a draw and
    nothing is kept after it. A draw larger than *max_bytes_per_request* is split into several
    requests, which travel together and share one time limit. Each thread that draws at the same
    time has its own connection, and so has each process.

    Args:
        server_address: Where the server listens: ``unix:///path``.
        timeout_ms: Longest that one draw may take, in milliseconds.
        max_bytes_per_request: Largest single request in bytes.
        public_key: File with the Ed25519 public key, in PEM form, that every answer must be signed
            for; empty asks for no signature.
        commitment: Whether the server is told a digest of what its bytes will decide.
        breaker: When a draw is given up and when the server is left alone.

    Raises:
        ConfigError: When an argument is malformed.
    """

    settings_model = DirectSettings

    device_notes = (
        DeviceNote(
            device="Any device behind an entropy server on this machine",
            reached_by="Unix domain socket, `QR_DIRECT_SERVER_ADDRESS`",
            rate_bytes_per_s=None,
            ms_per_token={64: 0.07, 1_024: 0.07, 10_240: 0.07},
            jit_class=JitClass.REMOTE,
            conditioning="that of the device",
            basis=(
                "measured here with blocks of 20,480 bytes over a Unix socket: the way alone, "
                "without the device"
            ),
        ),
    )

    def __init__(
        self,
        server_address: str = "unix:///run/qr-sampler/direct.sock",
        *,
        timeout_ms: float = 5000.0,
        max_bytes_per_request: int = 16 * 2**20,
        public_key: str = "",
        commitment: bool = True,
        breaker: BreakerOptions | None = None,
    ) -> None:
        options = DirectOptions.checked(
            server_address=server_address,
            timeout_ms=timeout_ms,
            max_bytes_per_request=max_bytes_per_request,
            public_key=public_key,
            commitment=commitment,
        )
        super().__init__(options.timeout_ms, breaker)
        self._options = options
        self._endpoint = Endpoint(options.path, options.server_address, options.verification_key())
        self._timeout_ns = round(options.timeout_ms * _NS_PER_MS)
        self._largest = options.max_bytes_per_request
        self.commits = options.commitment
        self._pools = Pools()

    @classmethod
    def from_environment(cls) -> DirectSource:
        """Returns a source configured from ``QR_DIRECT_*`` and ``QR_CB_*`` and the ``.env`` file.

        Raises:
            ConfigError: When a variable is malformed.
        """
        breaker = BreakerOptions.from_environment()
        return cls(breaker=breaker, **DirectSettings.load().model_dump())

    @property
    def name(self) -> str:
        """``direct``."""
        return _NAME

    @property
    def limits(self) -> SourceLimits:
        """The largest single request; a larger draw is split."""
        return SourceLimits(max_bytes_per_request=self._largest)

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The options."""
        return recorded_values(self._options)

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Returns what :meth:`draw` returns; the server learns *commitment* with the request.

        Raises:
            EntropyUnavailableError: As :meth:`draw`, and when the answer carries another
                commitment.
            ValueError: As :meth:`draw`, and when *commitment* is longer than 64 bytes.
        """
        if len(commitment) > MAX_COMMITMENT_BYTES:
            raise ValueError(
                f"a commitment of {len(commitment)} bytes; {MAX_COMMITMENT_BYTES} are the most"
            )
        return self._draw(n, commitment if self.commits else b"")

    def close(self) -> None:
        """Closes idle connections; a later draw connects again.

        A draw under way continues until it has its answer or its time is over, and closes its own.
        """
        self._pools.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.server_address!r})"

    def _draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Makes every draw."""
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        requested_ns = time.monotonic_ns()
        answer = self._fetch(n, commitment, requested_ns) if n else _NOTHING
        received_ns, wall_time_ns = time.monotonic_ns(), time.time_ns()
        data, device_id, timestamp_ns, echoed, verified, signature, sequence_id = answer
        return EntropyDraw(
            data=data,
            source=_NAME,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=received_ns,
            wall_time_ns=wall_time_ns,
            device_id=device_id,
            device_timestamp_ns=timestamp_ns if timestamp_ns > 0 else None,
            requests=-(-n // self._largest),
            commitment_echoed=echoed,
            signature_verified=verified,
            signature=signature,
            sequence_id=sequence_id,
        )

    def _fetch(self, n: int, commitment: bytes, requested_ns: int) -> DirectAnswer:
        sizes = (n,) if n <= self._largest else tuple(self._request_sizes(n))
        latest_ns = requested_ns + self._timeout_ns
        pool = self._pools.current()
        try:
            return self._links.get().draw(
                sizes, latest_ns, lambda until_ns: self._ask(pool, sizes, commitment, until_ns)
            )
        except Refused as error:
            raise EntropyUnavailableError(
                _NAME, str(error), retry_after_s=error.retry_after_s
            ) from None
        except LinkFailure as failure:
            raise EntropyUnavailableError(
                _NAME,
                failure.reason,
                dropped_bytes=failure.dropped_bytes,
                retry_after_s=failure.retry_after_s,
            ) from failure

    def _ask(
        self, pool: Pool, sizes: Sequence[int], commitment: bytes, until_ns: int
    ) -> DirectAnswer:
        connection = pool.take()
        if connection is not None:
            try:
                return self._ask_on(connection, pool, sizes, commitment, until_ns)
            except StaleConnectionError:
                # The server was restarted: the others are dead, too. Nothing has been
                # asked for yet, so no bytes are lost by asking on a new connection.
                pool.empty()
        connection = Connection(self._endpoint, until_ns)
        try:
            return self._ask_on(connection, pool, sizes, commitment, until_ns)
        except OlderServerError:
            # It has closed the connection and measured nothing.
            connection = Connection(self._endpoint, until_ns, VERSION)
            return self._ask_on(connection, pool, sizes, commitment, until_ns)

    def _ask_on(
        self,
        connection: Connection,
        pool: Pool,
        sizes: Sequence[int],
        commitment: bytes,
        until_ns: int,
    ) -> DirectAnswer:
        # The server stops waiting for the device then, so nothing is measured for a client that has
        # given up.
        timeout_us = max(1, (until_ns - time.monotonic_ns()) // _NS_PER_US)
        try:
            if len(sizes) == 1:
                answer = connection.ask(unguessable(), sizes[0], timeout_us, commitment, until_ns)
            else:
                pairs = [(unguessable(), size) for size in sizes]
                answer = _joined(connection.ask_all(pairs, timeout_us, commitment, until_ns))
            # Reading and checking what has arrived takes time, too.
            if time.monotonic_ns() > until_ns:
                raise self._endpoint.lapsed(len(answer.data))
        except BaseException:
            connection.close()
            raise
        pool.put(connection)
        return answer


def _joined(answers: list[DirectAnswer]) -> DirectAnswer:
    """Returns several answers as one."""
    # 0 means no time; nothing was measured before the epoch.
    times = [
        answer.generation_timestamp_ns for answer in answers if answer.generation_timestamp_ns > 0
    ]
    return DirectAnswer(
        b"".join(answer.data for answer in answers),
        ", ".join(dict.fromkeys(answer.device_id for answer in answers if answer.device_id)),
        min(times, default=0),
        _all(answer.echoed for answer in answers),
        _all(answer.verified for answer in answers),
    )


def _all(values: Iterable[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return all(known) if known else None
