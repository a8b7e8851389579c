# SPDX-License-Identifier: Apache-2.0
"""The source ``serial``: a generator behind a serial port, read after it has been flushed."""

from __future__ import annotations

import time
from collections.abc import Callable

from qr_entropy_serial.connection import Connection, Location
from qr_entropy_serial.devices import SerialDevice
from qr_entropy_serial.discovery import UsbPort, usb_ports
from qr_entropy_serial.kept_device import KeptDevice
from qr_entropy_serial.latency_timer import latency_remark
from qr_entropy_serial.notes import NOTES
from qr_entropy_serial.port import require_serial_ports
from qr_entropy_serial.reasons import Reasons, check_access
from qr_entropy_serial.settings import DEFAULT_TIMEOUT_MS, DeviceName, SerialSettings
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceStatus
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler.turns import held

__all__ = ["SerialSource"]


class SerialSource(EntropySource):
    """Reads a generator behind a serial port.

    The port is opened by the first draw, and again after a failure or a fork; nobody else can open
    it in the meantime. Each draw drops what waited in the terminal and its driver, lets the device
    start, discards ``flush_bytes`` for what the device itself may hold, and then reads exactly what
    was asked for. Draws of several threads queue up; the wait counts against their deadline.

    A device that was unplugged and is back is opened anew, within the same draw if that draw had no
    byte yet. What a draw that fails has received is dropped and told.

    POSIX systems only.

    Args:
        port: Path, or USB identity as ``VENDOR:PRODUCT[:SERIAL]``; empty for the one known device.
        device: Name of the family, or ``"auto"`` to go by the USB identity.
        mode: Name of the mode; empty for the first one.
        baud: Speed of the port; ``None`` for the usual one.
        flush_bytes: Bytes to read and discard before each draw; ``None`` for as many as the device
            may hold.
        timeout_ms: Time that one draw may take, in milliseconds.
        ports: Says which USB devices are plugged in.

    Raises:
        ConfigError: When the device has no such mode, or the system no such ports.
        ValueError: When *flush_bytes* is negative or *timeout_ms* is not positive.

    Examples:
        >>> source = SerialSource("/dev/ttyACM0", "onerng")
        >>> source.conditioning, source.jit_class.value
        ('crc16', 'B')
    """

    settings_model = SerialSettings

    device_notes = NOTES

    def __init__(
        self,
        port: str = "",
        device: DeviceName = "auto",
        *,
        mode: str = "",
        baud: int | None = None,
        flush_bytes: int | None = None,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        ports: Callable[[], list[UsbPort]] = usb_ports,
    ) -> None:
        require_serial_ports()
        if (flush_bytes or 0) < 0 or timeout_ms <= 0:
            raise ValueError(
                f"flush_bytes={flush_bytes} must not be negative, timeout_ms={timeout_ms} must be "
                "positive"
            )
        self.location = Location(port, device, mode, baud, ports)
        """Where the device is looked for."""
        self.flush_bytes = flush_bytes
        self.timeout_ms = timeout_ms
        self._reasons = Reasons("QR_SERIAL_", port)
        # Records keep what is claimed now: another family may not take its place.
        self._family: type[SerialDevice] | None = None
        self._kept = KeptDevice(self._connected, failures=(OSError, ConfigError))
        self._claim()

    @classmethod
    def from_environment(cls) -> SerialSource:
        """Returns a source with the settings of ``QR_SERIAL_*``.

        Raises:
            ConfigError: When one of them is malformed or out of range, or names an unknown mode.
        """
        settings = SerialSettings.load()
        return cls(
            settings.port,
            settings.device,
            mode=settings.mode,
            baud=settings.baud,
            flush_bytes=settings.flush_bytes,
            timeout_ms=settings.timeout_ms,
        )

    @property
    def name(self) -> str:
        """``"serial"``."""
        return "serial"

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The settings in use."""
        return {
            "port": self.location.port,
            "device": self.location.device,
            "mode": self.location.mode,
            "baud": self.location.baud,
            "flush_bytes": self.flush_bytes,
            "timeout_ms": self.timeout_ms,
        }

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes that came after this call began, and after the flush.

        Raises:
            EntropyUnavailableError: When the device is missing, in use, silent, or sends text.
            ValueError: When *n* is negative.
        """
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with their provenance; the USB identity tells the device.

        Raises:
            EntropyUnavailableError: When the device is missing, in use, silent, or sends text.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        requested_ns = time.monotonic_ns()
        data, identity = b"", ""
        if n:
            deadline_ns = requested_ns + self.timeout_ms * 1_000_000
            with held(self._kept.lock, deadline_ns, self._busy):
                data, identity = self._read(n, deadline_ns)
        return EntropyDraw(
            data=data,
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
            device_id=identity,
        )

    def status(self) -> SourceStatus:
        """Returns whether the port is there and may be opened, without opening it.

        The remark is about a converter that holds bytes back for long.
        """
        try:
            path = self.location.find().path
            check_access(path)
        except (OSError, ConfigError) as error:
            return SourceStatus(available=False, reason=self._explain(error))
        return SourceStatus(available=True, reason=latency_remark(path))

    def probe(self) -> SourceStatus:
        """Returns what a real one-byte draw says, with the remark of :meth:`status`."""
        drawn = super().probe()
        return self.status() if drawn.available else drawn

    def close(self) -> None:
        """Gives the port back after a draw in progress; a later draw opens it again."""
        self._kept.close()

    def _read(self, n: int, deadline_ns: int) -> tuple[bytes, str]:
        received = bytearray()

        def read(connection: Connection) -> str:
            connection.read_into(received, n, deadline_ns)
            return connection.place.identity

        identity = self._kept.use(deadline_ns, read, lambda: len(received), self._refusal)
        return bytes(received), identity

    def _connected(self, deadline_ns: int) -> Connection:
        place = self.location.find()
        self._claim_for(place.device)
        return Connection(place, self.flush_bytes, deadline_ns)

    def _claim(self) -> None:
        """Says what can be known before the device is opened."""
        device = self.location.known_device()
        if device is None:
            try:
                device = self.location.find().device
            except (OSError, ConfigError):
                self.jit_class, self.conditioning = JitClass.UNKNOWN, "unknown"
                return
        self._claim_for(device)
        self._family = type(device)

    def _claim_for(self, device: SerialDevice) -> None:
        if self._family not in (None, type(device)):
            raise OSError(
                f"a {device.name} is where another device was, for which the claims in the records "
                "are made; plug that one in or restart"
            )
        enough = self.flush_bytes is None or self.flush_bytes >= device.usual_flush_bytes
        self.jit_class = JitClass.FLUSHED if enough else JitClass.UNKNOWN
        self.conditioning = device.conditioning

    def _busy(self) -> EntropyUnavailableError:
        return EntropyUnavailableError(self.name, self._reasons.of_busy(self.timeout_ms))

    def _refusal(self, error: Exception, lost: int) -> EntropyUnavailableError:
        return EntropyUnavailableError(self.name, self._explain(error), dropped_bytes=lost)

    def _explain(self, error: Exception) -> str:
        return self._reasons.of(error, self.timeout_ms)
