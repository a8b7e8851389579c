# SPDX-License-Identifier: Apache-2.0
"""Devices for servers under test."""

from __future__ import annotations

import os
import threading

from qr_sampler import EntropySource
from qr_sampler.entropy import EntropyDraw
from qr_sampler_grpc.testing.patience import PATIENCE_S

__all__ = ["CountedUrandom", "Gate"]


class CountedUrandom(EntropySource):
    """The system's bytes; counts them and notes the commitments."""

    commits = True

    def __init__(self) -> None:
        self.generated = 0
        self.commitments: list[bytes] = []

    @property
    def name(self) -> str:
        """``counted``."""
        return "counted"

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes of the system, which it adds to ``generated``."""
        # Without a lock: a device is asked by one thread at a time.
        before = self.generated
        data = os.urandom(n)
        self.generated = before + n
        return data

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Notes the commitment and draws."""
        self.commitments.append(commitment)
        return self.draw(n)


class Gate:
    """A device that measures zeros while ``open`` is set, and notes what it was asked for."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, n: int) -> bytes:
        """Returns *n* zeros once the gate is open."""
        self.sizes.append(n)
        self.entered.set()
        if not self.open.wait(PATIENCE_S):
            raise TimeoutError("the gate stayed closed")
        return bytes(n)
