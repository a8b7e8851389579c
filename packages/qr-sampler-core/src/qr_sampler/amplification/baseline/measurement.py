# SPDX-License-Identifier: Apache-2.0
"""How a baseline is measured: block by block, and with a file to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qr_sampler.amplification.baseline.baseline import Baseline
from qr_sampler.amplification.baseline.fingerprint import (
    BaselineFingerprint,
    block_sum_autocorrelation,
    latency_quantiles_ms,
    plane_shares,
    settings_as_json,
)
from qr_sampler.amplification.byte_sums import block_ones, block_sums
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler.settings import describe_validation_error
from qr_sampler.whole_file import write_whole

__all__ = ["BaselineMeasurement", "measure_baseline"]

_MOST_DEVICES: Final = 16
_LONGEST_DEVICE_ID: Final = 256


class BaselineMeasurement(BaseModel):
    """What was counted of the blocks of one source so far.

    Counts are whole numbers, and so is what is kept of them: a measurement that was put aside and
    taken up again has the figures of one that was not.

    Raises:
        ConfigError: From :meth:`load` and :meth:`save`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1, description="Name of the source that is measured.")
    source_distribution: str = Field(description="Distribution that the source comes from.")
    source_version: str = Field(description="Version of that distribution.")
    block_bytes: int = Field(ge=1, lt=2**24, description="Bytes of each block.")
    byte_counts: list[int] = Field(
        default_factory=lambda: [0] * 256,
        min_length=256,
        max_length=256,
        description="How often each byte came.",
    )
    block_sums: list[int] = Field(default_factory=list, description="Byte sum of each block.")
    block_ones: list[int] = Field(default_factory=list, description="One bits of each block.")
    latencies_ns: list[int] = Field(
        default_factory=list,
        description="How long the draw of each block took, in nanoseconds; fewer than blocks where "
        "an older version began.",
    )
    device_ids: list[str] = Field(
        default_factory=list,
        max_length=_MOST_DEVICES,
        description="Identities that the device reported.",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Recorded settings of the source."
    )
    conditioning: str = Field(
        default="unknown", description="What the source says was done to the raw bits."
    )

    @model_validator(mode="after")
    def _counts_agree(self) -> BaselineMeasurement:
        total = sum(value * count for value, count in enumerate(self.byte_counts))
        ones = sum(value.bit_count() * count for value, count in enumerate(self.byte_counts))
        if (
            min(self.byte_counts) < 0
            or sum(self.byte_counts) != self.blocks * self.block_bytes
            or (sum(self.block_sums), sum(self.block_ones)) != (total, ones)
            or len(self.block_ones) != self.blocks
            or len(self.latencies_ns) > self.blocks
        ):
            raise ValueError("byte_counts, block_sums and block_ones are not of the same bytes")
        return self

    @classmethod
    def of(cls, source: EntropySource, *, block_bytes: int) -> BaselineMeasurement:
        """Returns a measurement of *source* that has not begun.

        Raises:
            ConfigError: When the block length is out of range.
        """
        if not 1 <= block_bytes < 2**24:
            raise ConfigError(f"block_bytes={block_bytes}: use 1 to {2**24 - 1}")
        return cls(
            source=source.name,
            source_distribution=source.origin.distribution or "",
            source_version=source.origin.version or "",
            block_bytes=block_bytes,
            settings=settings_as_json(source.recorded_settings),
            conditioning=source.conditioning,
        )

    @property
    def blocks(self) -> int:
        """Number of blocks so far."""
        return len(self.block_sums)

    def measure_block(self, source: EntropySource) -> None:
        """Draws one fresh block and counts it.

        Args:
            source: The bare device, without a fallback.

        Raises:
            EntropyUnavailableError: When the source fails, or another one stands in for it; the
                counts are as they were.
        """
        draw = source.draw(self.block_bytes)
        if draw.fallback or draw.source != self.source:
            raise EntropyUnavailableError(
                self.source,
                f"block {self.blocks + 1} came from {draw.source!r} instead "
                f"({draw.fallback_reason or 'no reason given'}); a baseline describes one device",
            )
        block = np.frombuffer(draw.data, dtype=np.uint8)
        for value, count in enumerate(np.bincount(block, minlength=256).tolist()):
            self.byte_counts[value] += count
        self.block_sums.append(int(block_sums(block[np.newaxis])[0]))
        self.block_ones.append(int(block_ones(block[np.newaxis])[0]))
        self.latencies_ns.append(max(0, int(draw.received_ns) - int(draw.requested_ns)))
        self._note_device(draw.device_id)

    def _note_device(self, device_id: str) -> None:
        told = str(device_id)[:_LONGEST_DEVICE_ID]
        if told and told not in self.device_ids and len(self.device_ids) < _MOST_DEVICES:
            self.device_ids.append(told)

    def baseline(self) -> Baseline:
        """Returns the baseline of the blocks so far.

        The correlation factors compare the variance of block sums that independent bytes (bits)
        would have with the observed one, so that they see dependence up to the length of a block.

        Raises:
            ConfigError: When there are less than two blocks, or they are constant.
        """
        if self.blocks < 2:
            raise ConfigError(
                f"blocks={self.blocks}: a baseline needs 2 or more, thousands to be useful"
            )
        return Baseline(
            source=self.source,
            source_distribution=self.source_distribution,
            source_version=self.source_version,
            blocks=self.blocks,
            block_bytes=self.block_bytes,
            block_sums=tuple(sorted(self.block_sums)),
            wall_time_ns=time.time_ns(),
            **self._figures(),
            fingerprint=self._fingerprint(),
        )

    def _fingerprint(self) -> BaselineFingerprint:
        return BaselineFingerprint(
            bit_planes=tuple(plane_shares(self.byte_counts).tolist()),
            byte_histogram=tuple(self.byte_counts),
            block_sum_autocorrelation=block_sum_autocorrelation(self.block_sums),
            latency_ms=latency_quantiles_ms(self.latencies_ns),
            timed_blocks=len(self.latencies_ns),
            device_ids=tuple(self.device_ids),
            settings=self.settings,
            conditioning=self.conditioning,
        )

    def _figures(self) -> dict[str, Any]:
        """Returns mean, deviation, fraction of ones and correlation factors."""
        counts, values = np.array(self.byte_counts, dtype=np.int64), np.arange(256)
        total = int(counts.sum())
        mean = int(counts @ values) / total
        variance = float(counts @ (values - mean) ** 2) / total
        fraction = sum(self.block_ones) / (8 * total)
        of_sums, of_ones = (
            float(np.array(kept, dtype=np.intp).var(ddof=1))
            for kept in (self.block_sums, self.block_ones)
        )
        if not (variance > 0.0 and of_sums > 0.0 and of_ones > 0.0):
            raise ConfigError(
                f"the {self.blocks} blocks of {self.source!r} all have the same sum or number of "
                f"ones (first block: {self.block_sums[0]} and {self.block_ones[0]}); the device "
                "is stuck, repair it"
            )
        size = self.block_bytes
        return {
            "byte_mean": mean,
            "byte_std": math.sqrt(variance),
            "ones_fraction": fraction,
            "byte_correlation_factor": size * variance / of_sums,
            "bit_correlation_factor": 8 * size * fraction * (1.0 - fraction) / of_ones,
        }

    def save(self, path: Path) -> None:
        """Writes the counts as JSON, replacing those of an earlier moment.

        Raises:
            ConfigError: When the file cannot be written.
        """
        try:
            write_whole(path, self.model_dump_json() + "\n", replace=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error}") from error

    @classmethod
    def load(cls, path: Path) -> BaselineMeasurement:
        """Returns the measurement that was put aside in *path*.

        Raises:
            ConfigError: When the file cannot be read, or holds anything else.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            reason = describe_validation_error(error, cls, prefix="")
            raise _unusable(path, reason) from error
        except OSError as error:
            raise _unusable(path, f"cannot be read: {error}") from error


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path}: {reason}; remove it, and the measurement begins anew")


def measure_baseline(
    source: EntropySource,
    *,
    blocks: int,
    block_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Returns the baseline of *source*, from that many fresh blocks, one draw each.

    Measure before a run, with the block length of that run, and freeze the result in a file. The
    first failure ends it; ``qr-sampler baseline`` waits and goes on.

    Args:
        source: The bare device, without a fallback.
        blocks: Number N of blocks, >= 2. :meth:`Baseline.calibration_error` says what N is worth.
        block_bytes: Bytes of each block, 1 to 2**24 - 1.
        progress: Called with the number of blocks done and N after every block.

    Raises:
        ConfigError: When N or the block length is out of range, or the data are constant.
        EntropyUnavailableError: When the source fails, or another one stands in for it.
    """
    if blocks < 2:
        raise ConfigError(f"blocks={blocks}: a baseline needs 2 or more, thousands to be useful")
    measurement = BaselineMeasurement.of(source, block_bytes=block_bytes)
    while measurement.blocks < blocks:
        measurement.measure_block(source)
        if progress is not None:
            progress(measurement.blocks, blocks)
    return measurement.baseline()
