# SPDX-License-Identifier: Apache-2.0
"""A control that answers as slowly as a device: computed bytes behind recorded latencies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_entropy_sources.latency_profile import LatencyProfile, SimulatedLatency
from qr_entropy_sources.settings import SourceSettings
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.per_process import PerProcess

__all__ = ["ShamSettings", "ShamSource"]

_SPIN_NS: Final = 200_000
"""How long before its end in ns a delay is no longer slept through. Linux wakes a thread up to 50
microseconds late (``prctl(2)``, ``PR_SET_TIMERSLACK``), also from a sleep of no time, and the
scheduler adds to that."""


class ShamSettings(SourceSettings):
    """Settings of the source ``sham``."""

    model_config = SettingsConfigDict(env_prefix="QR_SHAM_")
    location: ClassVar[str | None] = "profile"

    profile: Path | None = Field(
        None,
        description=(
            "JSON file with the latencies of the device that it stands in for, made by "
            "'qr-sampler experiment latency-profile'; without one it answers at once, which tells "
            "it from any device."
        ),
    )
    seed: int | None = Field(
        None,
        ge=0,
        description=(
            "Seed of reproducible bytes; without one they come from the operating system."
        ),
    )


class ShamSource(EntropySource):
    """Computed bytes, delivered after delays that are drawn from the latencies of a device.

    With it an experiment has an arm that differs from the device in nothing but the origin of the
    bytes: neither the operator nor the records tell by time which of the two a token came from.
    What is simulated is the time from request to answer, to within a few microseconds, in a thread
    of its own as for any device; :class:`~qr_entropy_sources.latency_profile.SimulatedLatency` says
    how. A machine without an idle processor adds its own delays, to both.

    Args:
        profile: The latencies; without them it answers at once.
        profile_sha256: Digest of the file that they come from, for the ledger.
        seed: Non-negative seed of the bytes; those of the operating system without one.
        clock: The time in ns, monotonic.
        sleep: Waits for a number of seconds.

    Raises:
        ValueError: When *seed* is negative.
    """

    settings_model = ShamSettings
    jit_class = JitClass.PSEUDO
    device_notes = (
        DeviceNote(
            device="Stand-in for a device (control)",
            reached_by="`QR_SHAM_PROFILE`: the latencies recorded of a device",
            rate_bytes_per_s=None,
            ms_per_token={},
            jit_class=JitClass.PSEUDO,
            conditioning="chacha20-csprng",
            basis="the time of the device that it stands in for",
        ),
    )

    def __init__(
        self,
        profile: LatencyProfile | None = None,
        *,
        profile_sha256: str = "",
        seed: int | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.seed = seed
        self.profile = profile
        self.conditioning = "chacha20-csprng" if seed is None else "pcg64"
        self._profile_sha256 = profile_sha256
        self._seeded = None if seed is None else np.random.PCG64(seed)
        self._latency: PerProcess[SimulatedLatency] | None = None
        if profile is not None:
            self._latency = PerProcess(lambda: SimulatedLatency(profile, np.random.default_rng()))
        self._clock, self._sleep = clock, sleep

    @classmethod
    def from_environment(cls) -> ShamSource:
        """Returns a source with the profile and the seed of ``QR_SHAM_*``.

        Raises:
            ConfigError: When one of them is malformed, or the file holds no profile.
        """
        settings = ShamSettings.load()
        if settings.profile is None:
            return cls(seed=settings.seed)
        profile, digest = LatencyProfile.read(settings.profile)
        return cls(profile, profile_sha256=digest, seed=settings.seed)

    @property
    def name(self) -> str:
        """``"sham"``."""
        return "sham"

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The source that it stands in for, the digest of its profile, and the seed."""
        stands_for = None if self.profile is None else self.profile.source
        return {"stands_for": stands_for, "profile": self._profile_sha256, "seed": self.seed}

    def draw(self, n: int) -> EntropyDraw:
        """Returns what :meth:`get_random_bytes` returns; the delay begins with the request.

        Raises:
            EntropyUnavailableError: When the operating system refuses to serve it.
            ValueError: When *n* is negative.
        """
        requested_ns = self._clock()
        data = self._data(n)
        self._wait(n, requested_ns)
        return EntropyDraw(
            data=data,
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=self._clock(),
            wall_time_ns=time.time_ns(),
        )

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes after a delay.

        Raises:
            EntropyUnavailableError: When the operating system refuses to serve it.
            ValueError: When *n* is negative.
        """
        return self.draw(n).data

    def _data(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if self._seeded is not None:
            # The high byte of each word, so that a stream does not depend on how it is split.
            words = self._seeded.random_raw(n) >> np.uint64(56)
            return bytes(words.astype(np.uint8))
        try:
            return os.urandom(n)
        except (NotImplementedError, OSError) as error:
            raise EntropyUnavailableError(self.name, f"os.urandom({n}) failed: {error}") from error

    def _wait(self, n: int, since_ns: int) -> None:
        """Waits until the delay of a request for *n* bytes is over."""
        if self._latency is None or not n:
            return
        until_ns = since_ns + self._latency.get().next_ns(n)
        while (left_ns := until_ns - self._clock()) > 0:
            if left_ns > _SPIN_NS:
                self._sleep((left_ns - _SPIN_NS) * 1e-9)
