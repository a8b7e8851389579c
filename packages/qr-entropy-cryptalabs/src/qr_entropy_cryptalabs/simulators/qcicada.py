# SPDX-License-Identifier: Apache-2.0
"""A simulated QCicada: what it answers to every command of the protocol that concerns bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from qcicada import DeviceConfig, PostProcess, protocol

from qr_entropy_cryptalabs.simulators.signing import Identity
from qr_entropy_serial.simulators.device import SimulatedDevice

__all__ = ["SimulatedQCicada"]

_MEMORY_BYTES: Final = 1 << 16
_INITIALIZED: Final = 1
_REPETITION_COUNT_FAILED: Final = 1 << 6
_FIRMWARE: Final = 0x050D
_CORE: Final = 1

_PAYLOAD_BYTES: Final = {
    protocol.CMD_START: 3,
    protocol.CMD_SET_CONFIG: 12,
    protocol.CMD_SIGNED_READ: 2,
    protocol.CMD_REBOOT: 2,
}
"""What follows the code of a command; nothing follows the others."""

_FRESH: Final = DeviceConfig(
    postprocess=PostProcess.SHA256,
    initial_level=1.0,
    startup_test=True,
    auto_calibration=True,
    repetition_count=True,
    adaptive_proportion=True,
    bit_count=True,
    generate_on_error=True,
    n_lsbits=4,
    hash_input_size=64,
    block_size=448,
    autocalibration_target=2048,
)
"""As a device is after a reset, for all that is known; the numbers of its optics are made up."""


class SimulatedQCicada(SimulatedDevice):
    """Answers commands, and makes bytes when it is asked for some.

    Args:
        identity: Who it is.
        rate: Bytes that it makes in a second; 0 for one whose bytes come from :meth:`feed`.
        ahead_bytes: Bytes that it makes without being asked, and keeps ready.
        signs: Whether its firmware can sign.
    """

    faults: ClassVar[tuple[str, ...]] = (
        *SimulatedDevice.faults,
        "alarm",
        "wrong_signature",
        "refusal",
        "replay",
    )
    """Beside those of every device: its repetition count test has failed, its signatures are wrong,
    it refuses to make bytes, it repeats its last answer, and signs it again."""

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        rate: float = 80_000.0,
        ahead_bytes: int = 0,
        signs: bool = True,
    ) -> None:
        super().__init__(rate, _MEMORY_BYTES)
        self.identity = identity or Identity()
        """Who it is."""
        self.config = _FRESH
        """How it is set."""
        self.ahead_bytes = ahead_bytes
        self.signs = signs
        self._received = b""
        self._answer = bytearray()
        self._wanted = 0
        self._signed = bytearray()
        self._last_answer = bytearray()
        self._delivered = 0
        self._signs_this = False
        self._is_continuous = False
        self._answers: Mapping[bytes, Callable[[bytes], bytes]] = {
            protocol.CMD_GET_STATUS: lambda payload: self._acknowledged(),
            protocol.CMD_START: self._start,
            protocol.CMD_STOP: self._stop,
            protocol.CMD_GET_CONFIG: lambda payload: (
                protocol.RESP_CONFIG + protocol.serialize_config(self.config)
            ),
            protocol.CMD_SET_CONFIG: self._set_config,
            protocol.CMD_GET_STATISTICS: lambda payload: self._statistics(),
            protocol.CMD_RESET: self._stop,
            protocol.CMD_GET_INFO: lambda payload: self._info(),
            protocol.CMD_SIGNED_READ: self._signed_read,
            protocol.CMD_GET_DEV_PUB_KEY: lambda payload: (
                protocol.RESP_DEV_PUB_KEY + self.identity.public_key
            ),
            protocol.CMD_GET_DEV_CERTIFICATE: lambda payload: (
                protocol.RESP_DEV_CERTIFICATE + self.identity.certificate
            ),
        }

    @property
    def gathers(self) -> bool:
        """Whether it makes bytes now: it was asked for some, or keeps some ready."""
        short_of = len(self.waiting()) < max(self.ahead_bytes, self._wanted)
        return short_of or self._is_continuous or self.rate == 0

    def power_up(self) -> None:
        """Has an empty memory and is as after a reset."""
        self.config = _FRESH
        self._received = b""
        self._stop(b"")

    def commanded(self, data: bytes) -> None:
        """Answers every command that is complete."""
        self._received += data
        while self._received:
            code = self._received[:1]
            length = 1 + _PAYLOAD_BYTES.get(code, 0)
            if len(self._received) < length:
                return
            payload, self._received = self._received[1:length], self._received[length:]
            answer = self._answers.get(code)
            self._answer += protocol.RESP_NACK if answer is None else answer(payload)

    def offered(self) -> bytes:
        """Returns its answers, with the bytes that were asked for behind them."""
        count = len(ready := self.waiting())
        if not self._is_continuous:
            count = min(self._wanted, count)
        self._deliver(ready[:count])
        return bytes(self._answer)

    def sent(self, count: int) -> None:
        """Forgets the answers that it has sent."""
        del self._answer[:count]
        self.note_sent(count)

    def _deliver(self, data: bytes) -> None:
        if not data:
            return
        self.forget_first(len(data))
        data = self._repeated(data)
        self._answer += data
        if self._is_continuous:
            return
        self._wanted -= len(data)
        if self._signs_this:
            self._signed += data
            if not self._wanted:
                signature = self.identity.sign(bytes(self._signed))
                wrong = self.fault == "wrong_signature"
                self._answer += signature[::-1] if wrong else signature

    def _repeated(self, data: bytes) -> bytes:
        """Returns what is sent instead of *data*: the same part of the last answer, if it fails."""
        start, self._delivered = self._delivered, self._delivered + len(data)
        if self.fault == "replay" and len(self._last_answer) >= self._delivered:
            return bytes(self._last_answer[start : self._delivered])
        self._last_answer += data
        return data

    def _begin_answer(self) -> None:
        self._delivered = 0
        if self.fault != "replay":
            self._last_answer.clear()

    def _acknowledged(self) -> bytes:
        alarm = _REPETITION_COUNT_FAILED if self.fault == "alarm" else 0
        return protocol.RESP_ACK + struct.pack("<BI", _INITIALIZED | alarm, len(self.waiting()))

    def _start(self, payload: bytes) -> bytes:
        mode, count = struct.unpack("<BH", payload)
        if self.fault == "refusal":
            return protocol.RESP_NACK
        self._is_continuous = mode == protocol.START_CONTINUOUS
        self._wanted = 0 if self._is_continuous else count
        self._signs_this = False
        self._begin_answer()
        return self._acknowledged()

    def _signed_read(self, payload: bytes) -> bytes:
        if self.fault == "refusal" or not self.signs:
            return protocol.RESP_NACK
        (self._wanted,) = struct.unpack("<H", payload)
        self._signs_this, self._is_continuous = True, False
        self._signed.clear()
        self._begin_answer()
        return protocol.RESP_SIGNED_READ

    def _stop(self, payload: bytes) -> bytes:
        self._wanted, self._is_continuous = 0, False
        self._answer.clear()
        self.forget()
        return self._acknowledged()

    def _set_config(self, payload: bytes) -> bytes:
        if self.fault != "wrong_mode":
            self.config = protocol.parse_config(payload)
        return self._acknowledged()

    def _info(self) -> bytes:
        return protocol.RESP_INFO + struct.pack(
            "<II24s24s",
            _CORE,
            _FIRMWARE,
            self.identity.serial.encode(),
            self.identity.hardware_text.encode(),
        )

    def _statistics(self) -> bytes:
        failures = int(self.fault == "alarm")
        return protocol.RESP_STATISTICS + struct.pack(
            "<QIIIIHf", self.generated, failures, 0, 0, int(self.rate), 2048, 1.0
        )
