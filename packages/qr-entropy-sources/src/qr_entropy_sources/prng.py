# SPDX-License-Identifier: Apache-2.0
"""A seeded generator whose every stream has a name: the control that can be computed again."""

from __future__ import annotations

import dataclasses
import os
import secrets
from typing import Final

import numpy as np
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_entropy_sources.settings import SourceSettings
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.per_process import PerProcess

__all__ = ["PrngSettings", "PrngSource"]

_WORD_BYTES: Final = 8
_STREAM_BITS: Final = 63
_LARGEST_SEED: Final = 2**128 - 1


class PrngSettings(SourceSettings):
    """Settings of the source ``prng``."""

    model_config = SettingsConfigDict(env_prefix="QR_PRNG_")

    seed: int | None = Field(
        None,
        ge=0,
        le=_LARGEST_SEED,
        description="Seed; without one it comes from the operating system. Records have it.",
    )
    stream: int | None = Field(
        None,
        ge=0,
        lt=2**_STREAM_BITS,
        description=(
            "Which stream of the seed this process draws; without a number every process has "
            "another one. Records have it, and with it the same bytes can be drawn again."
        ),
    )


class PrngSource(EntropySource):
    """Pseudo-random bytes from NumPy's PCG64, as a control that can be computed again.

    Bytes are those of the generator's 64-bit words, the lowest byte of each first. Every draw
    begins with a new word; what is left of its last one is dropped. Stream 0 is that of
    ``numpy.random.PCG64(seed)``, and stream *k* that of its *k*-th child,
    ``numpy.random.SeedSequence(seed, spawn_key=(k - 1,))``. Which of them a draw comes from is its
    device identity, ``"pcg64 seed=… stream=…"``.

    Two processes never have the same stream silently. Without a number, every process draws a
    stream of its own, a child after a fork included; the number is drawn at random among 2**63.
    With one, only the process that constructed the source draws it: a child is refused. Whoever
    starts several engines with one number has asked for the same stream, and their records say so.

    Threads share the stream; which of them gets which part is up to their timing.

    Args:
        seed: Seed, in [0, 2**128); one from the operating system if there is none.
        stream: Number of the stream, in [0, 2**63); each process's own if there is none.

    Raises:
        ValueError: When one of them is out of range.

    Examples:
        >>> PrngSource(seed=1, stream=0).draw(8).device_id
        'pcg64 seed=1 stream=0'
    """

    settings_model = PrngSettings
    jit_class = JitClass.PSEUDO
    blocks = False
    conditioning = "pcg64"
    native_block_bytes = _WORD_BYTES
    device_notes = (
        DeviceNote(
            device="PCG64 (control)",
            reached_by="computed in the process, `QR_PRNG_SEED`",
            rate_bytes_per_s=1.1e9,
            ms_per_token={64: 0.007, 1_024: 0.007, 10_240: 0.009},
            jit_class=JitClass.PSEUDO,
            conditioning="pcg64",
            basis="measured here, on one core of an x86 virtual machine",
        ),
    )

    def __init__(self, *, seed: int | None = None, stream: int | None = None) -> None:
        if seed is not None and not 0 <= seed <= _LARGEST_SEED:
            raise ValueError(f"seed={seed} must lie in the interval [0, 2**128)")
        if stream is not None and not 0 <= stream < 2**_STREAM_BITS:
            raise ValueError(f"stream={stream} must lie in the interval [0, 2**63)")
        self.seed = secrets.randbits(128) if seed is None else seed
        self.stream = stream
        self._is_seeded = seed is not None
        self._process = os.getpid()
        self._streams = PerProcess(self._own_stream)

    @classmethod
    def from_environment(cls) -> PrngSource:
        """Returns a source with the seed and stream of ``QR_PRNG_*``.

        Raises:
            ConfigError: When one of them is malformed or out of range.
        """
        settings = PrngSettings.load()
        return cls(seed=settings.seed, stream=settings.stream)

    @property
    def name(self) -> str:
        """``"prng"``."""
        return "prng"

    @property
    def recorded_settings(self) -> dict[str, object]:
        """The seed and the stream as they are configured; draws have those in use."""
        return {"seed": str(self.seed) if self._is_seeded else None, "stream": self.stream}

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes of the next words of the stream.

        Raises:
            EntropyUnavailableError: When the stream belongs to another process.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        words = -(-n // _WORD_BYTES)
        # random_raw() holds the generator's own lock, so two threads never get the same words.
        raw = self._streams.get().generator.random_raw(words)
        return raw.astype("<u8", copy=False).tobytes()[:n]

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with their provenance; the stream is the device's identity.

        Raises:
            EntropyUnavailableError: When the stream belongs to another process.
            ValueError: When *n* is negative.
        """
        draw = super().draw(n)
        return dataclasses.replace(draw, device_id=self._streams.get().identity)

    def _own_stream(self) -> _Stream:
        number = self.stream
        if number is None:
            number = secrets.randbits(_STREAM_BITS)
        elif os.getpid() != self._process:
            raise EntropyUnavailableError(
                self.name,
                f"stream {number} of the seed belongs to process {self._process}, from which "
                "this one was forked; leave QR_PRNG_STREAM unset, or construct the source there",
            )
        return _Stream(self.seed, number)


class _Stream:
    """One stream of a seed.

    Args:
        seed: The seed.
        number: 0 for the seed's own stream, *k* for that of its *k*-th child.
    """

    def __init__(self, seed: int, number: int) -> None:
        sequence = np.random.SeedSequence(seed, spawn_key=(number - 1,) if number else ())
        self.generator = np.random.PCG64(sequence)
        self.identity = f"pcg64 seed={seed} stream={number}"
