# SPDX-License-Identifier: Apache-2.0
"""Timing jitter of the processor as an entropy source, measured by libjitterentropy."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_entropy_sources.jitter.library import BLOCK_BYTES, Collector, JitterError, library_at
from qr_entropy_sources.settings import SourceSettings
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceStatus
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.per_process import PerProcess

__all__ = ["JitterEntropySettings", "JitterEntropySource"]


class JitterEntropySettings(SourceSettings):
    """Settings of the source ``jitterentropy``."""

    model_config = SettingsConfigDict(env_prefix="QR_JITTERENTROPY_")
    location: ClassVar[str | None] = "library"

    library: Path | None = Field(
        None, description="File of libjitterentropy; without one the system's is looked for."
    )
    oversampling: int = Field(
        0,
        ge=0,
        le=20,
        description=(
            "Time differences that count as one bit of entropy; 0 leaves that to the library. More "
            "of them take proportionally longer."
        ),
    )


class JitterEntropySource(EntropySource):
    """Draws from the system's libjitterentropy, whose health tests are always on.

    The library measures how long small operations on memory and hashes take, tests the differences
    by the repetition count, adaptive proportion and lag predictor tests of its own, and hashes 320
    of them and more per 32 bytes with SHA3-256. All of them are measured during the call; the state
    of the hash goes on from block to block, so that older measurements are stirred in, but none
    stands in for a new one. Whether the jitter is physically random is the library's claim.

    A failed test fails the draw; the next one begins with the library's start-up tests and a new
    collector. Draws of several threads queue up.

    Args:
        library: File of the library; the system's without one.
        oversampling: Time differences that count as one bit, 0 to 20; 0 leaves that to the library.

    Raises:
        ValueError: When *oversampling* is out of range.
    """

    settings_model = JitterEntropySettings
    jit_class = JitClass.FLUSHED
    conditioning = "sha3-256 of time differences"
    native_block_bytes = BLOCK_BYTES
    device_notes = (
        DeviceNote(
            device="Processor (libjitterentropy 3.1 or later)",
            reached_by="the system's shared library, or `QR_JITTERENTROPY_LIBRARY`",
            rate_bytes_per_s=3_900.0,
            ms_per_token={64: 15.0, 1_024: 250.0, 10_240: 2_650.0},
            jit_class=JitClass.FLUSHED,
            conditioning="sha3-256 of time differences",
            basis="measured here with version 3.4.1, on one core of an x86 virtual machine",
        ),
    )

    def __init__(self, library: Path | None = None, *, oversampling: int = 0) -> None:
        if not 0 <= oversampling <= 20:
            raise ValueError(f"oversampling={oversampling} must lie in the interval [0, 20]")
        self.library = library
        self.oversampling = oversampling
        self._path = "" if library is None else str(library.absolute())
        # A child would go on with the state of its parent's collector, and perhaps a held lock.
        self._turns = PerProcess(_Turn)

    @classmethod
    def from_environment(cls) -> JitterEntropySource:
        """Returns a source with the library and oversampling of ``QR_JITTERENTROPY_*``.

        Raises:
            ConfigError: When one of them is malformed or out of range.
        """
        settings = JitterEntropySettings.load()
        return cls(settings.library, oversampling=settings.oversampling)

    @property
    def name(self) -> str:
        """``"jitterentropy"``."""
        return "jitterentropy"

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The file of the library, as configured, and the oversampling."""
        path = None if self.library is None else str(self.library)
        return {"library": path, "oversampling": self.oversampling}

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes of time differences measured during this call.

        Raises:
            EntropyUnavailableError: When there is no library, or one of its tests fails.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if n == 0:
            return b""
        turn = self._turns.get()
        with turn.lock:
            try:
                if turn.collector is None:
                    turn.collector = library_at(self._path).collector(self.oversampling)
                return turn.collector.read(n)
            except JitterError as error:
                turn.free()
                raise EntropyUnavailableError(self.name, str(error)) from error

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with their provenance; the library's version is the device's identity.

        Raises:
            EntropyUnavailableError: As :meth:`get_random_bytes`.
            ValueError: When *n* is negative.
        """
        draw = super().draw(n)
        return dataclasses.replace(draw, device_id=self._identity()) if n else draw

    def status(self) -> SourceStatus:
        """Returns whether there is a library; measures nothing."""
        try:
            return SourceStatus(available=True, reason=self._identity())
        except JitterError as error:
            return SourceStatus(available=False, reason=str(error))

    def close(self) -> None:
        """Frees the collector after a draw in progress; a later draw starts another one."""
        turn = self._turns.get()
        with turn.lock:
            turn.free()

    def _identity(self) -> str:
        return f"libjitterentropy {library_at(self._path).version}"


class _Turn:
    """A process's collector, and the lock of the thread whose turn it is."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.collector: Collector | None = None

    def free(self) -> None:
        collector, self.collector = self.collector, None
        if collector is not None:
            collector.free()
