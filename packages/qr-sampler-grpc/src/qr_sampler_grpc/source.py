# SPDX-License-Identifier: Apache-2.0
"""The entropy source that asks a server over gRPC for every draw."""

from __future__ import annotations

import itertools
import time
from typing import Final

import grpc
from pydantic import SecretStr

from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceLimits, SourceStatus
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.channel import Channel, ChannelUnusableError
from qr_sampler_grpc.errors import describe_failure, describe_lapse
from qr_sampler_grpc.settings import DEFAULT_METHOD_PATH, GrpcOptions, GrpcSettings
from qr_sampler_grpc.transport import Transport, UnaryTransport
from qr_sampler_grpc.wire import Answer, UnreadableAnswerError, wire_for

__all__ = ["QuantumGrpcSource"]

_NS_PER_S: Final = 1_000_000_000
_UNTRIED: Final = SourceStatus(available=True, reason="not contacted yet")
_WORKING: Final = SourceStatus(available=True)


class QuantumGrpcSource(EntropySource):
    """Fetches bytes from an entropy server, one request after the other, when they are drawn.

    Connects on the first draw, never at construction. Nothing is asked for ahead of a draw and
    nothing is kept after it. A draw larger than *max_bytes_per_request* is split into several
    requests, which share one time limit.

    Args:
        server_address: Where the server listens, in a form that
            :meth:`~qr_sampler_grpc.address.Address.parse` understands.
        mode: How requests travel; ``"unary"``.
        timeout_ms: Longest that one draw may take, in milliseconds.
        method_path: Method to call. One of ``qr_entropy.EntropyService`` also reports the device
            and the time of measurement; of any other only the bytes are read, see
            :class:`~qr_sampler_grpc.wire.BytesOnlyWire`.
        api_key: Key that the server asks for; empty sends none.
        api_key_header: Metadata key of the API key.
        max_bytes_per_request: Largest single request in bytes.

    Raises:
        ConfigError: When an argument is malformed.
    """

    jit_class = JitClass.REMOTE
    # Every call has a deadline, and gRPC keeps it.
    blocks = False

    def __init__(
        self,
        server_address: str = "localhost:50051",
        *,
        mode: str = "unary",
        timeout_ms: float = 5000.0,
        method_path: str = DEFAULT_METHOD_PATH,
        api_key: str | SecretStr = "",
        api_key_header: str = "api-key",
        max_bytes_per_request: int = 13_312,
    ) -> None:
        self._options = GrpcOptions.checked(
            server_address=server_address,
            mode=mode,
            timeout_ms=timeout_ms,
            method_path=method_path,
            api_key=api_key,
            api_key_header=api_key_header,
            max_bytes_per_request=max_bytes_per_request,
        )
        self._wire = wire_for(self._options.method_path)
        self._transport: Transport = UnaryTransport(
            Channel(self._options.address), self._options.method_path, self._options.credentials
        )
        self._sequence_ids = itertools.count(1)
        self._status = _UNTRIED

    @classmethod
    def from_environment(cls) -> QuantumGrpcSource:
        """Returns a source configured from ``QR_GRPC_*`` variables and the ``.env`` file.

        Raises:
            ConfigError: When a variable is malformed.
        """
        return cls(**GrpcSettings.load().model_dump())

    @property
    def name(self) -> str:
        """``quantum_grpc``."""
        return "quantum_grpc"

    @property
    def limits(self) -> SourceLimits:
        """The largest single request; a larger draw is split."""
        return SourceLimits(max_bytes_per_request=self._options.max_bytes_per_request)

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes that the server generated on this request.

        Raises:
            EntropyUnavailableError: When the server does not deliver exactly that.
            ValueError: When *n* is negative.
        """
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with what the server said about them.

        A draw of several requests carries the earliest of the reported times and every distinct
        device.

        Raises:
            EntropyUnavailableError: When the server does not deliver exactly that in time. Bytes
                that it did deliver are dropped.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        requested_ns = time.monotonic_ns()
        try:
            answers = self._fetch_all(n, requested_ns)
        except EntropyUnavailableError as error:
            self._status = SourceStatus(available=False, reason=error.reason)
            raise
        received_ns, wall_time_ns = time.monotonic_ns(), time.time_ns()
        if answers:
            self._status = _WORKING
        times = [one.device_timestamp_ns for one in answers if one.device_timestamp_ns is not None]
        return EntropyDraw(
            data=b"".join(one.data for one in answers),
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=received_ns,
            wall_time_ns=wall_time_ns,
            device_id=", ".join(dict.fromkeys(one.device_id for one in answers if one.device_id)),
            device_timestamp_ns=min(times, default=None),
            requests=len(answers),
        )

    def status(self) -> SourceStatus:
        """Returns how the latest draw ended, without contacting the server."""
        return self._status

    def close(self) -> None:
        """Closes the connection; draws under way fail, a later draw connects again."""
        self._transport.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._options.server_address!r}, mode={self._options.mode!r})"
        )

    def _fetch_all(self, n: int, requested_ns: int) -> list[Answer]:
        deadline_ns = requested_ns + round(self._options.timeout_ms * 1e-3 * _NS_PER_S)
        answers: list[Answer] = []
        for size in self._request_sizes(n):
            try:
                answers.append(self._fetch(size, deadline_ns))
            except EntropyUnavailableError as error:
                error.dropped_bytes += sum(len(answer.data) for answer in answers)
                raise
        return answers

    def _fetch(self, bytes_needed: int, deadline_ns: int) -> Answer:
        sequence_id = next(self._sequence_ids)
        request = self._wire.encode(bytes_needed, sequence_id)
        message = self._call(request, bytes_needed, deadline_ns)
        try:
            answer = self._wire.decode(message, sequence_id)
        except UnreadableAnswerError as error:
            raise self._unavailable(f"{error}; the answer was dropped") from error
        if len(answer.data) != bytes_needed:
            received = len(answer.data)
            raise EntropyUnavailableError(
                self.name,
                f"asked for {bytes_needed} bytes, received {received}; the answer was dropped",
                dropped_bytes=received,
            )
        return answer

    def _call(self, request: bytes, bytes_needed: int, deadline_ns: int) -> bytes:
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0:
            raise self._unavailable(describe_lapse(self._options))
        try:
            return self._transport.fetch(request, timeout_s=remaining_ns / _NS_PER_S)
        except grpc.RpcError as error:
            reason = describe_failure(error, self._options, bytes_needed)
        except ChannelUnusableError as error:
            reason = str(error)
        except ValueError as error:
            reason = f"the connection was closed as the call began ({error})"
        # Raised outside the handler: gRPC's error repeats the server's words, key and all.
        raise self._unavailable(reason)

    def _unavailable(self, reason: str) -> EntropyUnavailableError:
        return EntropyUnavailableError(self.name, reason)
