# SPDX-License-Identifier: Apache-2.0
"""The bytes that are examined: drawn from a source within its quotas, or read from a file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler import create_source
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler_cli.baseline.pace import Pace
from qr_sampler_cli.quality.byte_tests import FEWEST_BYTES

__all__ = ["RESTART_BYTES", "Sample", "draw_sample", "read_sample"]

RESTART_BYTES: Final = 1_024
"""Bytes that are drawn after each restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Bytes, and where they come from."""

    data: bytes
    """The bytes, in order."""
    origin: str
    """Name of the source, or of the file."""
    conditioning: str = ""
    """What the source says was done to the raw bits; empty for a file."""
    jit_class: str = ""
    """Letter of its just-in-time class; empty for a file."""
    distribution: str = ""
    """Distribution of the source and its version; empty for a file."""
    restarts: tuple[bytes, ...] = ()
    """The first bytes after each restart of the source."""

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The bytes, shape ``(n,)``."""
        return np.frombuffer(self.data, dtype=np.uint8)


def read_sample(path: Path, most_bytes: int) -> Sample:
    """Returns the first bytes of a file.

    Args:
        path: A regular file.
        most_bytes: What is behind them is not read.

    Raises:
        ConfigError: When it cannot be read, is too short, or is no regular file.
    """
    try:
        # Without the flag, opening a pipe would wait for somebody who writes.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(
                    f"{path} is not a regular file; a device is read by the source 'device_file'"
                )
            data = file.read(most_bytes)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if len(data) < FEWEST_BYTES:
        raise ConfigError(f"{path} has {len(data):,} bytes; at least {FEWEST_BYTES:,} are needed")
    return Sample(data=data, origin=str(path))


def draw_sample(
    name: str,
    *,
    size: int,
    draw_bytes: int,
    restarts: int,
    progress: Callable[[int, int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Sample:
    """Returns *size* bytes of a source without a fallback, then the first ones of each restart.

    Args:
        name: Name of the source.
        size: Bytes to draw.
        draw_bytes: Bytes of each draw.
        restarts: How often the source is closed and made anew.
        progress: Called with the number of bytes drawn and to be drawn.
        sleep: Waits for a number of seconds, for the quota.

    Raises:
        ConfigError: When there is no such source, or its settings are malformed.
        EntropyUnavailableError: When a draw fails.
    """
    total = size + restarts * RESTART_BYTES
    with contextlib.closing(create_source(name)) as source:
        origin = source.origin
        pace = Pace(source.limits, draw_bytes, time.monotonic)
        parts = bytearray()
        while len(parts) < size:
            sleep(pace.pause_s())
            parts += _drawn(source, min(draw_bytes, size - len(parts)))
            progress(len(parts), total)
        described = Sample(
            data=bytes(parts),
            origin=name,
            conditioning=source.conditioning,
            jit_class=source.jit_class.value,
            distribution=f"{origin.distribution or ''} {origin.version or ''}".strip(),
        )
        if restarts:
            # The first restart is a request like the others.
            sleep(pace.pause_s())
    firsts = []
    pace = Pace(source.limits, RESTART_BYTES, time.monotonic)
    for count in range(1, restarts + 1):
        sleep(pace.pause_s())
        with contextlib.closing(create_source(name)) as anew:
            firsts.append(_drawn(anew, RESTART_BYTES))
        progress(size + count * RESTART_BYTES, total)
    return dataclasses.replace(described, restarts=tuple(firsts))


def _drawn(source: EntropySource, size: int) -> bytes:
    draw = source.draw(size)
    if draw.fallback:
        raise EntropyUnavailableError(
            source.name, f"{draw.source!r} stood in for it ({draw.fallback_reason})"
        )
    return draw.data
