# SPDX-License-Identifier: Apache-2.0
"""What tells a device that has changed from one that has not, beyond mean and deviation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = [
    "AUTOCORRELATION_LAGS",
    "LATENCY_SHARES",
    "BaselineFingerprint",
    "block_sum_autocorrelation",
    "latency_quantiles_ms",
    "plane_shares",
    "settings_as_json",
]

AUTOCORRELATION_LAGS: Final = 10
"""Lags, in blocks, at which the correlation of block sums is kept."""

LATENCY_SHARES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Shares of the draws whose latency is kept: that one which so many draws do not exceed."""

MOST_COUNTED: Final = 2**50
"""The most often that a byte can have come; sums over all bytes stay far below 2**63."""

LONGEST_SETTING: Final = 1_024
"""Characters of the JSON of a setting; what is longer is cut."""

_BITS: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).astype(np.int64)


class BaselineFingerprint(BaseModel):
    """Figures of a device that a later measurement is compared with.

    Nothing here changes what an amplifier makes of a block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    bit_planes: tuple[float, ...] = Field(
        min_length=8,
        max_length=8,
        description="Share of ones at each place of a byte, the highest first.",
    )
    byte_histogram: tuple[int, ...] = Field(
        min_length=256, max_length=256, description="How often each byte came."
    )
    block_sum_autocorrelation: tuple[float, ...] = Field(
        max_length=AUTOCORRELATION_LAGS,
        description="Correlation of the sums of blocks 1, 2 … 10 apart, as many as there are.",
    )
    latency_ms: dict[str, float] = Field(
        description="Latency of a draw in milliseconds, by the share that does not exceed it; "
        "empty if it was not measured."
    )
    timed_blocks: int = Field(ge=0, description="Number of draws whose latency was measured.")
    device_ids: tuple[str, ...] = Field(
        description="Identities that the device reported, in the order of their appearance."
    )
    settings: dict[str, JsonValue] = Field(
        description="Settings of the source that ledgers record, never a secret one."
    )
    conditioning: str = Field(description="What the source says was done to the raw bits.")

    @model_validator(mode="after")
    def _figures_agree(self) -> BaselineFingerprint:
        if not any(self.byte_histogram) or not all(
            0 <= count <= MOST_COUNTED for count in self.byte_histogram
        ):
            raise ValueError("byte_histogram has nothing but zeros, or what no device delivers")
        stated, counted = np.array(self.bit_planes), plane_shares(self.byte_histogram)
        if not np.allclose(stated, counted, rtol=0.0, atol=1e-12):
            raise ValueError("bit_planes and byte_histogram are not of the same bytes")
        return self


def plane_shares(byte_counts: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns the share of ones at each of the eight places of a byte, the highest first.

    Args:
        byte_counts: How often each byte came, 256 numbers that are not all 0.
    """
    counts = np.array(byte_counts, dtype=np.int64)
    return np.asarray(counts @ _BITS / counts.sum(), dtype=np.float64)


def block_sum_autocorrelation(sums: Sequence[int]) -> tuple[float, ...]:
    """Returns the autocorrelation r_k of block sums at the lags 1 to 10, as far as there are sums.

    r_k = sum (x_i - m) (x_(i + k) - m) / sum (x_i - m)**2, the estimator of Box and Jenkins (Time
    Series Analysis, 1976, 2.1.5), whose standard error is 1 / sqrt(N) for independent sums.

    Args:
        sums: Byte sums in the order of measurement, not all equal.
    """
    off = np.array(sums, dtype=np.float64)
    off -= off.mean()
    square = float(off @ off)
    lags = range(1, min(AUTOCORRELATION_LAGS, len(sums) - 1) + 1)
    return tuple(float(off[:-lag] @ off[lag:]) / square for lag in lags)


def latency_quantiles_ms(latencies_ns: Sequence[int]) -> dict[str, float]:
    """Returns the latencies in milliseconds that :data:`LATENCY_SHARES` of the draws stay within.

    Each is one that was measured: the smallest that at least this share does not exceed.

    Args:
        latencies_ns: Latencies in nanoseconds; none give no quantiles.
    """
    if not latencies_ns:
        return {}
    ordered = sorted(latencies_ns)
    return {
        f"{share:g}": ordered[math.ceil(share * len(ordered)) - 1] / 1e6 for share in LATENCY_SHARES
    }


def settings_as_json(settings: Mapping[str, object]) -> dict[str, Any]:
    """Returns recorded settings as JSON values; what JSON has no word for becomes its text."""
    return {str(name): _as_json(value) for name, value in settings.items()}


def _as_json(value: object) -> Any:
    try:
        text = json.dumps(value, allow_nan=False, default=str)
    except (TypeError, ValueError):
        text = json.dumps(str(value))
    return json.loads(text) if len(text) <= LONGEST_SETTING else text[:LONGEST_SETTING]
