# SPDX-License-Identifier: Apache-2.0
"""An entropy source made of a plain function, which is all that a device owner has to write."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from qr_sampler.entropy import EntropyDraw, EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["Generate", "GenerateSource"]

Generate: TypeAlias = Callable[[int], bytes]
"""Returns exactly as many bytes as it is asked for, measured after it was called."""


class GenerateSource(EntropySource):
    """Asks a function for the bytes.

    An ``OSError`` of the function, which is how most devices fail, means that no bytes are
    available; so does a wrong number of bytes. Any other error is a defect.

    Args:
        generate: Returns exactly as many bytes as it is asked for.
        name: The name of the source; the function's own when empty, ``"device"`` for a lambda.

    Examples:
        >>> import os
        >>> len(GenerateSource(os.urandom).get_random_bytes(5))
        5
    """

    def __init__(self, generate: Generate, name: str = "") -> None:
        self._generate = generate
        own = getattr(generate, "__name__", type(generate).__name__)
        self._name = name or (own if own.isidentifier() else "device")

    @property
    def name(self) -> str:
        """The name that the source was given, or the function's."""
        return self._name

    def get_random_bytes(self, n: int) -> bytes:
        """Returns what the function returns.

        Raises:
            EntropyUnavailableError: When the function raises an ``OSError``, or returns too few or
                too many bytes.
            TypeError: When the function returns something else than bytes.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if n == 0:
            return b""
        try:
            data = self._generate(n)
        except OSError as error:
            raise EntropyUnavailableError(self.name, str(error) or type(error).__name__) from error
        if type(data) is bytes and len(data) == n:
            return data
        return self._checked(data, n)

    def draw(self, n: int) -> EntropyDraw:
        """Returns what the function returns, in one request whatever *n* is.

        Raises:
            EntropyUnavailableError: As :meth:`get_random_bytes`.
            TypeError: As :meth:`get_random_bytes`.
            ValueError: As :meth:`get_random_bytes`.
        """
        requested_ns = time.monotonic_ns()
        data = self.get_random_bytes(n)
        return EntropyDraw(
            data=data,
            source=self._name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
        )

    def _checked(self, data: object, n: int) -> bytes:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"{self.name} returned {type(data).__name__} instead of bytes")
        copy = bytes(data)
        if len(copy) != n:
            raise EntropyUnavailableError(
                self.name,
                f"asked for {n} bytes, received {len(copy)}; the answer was dropped",
                dropped_bytes=len(copy),
            )
        return copy
