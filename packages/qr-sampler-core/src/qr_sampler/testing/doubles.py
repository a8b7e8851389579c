# SPDX-License-Identifier: Apache-2.0
"""Entropy sources whose answers a test chooses."""

from __future__ import annotations

import threading

from qr_sampler.entropy.draw import JitClass, SourceLimits, SourceStatus
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["ConstantEntropySource", "RecordedEntropySource"]


class ConstantEntropySource(EntropySource):
    """Answers every request with copies of one byte value, or fails on demand.

    Args:
        value: The byte value, 0 to 255.
        name: Name to go by.
        fail_with: Reason to be unavailable for, changeable at any time; ``None`` means available.
        max_bytes_per_request: Largest request to announce as a limit.
    """

    jit_class = JitClass.PSEUDO
    blocks = False
    conditioning = "constant"
    min_entropy_per_byte = 0.0

    def __init__(
        self,
        value: int = 127,
        *,
        name: str = "constant",
        fail_with: str | None = None,
        max_bytes_per_request: int | None = None,
    ) -> None:
        self.value = value
        self.fail_with = fail_with
        self.requests: list[int] = []
        self._name = name
        self._limits = SourceLimits(max_bytes_per_request=max_bytes_per_request)

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    @property
    def limits(self) -> SourceLimits:
        """The limits given at construction."""
        return self._limits

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* copies of the value and notes the request in :attr:`requests`."""
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if self.fail_with is not None:
            raise EntropyUnavailableError(self.name, self.fail_with)
        self.requests.append(n)
        return bytes([self.value]) * n

    def status(self) -> SourceStatus:
        """Returns availability as chosen by :attr:`fail_with`."""
        return SourceStatus(available=self.fail_with is None, reason=self.fail_with or "")


class RecordedEntropySource(EntropySource):
    """Hands out a recording once, from its beginning, and is unavailable at its end.

    Args:
        recording: The bytes.
        name: Name to go by.
    """

    jit_class = JitClass.PSEUDO
    blocks = False
    conditioning = "recorded"
    min_entropy_per_byte = 0.0

    def __init__(self, recording: bytes, *, name: str = "recorded") -> None:
        self._recording = recording
        self._position = 0
        self._lock = threading.Lock()
        self._name = name

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    def get_random_bytes(self, n: int) -> bytes:
        """Returns the next *n* bytes of the recording."""
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        with self._lock:
            piece = self._recording[self._position : self._position + n]
            if len(piece) < n:
                reason = f"{len(piece)} recorded bytes left, {n} asked for"
                raise EntropyUnavailableError(self.name, reason)
            self._position += n
        return piece
