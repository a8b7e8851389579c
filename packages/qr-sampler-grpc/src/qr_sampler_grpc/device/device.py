# SPDX-License-Identifier: Apache-2.0
"""The one device behind every listener of a server, drawn from by one caller at a time.

A listener, whatever its protocol, asks :meth:`Device.measure` and turns a
:class:`MeasurementRefusedError` into its own status codes. Nothing here knows of gRPC.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from qr_sampler.entropy import EntropyDraw, EntropySource
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler_grpc.device.answer_memory import AnswerMemory
from qr_sampler_grpc.device.generate import Generate, GenerateSource
from qr_sampler_grpc.device.metering import Meters
from qr_sampler_grpc.device.refusal import MeasurementRefusedError, Refusal
from qr_sampler_grpc.device.telemetry import Telemetry
from qr_sampler_grpc.protocol.attestation import signed_message, signed_record

if TYPE_CHECKING:
    from qr_sampler_grpc.device.witness_log import WitnessLog
    from qr_sampler_grpc.protocol.attestation import SigningKey

__all__ = [
    "MAX_COMMITMENT_BYTES",
    "MAX_DEVICE_ID_BYTES",
    "Device",
    "Measured",
    "MeasurementRefusedError",
    "Refusal",
]

MAX_COMMITMENT_BYTES: Final = 64
"""Longest commitment that a request may carry."""

MAX_DEVICE_ID_BYTES: Final = 255
"""Longest identity of a device that every protocol carries."""

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")


class Measured(NamedTuple):
    """Bytes that the device generated for one request, after it had arrived."""

    data: bytes
    """Exactly as many as were asked for."""
    timestamp_ns: int
    """When they were ready, in nanoseconds since the Unix epoch, by the device's clock if it has
    one."""
    device_id: str
    """Identity of the device."""
    commitment: bytes = b""
    """The commitment that the device had when it measured: that of the request, or none where the
    device is behind another server that did not get or repeat it."""


def _always() -> bool:
    return True


class Device:
    """One device, and everything that its listeners have in common.

    Threads may share an instance. Only one of them draws at a time, so no byte is served twice
    even where the source's own code could not prevent it.

    Args:
        source: An entropy source, or a function that returns as many fresh bytes as it is asked
            for. Drawn from on request only, never closed.
        device_id: Identity to report; when empty, what the source says of its device, else the
            source's name.
        max_bytes_per_request: Largest request that is answered.
        requests_per_minute: Most requests of one account in any minute; ``None`` means unlimited.
        bytes_per_day: Most bytes of one account in any 24 hours; ``None`` means unlimited.
        signing_key: Signs the answers; ``None`` leaves them unsigned.
        witness_log: Takes in every answer; left open.
        clock: Returns seconds that never run backwards; the quotas are counted by it.

    Raises:
        ConfigError: When a limit is less than 1.
    """

    def __init__(
        self,
        source: EntropySource | Generate,
        device_id: str = "",
        *,
        max_bytes_per_request: int = 16 * 2**20,
        requests_per_minute: int | None = None,
        bytes_per_day: int | None = None,
        signing_key: SigningKey | None = None,
        witness_log: WitnessLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes_per_request < 1:
            raise ConfigError(f"max_bytes_per_request={max_bytes_per_request} must be at least 1")
        self._source = (
            source if isinstance(source, EntropySource) else GenerateSource(source, device_id)
        )
        # A function returns nothing but bytes: no time, no identity.
        self._is_function = self._source is not source
        self.device_id = device_id or self._source.name
        self._is_named = bool(device_id)
        # A proxy learns only from the answer whether the server behind it had the commitment.
        self._is_proxy = getattr(self._source, "is_client", False)
        self._meters = Meters(requests_per_minute, bytes_per_day, clock=clock)
        # What exceeds a day's quota is never served; as a malformed request it names the size.
        self.max_bytes_per_request = min(max_bytes_per_request, bytes_per_day or sys.maxsize)
        self.answer_memory: Final = AnswerMemory(self.max_bytes_per_request)
        """Where listeners take a place for each answer until its client has read it."""
        self._signing_key = signing_key
        self._witness_log = witness_log
        self._lock = threading.Lock()
        # A separate lock: telemetry must not wait for a device that hangs.
        self._watching = threading.Lock()
        self._telemetry: tuple[Telemetry, ...] = ()
        self._serving = self._source.status().available

    @property
    def name(self) -> str:
        """The name of the source."""
        return self._source.name

    def attach(self, telemetry: Telemetry) -> None:
        """Reports to *telemetry* from now on, beginning with the current state."""
        with self._watching:
            self._telemetry += (telemetry,)
            telemetry.health(serving=self._serving)

    def detach(self, telemetry: Telemetry) -> None:
        """Stops reporting to *telemetry*."""
        with self._watching:
            self._telemetry = tuple(kept for kept in self._telemetry if kept is not telemetry)

    def note_answer(self, method: str, code: str) -> None:
        """Passes on that a listener ended a request of *method* with the status *code*."""
        for telemetry in self._telemetry:
            telemetry.answered(method, code)

    def note_streams(self, change: int) -> None:
        """Passes on that a listener has *change* more streams open than before."""
        for telemetry in self._telemetry:
            telemetry.streams(change)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Returns whether the device was or became idle within *timeout_s* seconds."""
        if not self._lock.acquire(timeout=timeout_s):
            return False
        self._lock.release()
        return True

    def measure(
        self,
        n: int,
        timeout_s: float | None = None,
        *,
        commitment: bytes = b"",
        account: str = "",
        is_wanted: Callable[[], bool] = _always,
    ) -> Measured:
        """Returns *n* bytes that were generated after this call began.

        The request is checked and counted first, then waits for the device, and is dropped
        unmeasured if its caller has gone.

        Args:
            n: Number of bytes.
            timeout_s: Longest time in seconds to wait for the device; ``None`` waits for ever. A
                measurement that has begun is not interrupted.
            commitment: What the client is about to decide, at most 64 bytes; handed to a source
                that passes it on.
            account: Whose quota the request counts against.
            is_wanted: Asked once, when the device is free.

        Raises:
            MeasurementRefusedError: When there are no bytes; its *kind* says why.
        """
        if not 1 <= n <= self.max_bytes_per_request or len(commitment) > MAX_COMMITMENT_BYTES:
            self._refuse_malformed(n, commitment)
        wait_s, limit = self._meters.admit(account, n)
        if limit:
            _refuse_exhausted(limit, wait_s)
        # A free device is taken without looking at the clock.
        if not self._lock.acquire(False):
            self._take_turn(timeout_s)
        try:
            if not is_wanted():
                _refuse(Refusal.ABANDONED, "the caller has gone; nothing was measured")
            return self._timed(n, commitment)
        finally:
            self._lock.release()

    def sign(self, measured: Measured, *, sequence_id: int) -> bytes:
        """Returns the signature that covers the data of *measured*; empty without a key.

        Args:
            measured: What :meth:`measure` returned, all of it.
            sequence_id: The number of the request, a signed 64-bit integer.
        """
        if self._signing_key is None:
            return b""
        return self._signing_key.sign(
            signed_message(
                sequence_id=sequence_id,
                generation_timestamp_ns=measured.timestamp_ns,
                device_id=measured.device_id,
                commitment=measured.commitment,
                data=measured.data,
            )
        )

    def witness(self, measured: Measured, *, sequence_id: int, signs: bool = True) -> bytes:
        """Notes the answer that carries *measured* in the witness log, if there is one.

        Args:
            measured: What :meth:`measure` returned, all of it.
            sequence_id: The number of the request, a signed 64-bit integer.
            signs: Whether the answer has room for the signature.

        Returns:
            The signature that covers the digest of the data, so that records can be verified with
            it; empty without a key.
        """
        key = self._signing_key if signs else None
        if key is None and self._witness_log is None:
            return b""
        told: Any = {
            "sequence_id": sequence_id,
            "generation_timestamp_ns": measured.timestamp_ns,
            "device_id": measured.device_id,
            "commitment": measured.commitment,
            "data_sha256": hashlib.sha256(measured.data).digest(),
        }
        if self._witness_log is not None:
            self._witness_log.note(**told)
        return b"" if key is None else key.sign(signed_record(**told))

    def _refuse_malformed(self, n: int, commitment: bytes) -> NoReturn:
        if not 1 <= n <= self.max_bytes_per_request:
            _refuse(
                Refusal.MALFORMED, f"bytes_needed={n}; ask for 1 to {self.max_bytes_per_request}"
            )
        _refuse(
            Refusal.MALFORMED,
            f"a commitment of {len(commitment)} bytes; send {MAX_COMMITMENT_BYTES} or less",
        )

    def _take_turn(self, timeout_s: float | None) -> None:
        patience_s = -1.0 if timeout_s is None else min(max(timeout_s, 0.0), threading.TIMEOUT_MAX)
        if not self._lock.acquire(timeout=patience_s):
            _refuse(Refusal.TOO_LATE, "the device was busy with other requests until the deadline")

    def _timed(self, n: int, commitment: bytes) -> Measured:
        telemetry = self._telemetry
        started_s = time.perf_counter() if telemetry else 0.0
        try:
            measured = self._measured(n, commitment)
        except MeasurementRefusedError:
            self._set_health(serving=False)
            raise
        for observer in telemetry:
            observer.measured(n, time.perf_counter() - started_s)
        if not self._serving:
            self._set_health(serving=True)
        return measured

    def _measured(self, n: int, commitment: bytes) -> Measured:
        source = self._source
        try:
            if self._is_function:
                data = source.get_random_bytes(n)
                return Measured(data, time.time_ns(), self.device_id, commitment)
            if commitment and source.commits:
                draw = source.committed_draw(n, commitment)
            else:
                draw = source.draw(n)
        except EntropyUnavailableError as error:
            lost = f"; {error.dropped_bytes} bytes were dropped" if error.dropped_bytes else ""
            _refuse(Refusal.UNAVAILABLE, f"{error}{lost}")
        except Exception as error:
            # Whatever the code of a device raises: the other requests must still be answered.
            _LOGGER.exception("defect while %s was read", self.name)
            words = f"{self.name} failed with {type(error).__name__}; see the log of the server"
            raise MeasurementRefusedError(Refusal.DEFECT, words) from error
        if len(draw.data) != n:
            _refuse(
                Refusal.UNAVAILABLE,
                f"{self.name} was asked for {n} bytes and gave {len(draw.data)}; they were dropped",
            )
        if draw.fallback:
            # The contracts have no way to flag them; unflagged they would pass for the device's.
            words = f"only fallback bytes are available ({draw.fallback_reason})"
            _refuse(Refusal.UNAVAILABLE, words)
        returned = commitment if self._had(draw) else b""
        return Measured(draw.data, _time_of(draw), self._identity(draw), returned)

    def _had(self, draw: EntropyDraw) -> bool:
        """Returns whether the device had the commitment of the request when it measured."""
        if self._is_proxy:
            return draw.commitment_echoed is True
        return draw.commitment_echoed is not False

    def _identity(self, draw: EntropyDraw) -> str:
        if self._is_named or not draw.device_id:
            return self.device_id
        whole = str(draw.device_id).encode(errors="replace")
        return whole[:MAX_DEVICE_ID_BYTES].decode(errors="ignore")

    def _set_health(self, *, serving: bool) -> None:
        if serving is self._serving:
            return
        _LOGGER.warning("%s is %s", self.name, "serving again" if serving else "not serving")
        with self._watching:
            self._serving = serving
            for telemetry in self._telemetry:
                telemetry.health(serving=serving)


def _time_of(draw: EntropyDraw) -> int:
    """Returns the device's timestamp if every protocol can carry it, else this machine's."""
    stamp_ns = draw.device_timestamp_ns
    return stamp_ns if type(stamp_ns) is int and 0 < stamp_ns < 2**63 else draw.wall_time_ns


def _refuse_exhausted(limit: str, wait_s: float) -> NoReturn:
    _refuse(
        Refusal.EXHAUSTED,
        f"the quota of {limit} is used up; try again in {math.ceil(wait_s)} s",
    )


def _refuse(kind: Refusal, words: str) -> NoReturn:
    raise MeasurementRefusedError(kind, words)
