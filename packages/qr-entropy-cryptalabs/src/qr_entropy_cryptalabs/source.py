# SPDX-License-Identifier: Apache-2.0
"""The source ``cryptalabs``: a quantum generator that is asked for every draw, and signs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from qcicada import DeviceStatistics, PostProcess, find_devices

from qr_entropy_cryptalabs.device import Answer, Device, UnfitDeviceError, Wanted
from qr_entropy_cryptalabs.keys import read_key
from qr_entropy_cryptalabs.notes import LARGEST_REQUEST, NOTES
from qr_entropy_cryptalabs.replays import AnswerMemory
from qr_entropy_cryptalabs.settings import CryptaLabsSettings
from qr_entropy_serial.discovery import (
    PortNotFoundError,
    UsbIdentity,
    UsbPort,
    find_port,
    usb_ports,
)
from qr_entropy_serial.kept_device import KeptDevice
from qr_entropy_serial.latency_timer import latency_remark
from qr_entropy_serial.port import require_serial_ports
from qr_entropy_serial.reasons import Reasons, check_access
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceLimits, SourceStatus
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler.foreign import plain_text
from qr_sampler.per_process import PerProcess
from qr_sampler.turns import held

__all__ = ["CryptaLabsSource"]

_CONDITIONING = {
    PostProcess.SHA256: "sha256",
    PostProcess.RAW_NOISE: "raw-noise",
    PostProcess.RAW_SAMPLES: "none",
}


class CryptaLabsSource(EntropySource):
    """Asks a QCicada or a Firefly for the bytes of every draw.

    The port is opened by the first draw, and again after a failure or a fork; nobody else can open
    it in the meantime. Each draw sees to it that the device is in its mode, has its health tests on
    and gives no bytes that have failed them, asks for its state, refuses a device whose tests have
    failed, discards what the device has ready, since that was made before, and then asks for
    exactly the bytes of the draw. The device signs them, unless it cannot.

    Signatures are ECDSA of P-256 over the bytes. A wrong one makes the draw fail, and so do bytes
    of one of the latest 16,384 answers: their signature would be right. They count as verified only
    by a key that does not come from the device alone: a known one, or one that the vendor has
    certified. Only a draw in one request keeps its signature.

    POSIX systems only.

    Args:
        port: Path, or USB identity as ``VENDOR:PRODUCT[:SERIAL]``; empty for the only QCicada.
        wanted: What the device has to be like.
        device: Which device it is, for the size of a request.
        timeout_ms: Time that one draw may take, in milliseconds.
        ports: Says which USB devices are plugged in.

    Raises:
        ConfigError: When a key is to verify signatures, and none are wanted, or when the system has
            no such ports.
        ValueError: When *timeout_ms* is not positive.

    Examples:
        >>> source = CryptaLabsSource("/dev/ttyUSB0")
        >>> source.conditioning, source.jit_class.value, source.limits.max_bytes_per_request
        ('sha256', 'A', 13440)
    """

    settings_model = CryptaLabsSettings

    device_notes = NOTES

    def __init__(
        self,
        port: str = "",
        wanted: Wanted | None = None,
        *,
        device: Literal["qcicada", "firefly"] = "qcicada",
        timeout_ms: int = 5_000,
        ports: Callable[[], list[UsbPort]] = usb_ports,
    ) -> None:
        if timeout_ms <= 0:
            raise ValueError(f"timeout_ms={timeout_ms} must be positive")
        require_serial_ports()
        wanted = wanted or Wanted()
        if not wanted.signed and (wanted.public_key or wanted.authority):
            raise ConfigError(
                "QR_CRYPTALABS_SIGNED=false leaves QR_CRYPTALABS_PUBLIC_KEY and "
                "QR_CRYPTALABS_CA_PUBLIC_KEY nothing to verify; unset them or ask for signatures"
            )
        self.port = port
        self.wanted = wanted
        self.device = device
        self.timeout_ms = timeout_ms
        self._reasons = Reasons("QR_CRYPTALABS_", port)
        self._ports = ports
        self.jit_class = _jit_class(self.wanted)
        self.conditioning = _CONDITIONING[self.wanted.mode]
        self._kept = KeptDevice(self._opened, hopeless=(TimeoutError, UnfitDeviceError))
        self._answered = PerProcess(AnswerMemory)

    @classmethod
    def from_environment(cls) -> CryptaLabsSource:
        """Returns a source with the settings of ``QR_CRYPTALABS_*``.

        Raises:
            ConfigError: When one of them is malformed or out of range, or names no key, or when a
                key is to verify signatures that are switched off.
        """
        settings = CryptaLabsSettings.load()
        wanted = Wanted(
            mode=PostProcess[settings.mode.upper()],
            serial_number=settings.serial_number,
            signed=settings.signed,
            public_key=_key(settings.public_key, "QR_CRYPTALABS_PUBLIC_KEY"),
            authority=_key(settings.ca_public_key, "QR_CRYPTALABS_CA_PUBLIC_KEY"),
            flush=settings.flush,
        )
        return cls(settings.port, wanted, device=settings.device, timeout_ms=settings.timeout_ms)

    @property
    def name(self) -> str:
        """``"cryptalabs"``."""
        return "cryptalabs"

    @property
    def limits(self) -> SourceLimits:
        """The largest request of the device."""
        return SourceLimits(max_bytes_per_request=LARGEST_REQUEST[self.device])

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The settings in use; keys as hexadecimal digits, since they are public."""
        wanted = self.wanted
        return {
            "port": self.port,
            "device": self.device,
            "serial_number": wanted.serial_number,
            "mode": wanted.mode.name.lower(),
            "signed": wanted.signed,
            "public_key": None if wanted.public_key is None else wanted.public_key.hex(),
            "ca_public_key": None if wanted.authority is None else wanted.authority.hex(),
            "flush": wanted.flush,
            "timeout_ms": self.timeout_ms,
        }

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes that the device was asked for after this call began.

        Raises:
            EntropyUnavailableError: When the device is missing, in use, silent or unfit.
            ValueError: When *n* is negative.
        """
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with their provenance: the device's serial number and its signature.

        Raises:
            EntropyUnavailableError: When the device is missing, in use, silent or unfit.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        requested_ns = time.monotonic_ns()
        deadline_ns = requested_ns + self.timeout_ms * 1_000_000
        answers: list[Answer] = []
        device: Device | None = None
        if n:
            with held(self._kept.lock, deadline_ns, self._busy):
                answers, device = self._read(n, deadline_ns)
        return EntropyDraw(
            data=b"".join(answer.data for answer in answers),
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
            device_id="" if device is None else plain_text(device.info.serial),
            requests=max(len(answers), 1),
            signature_verified=None if device is None else device.is_verified,
            signature=answers[0].signature if len(answers) == 1 else b"",
        )

    def status(self) -> SourceStatus:
        """Returns whether the port is there and may be opened, without opening it.

        The remark is about a converter that holds bytes back for long.
        """
        try:
            path = self._path()
            check_access(path)
        except OSError as error:
            return SourceStatus(available=False, reason=self._explain(error))
        return SourceStatus(available=True, reason=latency_remark(path))

    def probe(self) -> SourceStatus:
        """Returns what a real one-byte draw says, and what the device has counted."""
        try:
            self.draw(1)
            counted = self.statistics()
        except EntropyUnavailableError as error:
            return SourceStatus(available=False, reason=error.reason)
        remark = (
            f"since its reset the device has made {counted.generated_bytes} bytes; failed tests: "
            f"repetition count {counted.repetition_count_failures}, adaptive proportion "
            f"{counted.adaptive_proportion_failures}, bit count {counted.bitcount_failures}"
        )
        advice = self.status().reason
        return SourceStatus(available=True, reason=f"{remark}; {advice}" if advice else remark)

    def statistics(self) -> DeviceStatistics:
        """Returns what the device has counted since its last reset.

        Raises:
            EntropyUnavailableError: When the device is missing, in use or silent.
        """
        deadline_ns = time.monotonic_ns() + self.timeout_ms * 1_000_000
        with held(self._kept.lock, deadline_ns, self._busy):
            return self._kept.use(
                deadline_ns,
                lambda device: device.statistics(deadline_ns),
                lambda: 1,
                lambda error, _: EntropyUnavailableError(self.name, self._explain(error)),
            )

    def close(self) -> None:
        """Gives the port back after a draw in progress; a later draw opens it again."""
        self._kept.close()

    def _read(self, n: int, deadline_ns: int) -> tuple[list[Answer], Device]:
        answers: list[Answer] = []
        received = bytearray()

        def read(device: Device) -> Device:
            for size in self._request_sizes(n):
                received.clear()
                answer = device.read(received, size, deadline_ns)
                if self._answered.get().is_known(answer.data):
                    raise UnfitDeviceError("it has given the same bytes before")
                answers.append(answer)
            return device

        def lost() -> int:
            return min(sum(len(answer.data) for answer in answers) + len(received), n)

        device = self._kept.use(deadline_ns, read, lost, self._refusal)
        return answers, device

    def _opened(self, deadline_ns: int) -> Device:
        return Device(self._path(), self.wanted, deadline_ns)

    def _path(self) -> str:
        """Returns where the device is now.

        Raises:
            PortNotFoundError: When it is not plugged in, or several are.
        """
        wanted = UsbIdentity.parsed(self.port)
        if wanted is not None:
            return find_port([wanted], self._ports).path
        if self.port:
            return self.port
        found = find_devices()
        if len(found) != 1:
            raise PortNotFoundError(
                f"set QR_CRYPTALABS_PORT: {len(found)} serial ports may lead to a QCicada"
            )
        return found[0]

    def _busy(self) -> EntropyUnavailableError:
        return EntropyUnavailableError(self.name, self._reasons.of_busy(self.timeout_ms))

    def _refusal(self, error: Exception, lost: int) -> EntropyUnavailableError:
        return EntropyUnavailableError(self.name, self._explain(error), dropped_bytes=lost)

    def _explain(self, error: Exception) -> str:
        return self._reasons.of(error, self.timeout_ms)


def _jit_class(wanted: Wanted) -> JitClass:
    if not wanted.flush:
        return JitClass.UNKNOWN
    return JitClass.ATTESTED if wanted.signed else JitClass.FLUSHED


def _key(path: Path | None, setting: str) -> bytes | None:
    return None if path is None else read_key(path, setting)
