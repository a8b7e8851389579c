# SPDX-License-Identifier: Apache-2.0
"""What a device does when nothing is asked of it: measured once, frozen, and referred to."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qr_sampler.amplification.baseline.fingerprint import BaselineFingerprint
from qr_sampler.errors import ConfigError
from qr_sampler.settings import describe_validation_error
from qr_sampler.whole_file import write_whole

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["Baseline", "calibration_error", "configured_baseline"]

_DIGEST_KEY: Final = "digest"
_MOST_BYTES: Final = 2**28
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
    fingerprint: BaselineFingerprint | None = Field(
        default=None,
        description="What tells whether the device has changed; none in files of older versions.",
    )

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
        return hashlib.sha256(_canonical_json(self._content())).hexdigest()

    @property
    def most_tokens(self) -> int:
        """Number of tokens from which on the baseline is too short: a tenth of its blocks.

        A comparison of N tokens with N_b blocks has the standard error sqrt(1 / N + 1 / N_b), in
        standard deviations of one of them. Up to N_b / 10 the baseline adds less than 5 % to it;
        far beyond, more tokens make it no smaller.
        """
        return self.blocks // 10

    def calibration_error(self, block_bytes: int) -> float:
        """Returns by how much the finite baseline typically keeps u from uniform.

        See :func:`calibration_error`.

        Args:
            block_bytes: Length n of the blocks that are amplified.
        """
        return calibration_error(
            self.blocks, measured_block_bytes=self.block_bytes, block_bytes=block_bytes
        )

    def mean_u_error(self, tokens: int) -> float:
        """Returns the standard error of the mean of u over that many tokens, without an effect.

        One u has the standard deviation 1 / sqrt(12). The tokens scatter around the mean of the
        baseline, which itself is off by as much as the mean of its N_b blocks is, and by the same
        amount for all of them: sqrt((1 / N + 1 / N_b) / 12), however many tokens there are. Exact
        for ``ecdf``, where it is the law of Mann and Whitney's statistic (Ann. Math. Statist. 18,
        1947) but for 1 / (N N_b); for a normal statistic the second part is smaller by 3 / pi.

        Args:
            tokens: Number N of tokens, >= 1.
        """
        return math.sqrt((1.0 / tokens + 1.0 / self.blocks) / 12.0)

    def save(self, path: Path) -> None:
        """Writes the baseline and its digest as JSON; an existing file is never replaced.

        Raises:
            ConfigError: When the file exists or cannot be written.
        """
        content = {**self._content(), _DIGEST_KEY: self.digest}
        try:
            write_whole(path, json.dumps(content, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error}; choose a new file") from error

    def _content(self) -> dict[str, Any]:
        # Without one, content and digest are those of files that had no place for a fingerprint.
        without = {"fingerprint"} if self.fingerprint is None else None
        return self.model_dump(mode="json", exclude=without)

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Returns the baseline in *path*.

        Raises:
            ConfigError: When the file cannot be read, is malformed or incomplete, holds values out
                of range, or was changed after its digest was taken.
        """
        try:
            content = json.loads(_text_of(path))
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


def calibration_error(blocks: int, *, measured_block_bytes: int, block_bytes: int) -> float:
    """Returns by how much a baseline of that many blocks typically keeps u from uniform.

    One standard error of the mean shifts z by sqrt(n / measured bytes), which moves Phi(z) by up to
    0.399 times that; one of the deviation of block sums is 1 / sqrt(2 (N - 1)) of it, which moves
    Phi(z) by up to 0.242 times that. The result is the sum of both, a Kolmogorov distance:
    0.57 / sqrt(N) for blocks of the measured length. A good source loses more by a short baseline
    than it gains.

    Args:
        blocks: Number N of measured blocks, >= 2.
        measured_block_bytes: Bytes of each of them.
        block_bytes: Length n of the blocks that are amplified.
    """
    shift = math.sqrt(block_bytes / (blocks * measured_block_bytes))
    scale = 1.0 / math.sqrt(2.0 * (blocks - 1))
    return _NORMAL_DENSITY_AT_0 * shift + _SCALE_EFFECT * scale


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


def _canonical_json(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _text_of(path: Path) -> str:
    # Opening a pipe would wait for somebody who writes.
    if path.exists() and not path.is_file():
        raise OSError("it is not a regular file")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    return data.decode("utf-8-sig")


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path}: {reason}; measure the baseline again, or unset the variable")
