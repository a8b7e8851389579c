# SPDX-License-Identifier: Apache-2.0
"""An open device: what it is, how it is, and the bytes that it makes on request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from qcicada import DeviceConfig, DeviceInfo, DeviceStatistics, DeviceStatus, PostProcess, protocol
from qcicada.crypto import verify_signature

from qr_entropy_cryptalabs.keys import is_certified
from qr_entropy_cryptalabs.link import QccLink, RefusedError

__all__ = ["ALARMS", "Answer", "Device", "UnfitDeviceError", "Wanted"]

ALARMS: Final = {
    "voltage_low": "its voltage is low",
    "voltage_high": "its voltage is high",
    "voltage_undefined": "its voltage is undefined",
    "bitcount": "its test of the bit count has failed",
    "repetition_count": "its repetition count test has failed",
    "adaptive_proportion": "its adaptive proportion test has failed",
}
"""Flags of :class:`qcicada.DeviceStatus` that are raised when something is wrong."""

_LARGEST_FLUSH: Final = 1 << 20
"""Bytes; a device that has more ready than that, or says so, cannot be flushed in any time."""


class UnfitDeviceError(OSError):
    """The device is another one than is wanted, or in no state in which its bytes may be used."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a device has to be like."""

    mode: PostProcess = PostProcess.SHA256
    """What it does to its raw bits."""
    serial_number: str = ""
    """What it calls itself; empty for anything."""
    signed: bool = True
    """Whether it signs what it sends."""
    public_key: bytes | None = None
    """The key that it signs with, if that is known: 64 bytes."""
    authority: bytes | None = None
    """The key of the authority that has certified that key, if it must be certified: 64 bytes."""
    flush: bool = True
    """Whether what it has ready is discarded before each block."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes that were made on request."""

    data: bytes
    """The bytes."""
    signature: bytes
    """The device's signature of them, 64 bytes; empty if it has signed nothing."""


class Device:
    """An open device that is as it is wanted. Not for several threads at once.

    Args:
        path: Its serial port.
        wanted: What it has to be like.
        deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

    Raises:
        UnfitDeviceError: When it is not so, and cannot be made so.
        TimeoutError: When the deadline passes first.
        OSError: When it cannot be opened, or misbehaves.
    """

    def __init__(self, path: str, wanted: Wanted, deadline_ns: int) -> None:
        self._wanted = wanted
        self._link = QccLink(path, deadline_ns)
        try:
            self.info: DeviceInfo = protocol.parse_info(self._ask("INFO", deadline_ns))
            """What it says it is."""
            self._check_identity()
            self._configure(deadline_ns)
            self._key = self._signing_key(deadline_ns) if wanted.signed else None
        except UnicodeDecodeError as error:
            self.close()
            raise UnfitDeviceError("its serial number is no text; it is no such device") from error
        except BaseException:
            self.close()
            raise

    @property
    def is_verified(self) -> bool | None:
        """Whether its signatures are verified by a key that does not come from itself alone."""
        known = self._wanted.public_key or self._wanted.authority
        return True if self._wanted.signed and known else None

    def status(self, deadline_ns: int) -> DeviceStatus:
        """Returns how it is.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When it misbehaves.
        """
        return protocol.parse_status(self._ask("STATUS", deadline_ns))

    def statistics(self, deadline_ns: int) -> DeviceStatistics:
        """Returns what it has counted since its last reset.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When it misbehaves.
        """
        return protocol.parse_statistics(self._ask("STATISTICS", deadline_ns))

    def read(self, received: bytearray, n: int, deadline_ns: int) -> Answer:
        """Returns *n* bytes that it was asked for after what it had ready was discarded.

        Its settings are made again if it has lost them.

        Args:
            received: Gets what has arrived of them, also if an error follows.
            n: How many, from 1 to 65,535.
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

        Raises:
            UnfitDeviceError: When its tests have failed, or its signature is wrong.
            TimeoutError: When the deadline passes first.
            OSError: When it misbehaves.
        """
        # It may have lost its settings by a reset, of which its converter tells nothing.
        self._configure(deadline_ns)
        ready = self._ready_bytes(deadline_ns)
        if self._wanted.flush:
            self._discard(ready, deadline_ns)
        if not self._wanted.signed:
            self._one_shot(received, n, deadline_ns)
            return Answer(bytes(received), b"")
        self._signed_read(received, n, deadline_ns)
        answer = Answer(bytes(received[:n]), bytes(received[n:]))
        del received[n:]
        if self._key is None or not verify_signature(self._key, answer.data, answer.signature):
            raise UnfitDeviceError("its signature of the bytes is wrong")
        return answer

    def close(self) -> None:
        """Gives the port back."""
        self._link.close()

    def _ask(self, what: str, deadline_ns: int) -> bytes:
        code: bytes = getattr(protocol, f"CMD_GET_{what}")
        return self._link.command(code, deadline_ns)

    def _check_identity(self) -> None:
        wanted = self._wanted.serial_number
        if wanted not in ("", self.info.serial):
            raise UnfitDeviceError(
                f"it calls itself {self.info.serial!r}, and QR_CRYPTALABS_SERIAL_NUMBER={wanted}"
            )

    def _configure(self, deadline_ns: int) -> None:
        """Sets the mode, switches its tests on, and forbids bytes that have failed them."""
        found = self._config(deadline_ns)
        if self._is_right(found):
            return
        right = replace(
            found,
            postprocess=self._wanted.mode,
            repetition_count=True,
            adaptive_proportion=True,
            generate_on_error=False,
        )
        payload = protocol.serialize_config(right)
        self._link.command(protocol.CMD_SET_CONFIG, deadline_ns, payload)
        if not self._is_right(self._config(deadline_ns)):
            mode = self._wanted.mode.name.lower()
            raise UnfitDeviceError(f"it does not change to the mode {mode} with its tests on")

    def _is_right(self, config: DeviceConfig) -> bool:
        """Returns whether what matters is set; it may calibrate its optics itself."""
        is_tested = config.repetition_count and config.adaptive_proportion
        is_strict = is_tested and not config.generate_on_error
        return is_strict and config.postprocess == self._wanted.mode

    def _config(self, deadline_ns: int) -> DeviceConfig:
        answer = self._ask("CONFIG", deadline_ns)
        try:
            return protocol.parse_config(answer)
        except ValueError as error:
            raise UnfitDeviceError(f"it is in a mode that nobody knows: {error}") from error

    def _signing_key(self, deadline_ns: int) -> bytes:
        wanted = self._wanted
        try:
            key = self._ask("DEV_PUB_KEY", deadline_ns)
            if wanted.authority is not None:
                certificate = self._ask("DEV_CERTIFICATE", deadline_ns)
                if not is_certified(key, certificate, self.info, wanted.authority):
                    raise UnfitDeviceError("QR_CRYPTALABS_CA_PUBLIC_KEY has not certified its key")
        except RefusedError as error:
            raise UnfitDeviceError(
                f"{error}: its firmware has no signatures; set QR_CRYPTALABS_SIGNED=false"
            ) from error
        if wanted.public_key not in (None, key):
            raise UnfitDeviceError("its key is not the one of QR_CRYPTALABS_PUBLIC_KEY")
        return key

    def _ready_bytes(self, deadline_ns: int) -> int:
        """Returns how many bytes it has ready, if it is in a state to be asked for more."""
        status = self.status(deadline_ns)
        if status.startup_test_in_progress or not status.initialized:
            raise UnfitDeviceError("it is starting up")
        for flag, words in ALARMS.items():
            if getattr(status, flag):
                raise UnfitDeviceError(words)
        return int(status.ready_bytes)

    def _discard(self, ready: int, deadline_ns: int) -> None:
        if ready > _LARGEST_FLUSH:
            raise UnfitDeviceError(f"it says that it has {ready} bytes ready")
        for start in range(0, ready, protocol.MAX_BLOCK_SIZE):
            self._one_shot(bytearray(), min(protocol.MAX_BLOCK_SIZE, ready - start), deadline_ns)

    def _one_shot(self, received: bytearray, n: int, deadline_ns: int) -> None:
        payload = protocol.build_start_one_shot(n)[1:]
        self._link.command(protocol.CMD_START, deadline_ns, payload)
        self._link.read_into(received, n, deadline_ns)

    def _signed_read(self, received: bytearray, n: int, deadline_ns: int) -> None:
        payload = protocol.build_signed_read(n)[1:]
        try:
            self._link.command(protocol.CMD_SIGNED_READ, deadline_ns, payload)
        except RefusedError as error:
            raise UnfitDeviceError(
                f"{error}: it signs nothing; set QR_CRYPTALABS_SIGNED=false"
            ) from error
        self._link.read_into(received, n + protocol.SIGNATURE_LEN, deadline_ns)
