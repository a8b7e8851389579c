# SPDX-License-Identifier: Apache-2.0
"""What a device does when nothing is asked of it: measured once, frozen, and referred to."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qr_sampler._typing import IndexArray
from qr_sampler.amplification.byte_sums import block_ones, block_sums
from qr_sampler.entropy.draw import EntropyDraw
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler.settings import describe_validation_error

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["Baseline", "configured_baseline", "measure_baseline"]

_DIGEST_KEY: Final = "digest"
_NORMAL_DENSITY_AT_0: Final = 1.0 / math.sqrt(2.0 * math.pi)
# max z * density(z), at z = 1: by how much a relative error of the deviation moves Phi(z).
_SCALE_EFFECT: Final = math.exp(-0.5) / math.sqrt(2.0 * math.pi)


class Baseline(BaseModel):
    """Frozen figures of one device, to which ``zscore_mean``, ``bit_zscore`` and ``ecdf`` refer.

    A device whose ones come with probability 0.501 would move every u against the ideal law;
    against its own baseline u is uniform again. What is left is the error of the baseline itself,
    see :meth:`calibration_error`.

    Raises:
        ConfigError: From :meth:`load` and :meth:`save`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    source: str = Field(min_length=1, description="Name of the source that was measured.")
    source_distribution: str = Field(description="Distribution that the source came from.")
    source_version: str = Field(description="Version of that distribution.")
    byte_mean: float = Field(ge=0.0, le=255.0, description="Mean of all bytes.")
    byte_std: float = Field(gt=0.0, le=127.5, description="Standard deviation of all bytes.")
    ones_fraction: float = Field(gt=0.0, lt=1.0, description="Fraction of one bits.")
    byte_correlation_factor: float = Field(
        gt=0.0,
        description="Independent bytes per byte: block_bytes * byte_std**2 / Var(block sums).",
    )
    bit_correlation_factor: float = Field(
        gt=0.0,
        description="Independent bits per bit: 8 * block_bytes * p * (1 - p) / Var(block ones).",
    )
    blocks: int = Field(ge=2, description="Number N of blocks that were measured.")
    block_bytes: int = Field(ge=1, lt=2**24, description="Bytes of each block.")
    block_sums: tuple[int, ...] = Field(
        description="Byte sums of the N blocks, ascending; empty if they were not kept."
    )
    wall_time_ns: int = Field(description="When it was finished, in nanoseconds since the epoch.")

    @model_validator(mode="after")
    def _sums_are_complete_and_sorted(self) -> Baseline:
        sums = self.block_sums
        if not sums:
            return self
        if len(sums) != self.blocks:
            raise ValueError(f"block_sums has {len(sums)} entries for blocks={self.blocks}")
        if list(sums) != sorted(sums):
            raise ValueError("block_sums is not in ascending order")
        if sums[0] < 0 or sums[-1] > 255 * self.block_bytes:
            raise ValueError(f"block_sums is not within 0 to 255 * {self.block_bytes}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the content, as 64 hexadecimal digits."""
        return hashlib.sha256(_canonical_json(self.model_dump(mode="json"))).hexdigest()

    def calibration_error(self, block_bytes: int) -> float:
        """Returns by how much the finite baseline typically keeps u from uniform.

        One standard error of the mean shifts z by sqrt(n / measured bytes), which moves Phi(z) by
        up to 0.399 times that; one of the deviation of block sums is 1 / sqrt(2 (N - 1)) of it,
        which moves Phi(z) by up to 0.242 times that. The result is the sum of both, a Kolmogorov
        distance: 0.57 / sqrt(N) for blocks of the measured length. A good source loses more by a
        short baseline than it gains.

        Args:
            block_bytes: Length n of the blocks that are amplified.
        """
        shift = math.sqrt(block_bytes / (self.blocks * self.block_bytes))
        scale = 1.0 / math.sqrt(2.0 * (self.blocks - 1))
        return _NORMAL_DENSITY_AT_0 * shift + _SCALE_EFFECT * scale

    def save(self, path: Path) -> None:
        """Writes the baseline and its digest as JSON; an existing file is never replaced.

        Raises:
            ConfigError: When the file exists or cannot be written.
        """
        content = {**self.model_dump(mode="json"), _DIGEST_KEY: self.digest}
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(content, file, allow_nan=False)
                file.write("\n")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error}; choose a new file") from error

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Returns the baseline in *path*.

        Raises:
            ConfigError: When the file cannot be read, is malformed or incomplete, holds values out
                of range, or was changed after its digest was taken.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _unusable(path, f"cannot be read as JSON: {error}") from error
        if not isinstance(content, dict):
            raise _unusable(path, "is not a JSON object")
        digest = content.pop(_DIGEST_KEY, None)
        try:
            baseline = cls.model_validate_json(json.dumps(content))
        except ValidationError as error:
            raise _unusable(path, describe_validation_error(error, cls, prefix="")) from error
        if digest != baseline.digest:
            raise _unusable(path, f"its digest is {digest!r} and its content {baseline.digest!r}")
        return baseline


def configured_baseline(settings: Settings) -> Baseline | None:
    """Returns the baseline that ``QR_BASELINE_FILE`` names, ``None`` if it names none.

    Raises:
        ConfigError: When it cannot be loaded or is of another source than the configured one.
    """
    path = settings.baseline_file
    if path is None:
        return None
    try:
        baseline = Baseline.load(path)
    except ConfigError as error:
        raise ConfigError(f"QR_BASELINE_FILE={error}") from error
    if baseline.source != settings.entropy_source_type:
        raise ConfigError(
            f"QR_BASELINE_FILE={path}: it describes the source {baseline.source!r} and "
            f"QR_ENTROPY_SOURCE_TYPE is {settings.entropy_source_type!r}; measure a baseline of "
            "the configured source, or unset the variable"
        )
    return baseline


def measure_baseline(
    source: EntropySource,
    *,
    blocks: int,
    block_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Returns the baseline of *source*, from that many fresh blocks, one draw each.

    Measure before a run, with the block length of that run, and freeze the result in a file. The
    correlation factors compare the variance of block sums that independent bytes (bits) would have
    with the observed one, so that they see dependence up to the length of a block.

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
    if not 1 <= block_bytes < 2**24:
        raise ConfigError(f"block_bytes={block_bytes}: use 1 to {2**24 - 1}")
    counts = np.zeros(256, dtype=np.int64)
    sums, ones = np.zeros((2, blocks), dtype=np.intp)
    first = None
    for index, draw in enumerate(_own_draws(source, blocks, block_bytes)):
        first = first or draw
        block = np.frombuffer(draw.data, dtype=np.uint8)
        counts += np.bincount(block, minlength=256)
        sums[index] = block_sums(block[np.newaxis])[0]
        ones[index] = block_ones(block[np.newaxis])[0]
        if progress is not None:
            progress(index + 1, blocks)
    figures = _figures(source.name, counts, sums, ones, block_bytes)
    origin = source.origin if first is None else first.origin
    return Baseline(
        source=source.name,
        source_distribution=origin.distribution,
        source_version=origin.version,
        blocks=blocks,
        block_bytes=block_bytes,
        block_sums=tuple(sorted(sums.tolist())),
        wall_time_ns=time.time_ns(),
        **figures,
    )


def _own_draws(source: EntropySource, blocks: int, block_bytes: int) -> Iterator[EntropyDraw]:
    for index in range(blocks):
        draw = source.draw(block_bytes)
        if draw.fallback or draw.source != source.name:
            raise EntropyUnavailableError(
                source.name,
                f"block {index + 1} of {blocks} came from {draw.source!r} instead "
                f"({draw.fallback_reason or 'no reason given'}); a baseline describes one device",
            )
        yield draw


def _figures(
    name: str, counts: IndexArray, sums: IndexArray, ones: IndexArray, block_bytes: int
) -> dict[str, Any]:
    """Returns mean, deviation, fraction of ones and correlation factors from integer counts."""
    total = int(counts.sum())
    values = np.arange(256)
    mean = int(counts @ values) / total
    variance = float(counts @ (values - mean) ** 2) / total
    fraction = int(ones.sum()) / (8 * total)
    of_sums, of_ones = float(sums.var(ddof=1)), float(ones.var(ddof=1))
    if not (variance > 0.0 and of_sums > 0.0 and of_ones > 0.0):
        raise ConfigError(
            f"the {sums.size} blocks of {name!r} all have the same sum or number of ones "
            f"(first block: {sums[0]} and {ones[0]}); the device is stuck, repair it"
        )
    return {
        "byte_mean": mean,
        "byte_std": math.sqrt(variance),
        "ones_fraction": fraction,
        "byte_correlation_factor": block_bytes * variance / of_sums,
        "bit_correlation_factor": 8 * block_bytes * fraction * (1.0 - fraction) / of_ones,
    }


def _canonical_json(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path}: {reason}; measure the baseline again, or unset the variable")
