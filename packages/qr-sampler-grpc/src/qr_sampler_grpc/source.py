# SPDX-License-Identifier: Apache-2.0
"""The entropy source that asks a server over gRPC for every draw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import grpc

from qr_sampler.entropy import EntropyDraw, JitClass, SourceLimits
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.entropy.device_notes import DeviceNote, transfer_ms
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.per_process import PerProcess
from qr_sampler.settings.recorded import recorded_values
from qr_sampler_grpc.connection.channel import ChannelUnusableError
from qr_sampler_grpc.connection.credentials import warn_of_exposure
from qr_sampler_grpc.link import LinkFailure, Refused
from qr_sampler_grpc.link.linked_source import LinkedSource, unguessable
from qr_sampler_grpc.protocol.attestation import VerificationKey
from qr_sampler_grpc.protocol.wire import INTEGRATED_BYTES, Answer, Question, UnreadableAnswerError
from qr_sampler_grpc.settings import GrpcOptions, GrpcSettings
from qr_sampler_grpc.transports import Transport, transport_for
from qr_sampler_grpc.transports.base import (
    Attempt,
    DeadlineLapsedError,
    PreparedRequest,
    UnfitAnswerError,
)
from qr_sampler_grpc.transports.errors import describe_failure, describe_lapse, retry_after_s
from qr_sampler_grpc.transports.verification import AnswerCheck, UntrustedAnswerError

__all__ = ["QuantumGrpcSource"]

_NS_PER_MS: Final = 1_000_000


class QuantumGrpcSource(LinkedSource):
    """Fetches bytes from an entropy server when they are drawn.

    Connects on the first draw, never at construction. Nothing is asked for ahead of a draw and
    nothing is kept after it. A draw larger than the largest request is split into several, which
    share one time limit.

    Args:
        server_address: Where the server listens, in a form that
            :meth:`~qr_sampler_grpc.connection.address.Address.parse` understands.
        breaker: When a draw is given up and when the server is left alone.
        options: The other fields of :class:`~qr_sampler_grpc.settings.GrpcOptions`.

    Raises:
        ConfigError: When an argument is malformed, or a file that it names is.
    """

    settings_model = GrpcSettings

    device_notes = (
        DeviceNote(
            device="Any device behind an entropy server",
            reached_by="gRPC, `QR_GRPC_SERVER_ADDRESS`",
            rate_bytes_per_s=None,
            ms_per_token={64: 0.36, 1_024: 0.36, 10_240: 0.36},
            jit_class=JitClass.REMOTE,
            conditioning="that of the device",
            basis=(
                "measured here with blocks of 20,480 bytes over a Unix socket: the way alone, "
                "without the device"
            ),
        ),
        DeviceNote(
            device="Crypta Labs QCicada behind Qbert0G",
            reached_by="gRPC, `QR_GRPC_PROFILE=qrng`",
            rate_bytes_per_s=0.8e6 / 8,
            ms_per_token=transfer_ms(0.8e6 / 8),
            jit_class=JitClass.REMOTE,
            conditioning="sha256, unless the server asks for raw noise",
            basis="vendor: the speed of the device's serial line, the most that it can deliver",
        ),
        DeviceNote(
            device="Crypta Labs firefly-1 (hosted)",
            reached_by="gRPC, `deployments/firefly-1`",
            rate_bytes_per_s=None,
            jit_class=JitClass.REMOTE,
            conditioning="that of the device",
            basis=(
                "vendor: at most 13,312 bytes a request, 500 requests a minute and 500 MB a day; "
                "its time is not known"
            ),
        ),
    )

    def __init__(
        self,
        server_address: str = "localhost:50051",
        *,
        breaker: BreakerOptions | None = None,
        **options: Any,
    ) -> None:
        self._options = GrpcOptions.checked(server_address=server_address, **options)
        super().__init__(self._options.timeout_ms, breaker)
        if self._options.credentials is not None:
            warn_of_exposure(self._options.address, encrypted=self._options.tls is not None)
        self._contract = self._options.contract
        public_key = self._options.public_key
        self._key = None if public_key is None else VerificationKey(public_key)
        self.commits = self._options.commitment and self._contract.commits
        self.integrates = self._contract.integrates
        self._transports = PerProcess(lambda: transport_for(self._options))

    @classmethod
    def from_environment(cls) -> QuantumGrpcSource:
        """Returns a source configured from ``QR_GRPC_*`` and ``QR_CB_*`` and the ``.env`` file.

        Raises:
            ConfigError: When a variable is malformed, or a file that it names is.
        """
        breaker = BreakerOptions.from_environment()
        return cls(breaker=breaker, **GrpcSettings.load().model_dump())

    @property
    def name(self) -> str:
        """``quantum_grpc``."""
        return "quantum_grpc"

    @property
    def limits(self) -> SourceLimits:
        """The largest single request, beyond which draws are split, and the quotas."""
        return self._contract.limits

    @property
    def secrets(self) -> tuple[str, ...]:
        """The API key, which a server may repeat in its device's identity."""
        key = self._options.credentials
        return () if key is None else (key.secret,)

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The options, without the API key."""
        return recorded_values(self._options)

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Returns *n* bytes as :meth:`draw` does, and whether the server echoed *commitment*.

        Raises:
            EntropyUnavailableError: As :meth:`draw`.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if not self.commits:
            commitment = b""
        requested_ns = time.monotonic_ns()
        check = AnswerCheck(commitment, self._key)
        sizes = list(self._request_sizes(n))
        answers, dropped = self._fetch(sizes, requested_ns, check) if sizes else ([], 0)
        received_ns, wall_time_ns = time.monotonic_ns(), time.time_ns()
        times = [
            answer.device_timestamp_ns
            for answer in answers
            if answer.device_timestamp_ns is not None
        ]
        return EntropyDraw(
            data=_joined(answers, sizes),
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=received_ns,
            wall_time_ns=wall_time_ns,
            device_id=self._devices(answers),
            device_timestamp_ns=min(times, default=None),
            requests=len(answers),
            commitment_echoed=check.echoed,
            signature_verified=check.verified,
            dropped_bytes=dropped,
            signature=check.signature,
            sequence_id=check.sequence_id,
        )

    def close(self) -> None:
        """Closes the connection; draws under way fail, a later draw connects again."""
        transport = self._transports.peek()
        if transport is not None:
            transport.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._options.server_address!r}, mode={self._options.mode!r})"
        )

    def _fetch(
        self, sizes: Sequence[int], requested_ns: int, check: AnswerCheck
    ) -> tuple[list[Answer], int]:
        """Returns the answers, and how many bytes of earlier attempts were not used.

        Raises:
            EntropyUnavailableError: When there are none.
        """
        link, transport = self._links.get(), self._transports.get()
        latest_ns = requested_ns + round(self._options.timeout_ms * _NS_PER_MS)
        retries, dropped = self._options.retry_count, 0
        while True:
            try:
                answers = link.draw(
                    sizes, latest_ns, lambda until_ns: self._ask(transport, sizes, until_ns, check)
                )
            except Refused as error:
                raise self._unavailable(str(error), dropped, error.retry_after_s) from None
            except LinkFailure as failure:
                dropped += failure.dropped_bytes
                if not retries or time.monotonic_ns() >= latest_ns:
                    # Outside of the handler, see below.
                    reason, wait_s = failure.reason, failure.retry_after_s
                    break
                retries -= 1
            else:
                return answers, dropped
        raise self._unavailable(reason, dropped, wait_s)

    def _ask(
        self, transport: Transport, sizes: Sequence[int], until_ns: int, check: AnswerCheck
    ) -> list[Answer]:
        attempt = Attempt(until_ns)
        requests = [self._request(size, check.commitment) for size in sizes]
        lapsed = False
        wait_s: float | None = None
        try:
            answers = list(transport.answers(requests, attempt))
            check.apply(requests, answers)
            # Reading and checking what has arrived takes time, too.
            _ = attempt.remaining_s()
            transport.note_end(lapsed=False)
            return answers
        except grpc.RpcError as error:
            reason = describe_failure(error, self._options, max(sizes))
            lapsed = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            wait_s = retry_after_s(error)
        except DeadlineLapsedError:
            reason = describe_lapse(self._options)
            lapsed = True
        except (UnfitAnswerError, UnreadableAnswerError, UntrustedAnswerError) as error:
            reason = f"{error}; the answer was dropped"
        except ChannelUnusableError as error:
            reason = str(error)
        except ValueError as error:
            reason = f"the connection was closed as the call began ({error})"
        transport.note_end(lapsed=lapsed)
        # Raised outside the handler: gRPC's error repeats the server's words, key and all.
        raise LinkFailure(
            reason, lapsed=lapsed, dropped_bytes=attempt.received_bytes, retry_after_s=wait_s
        )

    def _request(self, size: int, commitment: bytes) -> PreparedRequest:
        bytes_needed = INTEGRATED_BYTES if self._contract.integrates else size
        question = Question(
            bytes_needed=bytes_needed,
            sequence_id=unguessable(),
            commitment=commitment,
            accept_chunks=self._contract.accepts_chunks,
        )
        message = self._contract.wire.encode(question)
        return PreparedRequest(question.sequence_id, bytes_needed, message)

    def _devices(self, answers: Sequence[Answer]) -> str:
        """Returns every distinct device, without the API key that a server may have put there."""
        named = ", ".join(dict.fromkeys(answer.device_id for answer in answers if answer.device_id))
        credentials = self._options.credentials
        return credentials.redact(named) if credentials else named

    def _unavailable(
        self, reason: str, dropped_bytes: int, wait_s: float | None
    ) -> EntropyUnavailableError:
        return EntropyUnavailableError(
            self.name, reason, dropped_bytes=dropped_bytes, retry_after_s=wait_s
        )


def _joined(answers: Sequence[Answer], sizes: Sequence[int]) -> bytes:
    """Returns the bytes of all answers. A number that is cut short keeps its leading bytes."""
    if len(answers) == 1:
        return answers[0].data[: sizes[0]]
    return b"".join(answer.data[:size] for answer, size in zip(answers, sizes, strict=True))
