# SPDX-License-Identifier: Apache-2.0
"""A pseudo-random stand-in: uniform by default, reproducible or biased when configured so."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_entropy_sources.byte_law import tilted_byte_law
from qr_entropy_sources.settings import SourceSettings
from qr_sampler.entropy import EntropySource, JitClass
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.per_process import PerProcess
from qr_sampler.settings import BYTE_MEAN

__all__ = ["MockUniformSettings", "MockUniformSource"]


class MockUniformSettings(SourceSettings):
    """Settings of the source ``mock_uniform``."""

    model_config = SettingsConfigDict(env_prefix="QR_MOCK_UNIFORM_")

    seed: int | None = Field(
        None,
        ge=0,
        description="Seed of a reproducible stream; without one every process has its own stream.",
    )
    mean: float = Field(
        BYTE_MEAN,
        gt=0.0,
        lt=255.0,
        description="Mean of one byte; 127.5 is unbiased, others tilt the bytes exponentially.",
    )


class MockUniformSource(EntropySource):
    """Pseudo-random bytes from NumPy's PCG64, for tests, controls and power studies.

    Every byte consumes one 64-bit word of the generator and inverts the cumulative distribution of
    :func:`~qr_entropy_sources.byte_law.tilted_byte_law` at its upper 53 bits. The unbiased
    distribution is met exactly; the cumulative probabilities of a biased one to within 1e-13.

    One word per byte also means that a seeded stream does not depend on how it is split into
    requests: ten requests for one byte return what one request for ten would have. Threads that
    share a seeded source share its stream; which of them gets which part is up to their timing.

    After a fork, a source without a seed starts its own stream in the child, and a seeded one
    continues from the same position in both processes.

    Args:
        seed: Non-negative seed, or ``None`` for a fresh one from the operating system.
        mean: Mean of one byte, in the open interval (0, 255).

    Raises:
        ValueError: When *mean* or *seed* is out of range.

    Examples:
        >>> MockUniformSource(seed=1).get_random_bytes(4) == MockUniformSource(
        ...     seed=1
        ... ).get_random_bytes(4)
        True
    """

    settings_model = MockUniformSettings
    jit_class = JitClass.PSEUDO
    blocks = False
    conditioning = "pcg64"
    device_notes = (
        DeviceNote(
            device="PCG64, biased if you like (control)",
            reached_by="computed in the process, `QR_MOCK_UNIFORM_SEED`",
            rate_bytes_per_s=21e6,
            ms_per_token={64: 0.008, 1_024: 0.05, 10_240: 0.5},
            jit_class=JitClass.PSEUDO,
            conditioning="pcg64",
            basis="measured here, on one core of an x86 virtual machine",
        ),
    )

    def __init__(self, *, seed: int | None = None, mean: float = BYTE_MEAN) -> None:
        self.seed = seed
        self.mean = mean
        self._cumulative = np.cumsum(tilted_byte_law(mean))[:-1]
        self._seeded = None if seed is None else np.random.PCG64(seed)
        self._unseeded = PerProcess(np.random.PCG64)

    @classmethod
    def from_environment(cls) -> MockUniformSource:
        """Returns a source with the seed and mean of ``QR_MOCK_UNIFORM_*``.

        Raises:
            ConfigError: When one of them is malformed or out of range.
        """
        settings = MockUniformSettings.load()
        return cls(seed=settings.seed, mean=settings.mean)

    @property
    def name(self) -> str:
        """``"mock_uniform"``."""
        return "mock_uniform"

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The seed and the mean."""
        return {"seed": self.seed, "mean": self.mean}

    def get_random_bytes(self, n: int) -> bytes:
        """Returns the next *n* bytes of the stream.

        Raises:
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        generator = self._seeded or self._unseeded.get()
        # random_raw() holds the generator's own lock, so two threads never get the same words.
        uniform = (generator.random_raw(n) >> np.uint64(11)) * 2.0**-53
        values = np.searchsorted(self._cumulative, uniform, side="right")
        return bytes(values.astype(np.uint8))
