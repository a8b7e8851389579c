# SPDX-License-Identifier: Apache-2.0
"""Random number generators that the operating system shows as a file, such as ``/dev/hwrng``."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_entropy_sources.byte_stream import ByteStream
from qr_entropy_sources.device_kind import (
    HELD_BY_HWRNG_BYTES,
    DeviceKind,
    NotADeviceError,
    jit_class_of,
    kind_of,
)
from qr_entropy_sources.settings import SourceSettings
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceStatus
from qr_sampler.entropy.device_notes import DeviceNote, transfer_ms
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler.per_process import PerProcess
from qr_sampler.turns import held

__all__ = ["DeviceFileSettings", "DeviceFileSource"]

_DEFAULT_PATH: Final = Path("/dev/hwrng")
_DEFAULT_TIMEOUT_MS: Final = 5_000

_LOCKS: Final[dict[str, threading.Lock]] = {}
"""One lock per device of this process, by resolved path."""

# A lock that another thread holds at the moment of a fork would stay locked in the child.
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_LOCKS.clear)


class DeviceFileSettings(SourceSettings):
    """Settings of the source ``device_file``."""

    model_config = SettingsConfigDict(env_prefix="QR_DEVICE_FILE_")
    location: ClassVar[str | None] = "path"

    path: Path = Field(
        _DEFAULT_PATH,
        description="Character device, FIFO or Unix stream socket that delivers random bytes.",
    )
    flush_bytes: int = Field(
        HELD_BY_HWRNG_BYTES,
        ge=0,
        le=1 << 20,
        description=(
            "Bytes to read and discard before each draw: at least as many as the device and its "
            "driver may hold from before the draw; 0 for none. Data queued in a terminal, FIFO or "
            "socket is dropped in any case."
        ),
    )
    timeout_ms: int = Field(
        _DEFAULT_TIMEOUT_MS,
        ge=1,
        le=600_000,
        description="Time that one draw may take, including flushing and waiting for other draws.",
    )


class DeviceFileSource(EntropySource):
    """Reads a hardware generator, a FIFO or a Unix stream socket.

    The device is opened by the first draw and again after a fork or a failure. Each draw holds the
    device's lock, drops what waited on this side, discards ``flush_bytes`` and then reads exactly
    what was asked for. Draws of several threads queue up; the wait counts against their deadline.
    After any failure the device is closed and what it had already delivered is dropped: no late
    byte serves a later draw.

    What waited is dropped by what the device is, and :attr:`jit_class` follows from that:

    * a terminal, such as a USB generator with a serial port: its input queue is flushed; class B.
      It is in raw mode, so that no byte is altered.
    * a FIFO or a socket: it is read empty; class B.
    * ``/dev/hwrng``: measures when it is read; class B if ``flush_bytes`` covers the 128 bytes that
      may lie behind it, otherwise unknown.
    * ``/dev/random`` and ``/dev/urandom``: compute when they are read; class P, pseudo-random.
    * another character device: what its driver holds cannot be seen; class unknown.

    What the other end holds is beyond these means: ``flush_bytes`` has to cover it. The deadline is
    kept for devices that honour ``O_NONBLOCK``.

    Regular files are refused: a recording is not a measurement. POSIX systems only.

    Args:
        path: Character device, FIFO or Unix stream socket.
        flush_bytes: Bytes to read and discard before each draw, after what waited is gone.
        timeout_ms: Time that one draw may take, in milliseconds.

    Raises:
        ValueError: When *flush_bytes* is negative or *timeout_ms* is not positive.

    Examples:
        >>> source = DeviceFileSource(Path("/dev/urandom"), flush_bytes=0)
        >>> len(source.get_random_bytes(16))
        16
        >>> source.close()
    """

    settings_model = DeviceFileSettings
    jit_class = JitClass.UNKNOWN
    conditioning = "unknown"
    device_notes = (
        DeviceNote(
            device="Hardware generator of the kernel, whichever it is",
            reached_by="`/dev/hwrng` (the default of `QR_DEVICE_FILE_PATH`)",
            rate_bytes_per_s=None,
            ms_per_token={},
            jit_class=JitClass.FLUSHED,
            conditioning="that of the device",
            basis="nothing: rate and conditioning depend on the driver behind it",
        ),
        DeviceNote(
            device="ChaosKey",
            reached_by="`QR_DEVICE_FILE_PATH=/dev/chaoskey0`, driver of Linux",
            rate_bytes_per_s=10e6 / 8,
            ms_per_token=transfer_ms(10e6 / 8),
            jit_class=JitClass.UNKNOWN,
            conditioning="that of the device",
            basis="vendor; the driver does not reveal what it holds",
        ),
        DeviceNote(
            device="Araneus Alea I",
            reached_by="`QR_DEVICE_FILE_PATH=/dev/chaoskey0`, driver of Linux",
            rate_bytes_per_s=100e3 / 8,
            ms_per_token=transfer_ms(100e3 / 8),
            jit_class=JitClass.UNKNOWN,
            conditioning="that of the device",
            basis=(
                "vendor, by the manual page urng(4) of OpenBSD; the driver does not reveal what it "
                "holds"
            ),
        ),
        DeviceNote(
            device="Crypta Labs Dragonfly (PCIe)",
            reached_by="`QR_DEVICE_FILE_PATH=/dev/qrngDF0`, driver of the vendor",
            rate_bytes_per_s=350e6 / 8,
            ms_per_token=transfer_ms(350e6 / 8),
            jit_class=JitClass.UNKNOWN,
            conditioning="that of the device",
            basis="vendor; the driver does not reveal what it holds",
        ),
        DeviceNote(
            device="Infinite Noise TRNG",
            reached_by="`infnoise --raw` of the vendor, written into a FIFO",
            rate_bytes_per_s=259e3 / 8,
            ms_per_token=transfer_ms(259e3 / 8),
            jit_class=JitClass.FLUSHED,
            conditioning="none",
            basis=(
                "vendor; the FIFO is flushed, and QR_DEVICE_FILE_FLUSH_BYTES has to cover what the "
                "program holds"
            ),
        ),
    )

    def __init__(
        self,
        path: Path = _DEFAULT_PATH,
        *,
        flush_bytes: int = HELD_BY_HWRNG_BYTES,
        timeout_ms: int = _DEFAULT_TIMEOUT_MS,
    ) -> None:
        _require_devices_in_files()
        if flush_bytes < 0 or timeout_ms <= 0:
            raise ValueError(
                f"flush_bytes={flush_bytes} must not be negative, timeout_ms={timeout_ms} must be "
                "positive"
            )
        self.path = path
        self.flush_bytes = flush_bytes
        self.timeout_ms = timeout_ms
        # A child that inherits a stream does not close it: it may have reused the number by then.
        self._streams = PerProcess(lambda: ByteStream(self.path))
        self._claim()

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The path, the flush and the timeout."""
        return {
            "path": str(self.path),
            "flush_bytes": self.flush_bytes,
            "timeout_ms": self.timeout_ms,
        }

    @classmethod
    def from_environment(cls) -> DeviceFileSource:
        """Returns a source with the path, flush and timeout of ``QR_DEVICE_FILE_*``.

        Raises:
            ConfigError: When one of them is malformed or out of range.
        """
        settings = DeviceFileSettings.load()
        return cls(settings.path, flush_bytes=settings.flush_bytes, timeout_ms=settings.timeout_ms)

    @property
    def name(self) -> str:
        """``"device_file"``."""
        return "device_file"

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes that came after this call began, and after the flush.

        Raises:
            EntropyUnavailableError: When the device is missing, inaccessible, silent or at its end.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if n == 0:
            return b""
        deadline_ns = time.monotonic_ns() + self.timeout_ms * 1_000_000
        with held(self._lock(), deadline_ns, self._busy):
            return self._read(n, deadline_ns)

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with their provenance; the path serves as the device's identity.

        Raises:
            EntropyUnavailableError: When the device does not deliver them in time.
            ValueError: When *n* is negative.
        """
        return dataclasses.replace(super().draw(n), device_id=str(self.path))

    def status(self) -> SourceStatus:
        """Returns whether the path leads to a readable device, without opening it."""
        try:
            self._require_readable()
        except OSError as error:
            return SourceStatus(available=False, reason=self._explain(error))
        return SourceStatus(available=True)

    def close(self) -> None:
        """Closes the device after a draw in progress; a later draw opens it again."""
        with self._lock():
            self._drop_stream()

    def _read(self, n: int, deadline_ns: int) -> bytes:
        kept = self._streams.peek()
        try:
            stream = self._open_stream()
            stream.drop_what_waited(deadline_ns)
            stream.read(self.flush_bytes, deadline_ns)
            return stream.read(n, deadline_ns)
        except (OSError, EOFError) as error:
            self._drop_stream()
            if isinstance(error, EOFError) and kept and kept.kind is DeviceKind.SOCKET:
                # Servers that answer once hang up when they please: before a draw or during it.
                return self._read(n, deadline_ns)
            raise EntropyUnavailableError(self.name, self._explain(error)) from error

    def _open_stream(self) -> ByteStream:
        stream = self._streams.get()
        self.jit_class = jit_class_of(stream.kind, self.flush_bytes)
        return stream

    def _claim(self) -> None:
        """Returns what can be known before the device is opened."""
        try:
            self.jit_class = jit_class_of(kind_of(self.path), self.flush_bytes)
        except OSError:
            self.jit_class = JitClass.UNKNOWN

    def _drop_stream(self) -> None:
        stream = self._streams.pop()
        if stream is not None:
            stream.close()

    def _lock(self) -> threading.Lock:
        return _LOCKS.setdefault(os.path.realpath(self.path), threading.Lock())

    def _busy(self) -> EntropyUnavailableError:
        reason = f"{self.path} is busy with other draws; {self._timeout_advice()}"
        return EntropyUnavailableError(self.name, reason)

    def _require_readable(self) -> None:
        kind_of(self.path)
        if not os.access(self.path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))

    def _explain(self, error: OSError | EOFError) -> str:
        """Returns what went wrong and what to do about it."""
        if isinstance(error, TimeoutError):
            return f"{error}; {self._timeout_advice()}"
        if isinstance(error, FileNotFoundError):
            return f"{self.path} does not exist; plug the device in or set {self._called('path')}"
        if isinstance(error, PermissionError):
            return f"no permission to read {self.path}; grant it, for example by a udev rule"
        if isinstance(error, NotADeviceError):
            return f"{error}; set {self._called('path')} to a device"
        return f"{error}; check that {self.path} is connected and its writer is running"

    def _timeout_advice(self) -> str:
        return f"check the device or raise {self._called('timeout_ms')}={self.timeout_ms}"

    def _called(self, field: str) -> str:
        """Returns what the operator calls a setting of this source."""
        variable = f"QR_DEVICE_FILE_{field.upper()}"
        return variable if self.name == "device_file" else f"{field} of {self.name} or {variable}"


def _require_devices_in_files() -> None:
    if sys.platform == "win32":
        raise ConfigError(
            "the source 'device_file' reads character devices, FIFOs and Unix sockets, which "
            "Windows does not have; serve the device where it has a file, under Linux or in WSL "
            "('qr-sampler serve-entropy --source device_file'), and set "
            "QR_ENTROPY_SOURCE_TYPE=quantum_grpc here"
        )
