# SPDX-License-Identifier: Apache-2.0
"""Timing jitter of the processor as an entropy source, for demonstration and teaching."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_entropy_sources.settings import SourceSettings
from qr_sampler.entropy import EntropySource, JitClass, SourceStatus
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.health.continuous import AdaptiveProportion, RepetitionCount
from qr_sampler.health.cutoffs import WINDOW, proportion_cutoff, repetition_cutoff

__all__ = ["TimingNoiseSettings", "TimingNoiseSource"]

_DIGEST_BYTES: Final = 32

_SURPLUS_BITS: Final = 64
"""Min-entropy that a hash must receive beyond its output length (NIST SP 800-90C, full entropy)."""

_DEFAULT_BITS_PER_DELTA: Final = 1.0
"""Half of the 2.0 bits that the best of five simple predictors (the most common value, Markov
chains of order 1 to 4) left open on an x86 virtual machine: an assumption, not a bound."""

_FALSE_ALARM_BITS: Final = 40
"""A source that meets its claim fails a test with probability 2**-40 per sample or window."""

_WORKLOAD: Final = bytes(range(256))


class TimingNoiseSettings(SourceSettings):
    """Settings of the source ``timing_noise``."""

    model_config = SettingsConfigDict(env_prefix="QR_TIMING_NOISE_")

    bits_per_delta: float = Field(
        _DEFAULT_BITS_PER_DELTA,
        ge=0.1,
        le=1.0,
        description=(
            "Min-entropy assumed in one time difference; a smaller value measures more of them "
            "per byte and lets the health tests tolerate a duller clock."
        ),
    )


class TimingNoiseSource(EntropySource):
    """Hashes the durations of a small, uneven workload, measured anew for every call.

    Experimental and educational. Caches, interrupts and the scheduler make the durations hard to
    predict; it has not been shown that they are quantum or even physically random, and no
    claim about their entropy is made here.

    A call times short copy-and-hash operations with a nanosecond clock. The length of each depends
    on the previous reading, which amplifies small differences. Every 32 output bytes are the
    SHA-256 digest of their own ``ceil((256 + 64) / bits_per_delta)`` time differences, 320 by
    default: the length of the digest and the surplus that NIST SP 800-90C asks for, divided by what
    one difference is assumed to hold. Only differences enter the hash, no time of day and no
    counter, so a dead clock yields equal blocks rather than blocks that look random. Surplus digest
    bytes are dropped, and nothing survives the call.

    Before hashing, the raw differences pass the repetition count and the adaptive proportion test
    of NIST SP 800-90B at the assumed min-entropy; too coarse or constant a clock fails them.

    Args:
        bits_per_delta: Min-entropy assumed in one time difference, in the interval (0, 1].
        clock: Returns a time in integer nanoseconds.

    Raises:
        ValueError: When *bits_per_delta* lies outside its interval, or is so small that no clock
            could contradict it.

    Examples:
        >>> TimingNoiseSource().conditioning
        'sha256 of time differences'
    """

    settings_model = TimingNoiseSettings
    jit_class = JitClass.FLUSHED
    conditioning = "sha256 of time differences"
    device_notes = (
        DeviceNote(
            device="Clock and caches of the processor (educational)",
            reached_by="timed in the process",
            rate_bytes_per_s=520e3,
            ms_per_token={64: 0.14, 1_024: 1.8, 10_240: 19.6},
            jit_class=JitClass.FLUSHED,
            conditioning="sha256 of time differences",
            basis="measured here, on one core of an x86 virtual machine",
        ),
    )

    def __init__(
        self,
        *,
        bits_per_delta: float = _DEFAULT_BITS_PER_DELTA,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        if not 0.0 < bits_per_delta <= 1.0:
            raise ValueError(f"bits_per_delta={bits_per_delta!r} must lie in the interval (0, 1]")
        self.bits_per_delta = bits_per_delta
        self._most_repeated = repetition_cutoff(bits_per_delta, _FALSE_ALARM_BITS)
        self._most_frequent = proportion_cutoff(bits_per_delta, _FALSE_ALARM_BITS)
        self.deltas_per_block = math.ceil((8 * _DIGEST_BYTES + _SURPLUS_BITS) / bits_per_delta)
        self._clock = clock

    @classmethod
    def from_environment(cls) -> TimingNoiseSource:
        """Returns a source with the assumption of ``QR_TIMING_NOISE_BITS_PER_DELTA``.

        Raises:
            ConfigError: When it is malformed or out of range.
        """
        return cls(bits_per_delta=TimingNoiseSettings.load().bits_per_delta)

    @property
    def name(self) -> str:
        """``"timing_noise"``."""
        return "timing_noise"

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The assumption about the entropy of a delta."""
        return {"bits_per_delta": self.bits_per_delta}

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes hashed from time differences that are measured during this call.

        Raises:
            EntropyUnavailableError: When the differences vary too little.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if n == 0:
            return b""
        blocks = math.ceil(n / _DIGEST_BYTES)
        deltas = self._healthy_deltas(blocks * self.deltas_per_block)
        raw = deltas.astype("<u4").reshape(blocks, self.deltas_per_block)
        return b"".join(hashlib.sha256(block.tobytes()).digest() for block in raw)[:n]

    def status(self) -> SourceStatus:
        """Returns that the source is available, with a remark that it claims nothing."""
        return SourceStatus(
            available=True, reason="experimental: processor timing, no claim about its entropy"
        )

    def _healthy_deltas(self, count: int) -> npt.NDArray[np.int64]:
        """Returns *count* time differences in nanoseconds after testing them."""
        # A short request is measured for longer, so that the tests always see a whole window.
        readings = np.array(_read_clock(self._clock, max(count, WINDOW)), dtype=np.int64)
        deltas = readings[1:] - readings[:-1]
        if defect := self._defect_of(deltas):
            reason = (
                f"{defect}: the clock of this machine is too coarse or too regular; lower "
                "QR_TIMING_NOISE_BITS_PER_DELTA or name another source"
            )
            raise EntropyUnavailableError(self.name, reason)
        return deltas[:count]

    def _defect_of(self, deltas: npt.NDArray[np.int64]) -> str:
        """Returns what contradicts the assumed min-entropy, in words; empty when nothing does."""
        run = RepetitionCount(self._most_repeated).add(deltas)
        if run >= self._most_repeated:
            return f"{run} equal time differences in a row are too many"
        # The last window is judged whole, too, wherever it begins.
        pieces = (deltas, deltas[-WINDOW:])
        count = max(AdaptiveProportion().add(piece) for piece in pieces)
        if count >= self._most_frequent:
            most = self._most_frequent
            return f"{count} of {WINDOW} time differences equal, where {most} are too many"
        return ""


def _read_clock(clock: Callable[[], int], differences: int) -> list[int]:
    """Returns one reading more than *differences*, with an uneven piece of work before each."""
    workload = _WORKLOAD
    readings = [0] * (differences + 1)
    reading = 0
    for index in range(differences + 1):
        hash(workload[: reading & 0xFF])
        readings[index] = reading = clock()
    return readings
