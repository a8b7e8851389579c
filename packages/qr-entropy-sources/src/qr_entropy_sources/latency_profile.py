# SPDX-License-Identifier: Apache-2.0
"""How long a device took to answer: recorded latencies by request size, and new ones like them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qr_sampler.errors import ConfigError

__all__ = [
    "LONGEST_NS",
    "MOST_LATENCIES",
    "MOST_SIZES",
    "LatencyProfile",
    "LatencySeries",
    "SimulatedLatency",
]

LONGEST_NS: Final = 3_600_000_000_000
"""Longest latency in ns: that of the longest draw that a deployment may allow, one hour."""

MOST_LATENCIES: Final = 100_000
"""Number of latencies of one request size."""

MOST_SIZES: Final = 64
"""Number of request sizes."""

LARGEST_FILE: Final = 2**26
"""Number of bytes of the largest file that is read."""

SUMMARY: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""The quantiles that a file shows to its readers."""

MEAN_STRETCH: Final = 64
"""Mean number of latencies that follow one another as they were recorded."""

Nanoseconds = Annotated[int, Field(ge=0, le=LONGEST_NS)]


class LatencySeries(BaseModel):
    """The latencies of requests of one size, in the order in which they were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=1, le=2**40)
    """Size of each request in bytes."""
    draws: int = Field(ge=1)
    """Number of requests."""
    quantiles_ns: dict[str, float] = Field(max_length=100)
    """Quantiles of the latencies in ns, for readers; computed from them."""
    latencies_ns: tuple[Nanoseconds, ...] = Field(min_length=1, max_length=MOST_LATENCIES)
    """The latencies in ns."""

    @model_validator(mode="after")
    def _counts_agree(self) -> LatencySeries:
        if self.draws != len(self.latencies_ns):
            raise ValueError(f"draws={self.draws}, but there are {len(self.latencies_ns)}")
        return self

    @classmethod
    def of(cls, size: int, latencies_ns: Sequence[int]) -> LatencySeries:
        """Returns the series of requests for *size* bytes, with its quantiles."""
        quantiles = np.quantile(np.asarray(latencies_ns, dtype=np.float64), SUMMARY).tolist()
        return cls(
            bytes=size,
            draws=len(latencies_ns),
            quantiles_ns=dict(zip(map(str, SUMMARY), quantiles, strict=True)),
            latencies_ns=tuple(latencies_ns),
        )


class LatencyProfile(BaseModel):
    """What was recorded of one source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["latency_profile"] = "latency_profile"
    version: Literal[1] = 1
    source: str = Field(min_length=1, max_length=256)
    """Name of the source."""
    heads: tuple[str, ...] = Field(default=(), max_length=10_000)
    """Digests of the last lines of the ledgers that it was made from."""
    sizes: tuple[LatencySeries, ...] = Field(min_length=1, max_length=MOST_SIZES)
    """One series for each size of request, by size."""

    @model_validator(mode="after")
    def _sizes_ascend(self) -> LatencyProfile:
        sizes = [series.bytes for series in self.sizes]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"sizes {sizes} do not ascend")
        return self

    @classmethod
    def read(cls, path: Path) -> tuple[LatencyProfile, str]:
        """Returns the profile in a file, and the file's hexadecimal SHA-256.

        Raises:
            ConfigError: When it cannot be read or holds no profile.
        """
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise ConfigError(f"cannot read the latency profile {path}: {error}") from error
        if len(data) > LARGEST_FILE:
            raise ConfigError(f"{path} has more than {LARGEST_FILE} bytes; it is no profile")
        try:
            return cls.model_validate_json(data), hashlib.sha256(data).hexdigest()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"{path} is no latency profile ({where}: {first['msg']}); make one with: "
                "qr-sampler experiment latency-profile"
            ) from error


class SimulatedLatency:
    """Latencies like the recorded ones: stretches of the record, joined at random.

    This is the stationary bootstrap of D. N. Politis and J. P. Romano, "The Stationary Bootstrap",
    J. Amer. Statist. Assoc. 89 (1994) 1303-1313: from each latency it goes on with the one recorded
    next, or, with probability 1/64, with one chosen uniformly; after the last comes the first. So
    the distribution is that of the record, and the autocorrelation at lag k is (63/64)**k of that.

    A size that was not recorded gets the latency that is at the same quantile between its recorded
    neighbours, interpolated linearly in bytes; beyond all of them that of the nearest.

    Threads may share an instance.

    Args:
        profile: What was recorded.
        rng: Chooses the stretches.
    """

    def __init__(self, profile: LatencyProfile, rng: np.random.Generator) -> None:
        self._rng = rng
        self._sizes = np.array([series.bytes for series in profile.sizes], dtype=np.float64)
        self._series = [np.array(each.latencies_ns, dtype=np.int64) for each in profile.sizes]
        self._sorted = [np.sort(series) for series in self._series]
        self._positions: list[int | None] = [None] * len(self._series)
        self._lock = threading.Lock()

    def next_ns(self, size: int) -> int:
        """Returns the latency in ns of the next request for *size* bytes."""
        nearest = int(np.abs(self._sizes - size).argmin())
        with self._lock:
            latency_ns = int(self._series[nearest][self._advance(nearest)])
        if size == self._sizes[nearest] or not self._sizes[0] < size < self._sizes[-1]:
            return latency_ns
        return self._between(size, _rank(self._sorted[nearest], latency_ns))

    def _advance(self, index: int) -> int:
        """Returns the position in a series that comes next."""
        position, length = self._positions[index], len(self._series[index])
        if position is None or self._rng.random() < 1.0 / MEAN_STRETCH:
            position = int(self._rng.integers(length))
        else:
            position = (position + 1) % length
        self._positions[index] = position
        return position

    def _between(self, size: int, rank: float) -> int:
        """Returns the latency at a *rank* in [0, 1], for a size between two recorded ones."""
        above = int(np.searchsorted(self._sizes, size))
        ends = [_quantile(self._sorted[index], rank) for index in (above - 1, above)]
        return round(float(np.interp(size, self._sizes[above - 1 : above + 1], ends)))


def _rank(ascending: npt.NDArray[np.int64], value: int) -> float:
    """Returns where *value* is among *ascending*, from 0 to 1; the middle of equal ones."""
    low, high = (
        np.searchsorted(ascending, value, "left"),
        np.searchsorted(ascending, value, "right"),
    )
    return float(low + high - 1) / (2.0 * max(len(ascending) - 1, 1))


def _quantile(ascending: npt.NDArray[np.int64], rank: float) -> float:
    return float(np.interp(rank * (len(ascending) - 1), np.arange(len(ascending)), ascending))
