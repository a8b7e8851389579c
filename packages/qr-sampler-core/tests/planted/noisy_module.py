# SPDX-License-Identifier: Apache-2.0
"""A source whose module reads a device when it is imported."""

from __future__ import annotations

import os
from pathlib import Path

from qr_sampler import EntropySource

with Path("/dev/zero").open("rb") as device:
    FIRST = device.read(8)


class DrawsAtImport(EntropySource):
    """Otherwise sound."""

    name = "stand-in"

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        return os.urandom(n)
