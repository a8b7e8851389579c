# SPDX-License-Identifier: Apache-2.0
"""The source ``replay``: what a ledger has recorded, for the same tokens again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_sampler import EntropyDraw, EntropySource, EntropyUnavailableError, RowContext
from qr_sampler.entropy import JitClass, SourceStatus
from qr_sampler.errors import QRSamplerError
from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler_lab.replay.recording import NotRecordedError, Recording

__all__ = ["ReplaySettings", "ReplaySource"]


class ReplaySettings(EnvironmentSettings):
    """Settings of the source ``replay``."""

    model_config = SettingsConfigDict(env_prefix="QR_REPLAY_")

    ledger: Path | None = Field(
        None,
        description=(
            "The ledger that is replayed, or a folder of the files of one run. With the bytes of "
            "draws beside it the blocks are replayed, otherwise u, for the amplifier 'server'."
        ),
    )


class ReplaySource(EntropySource):
    """Hands each row what was recorded for its request key and its position. Never live.

    Nothing is measured: the bytes were there before the request, so that no claim of being just in
    time can be made. A row that was not recorded has none.

    It is read when it is constructed. Without a recording it is unavailable.

    Args:
        recording: What was recorded.
    """

    settings_model = ReplaySettings
    jit_class = JitClass.PSEUDO
    conditioning = "replay of a recording, never live"
    min_entropy_per_byte = 0.0
    blocks = False
    serves_rows = True

    def __init__(self, recording: Recording | None) -> None:
        self._recording = recording
        self.integrates = recording is not None and not recording.has_blocks

    @classmethod
    def from_environment(cls) -> ReplaySource:
        """Returns a source of the ledger that ``QR_REPLAY_LEDGER`` names.

        Raises:
            ConfigError: When that cannot be replayed.
        """
        path = ReplaySettings.load().ledger
        return cls(None if path is None else Recording(path))

    @property
    def name(self) -> str:
        """``replay``."""
        return "replay"

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """Which runs are replayed, and whether by their bytes or by u."""
        recording = self._recording
        if recording is None:
            return {}
        return {
            "runs": " ".join(recording.run_ids),
            "replays": "blocks" if recording.has_blocks else "u",
        }

    def get_random_bytes(self, n: int) -> bytes:
        """Returns nothing but ``b""`` for 0: there are bytes for recorded rows only.

        Raises:
            EntropyUnavailableError: When *n* is positive.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if n:
            raise EntropyUnavailableError(
                self.name, "it has bytes for the rows of recorded requests only"
            )
        return b""

    def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
        """Returns what was recorded for rows, one block after the other.

        Raises:
            EntropyUnavailableError: When one of them was not recorded; names its request key.
        """
        requested_ns = time.monotonic_ns()
        recording = self._recorded()
        try:
            data = recording.blocks(
                (context.request_key, context.position, size)
                for context, size in zip(contexts, sizes, strict=True)
            )
        except (NotRecordedError, OSError, QRSamplerError) as error:
            raise EntropyUnavailableError(self.name, str(error)) from error
        return EntropyDraw(
            data=data,
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
            device_id=f"recording of run {' '.join(recording.run_ids)[:100]}",
        )

    def status(self) -> SourceStatus:
        """Returns that it is available if there is a recording, and what that is."""
        try:
            recording = self._recorded()
        except EntropyUnavailableError as error:
            return SourceStatus(available=False, reason=error.reason)
        what = "blocks" if recording.has_blocks else "u"
        return SourceStatus(
            available=True, reason=f"never live: replays {what} of {len(recording):,} rows"
        )

    def probe(self) -> SourceStatus:
        """Returns the status: there is no device that could be asked."""
        return self.status()

    def _recorded(self) -> Recording:
        if self._recording is None:
            raise EntropyUnavailableError(
                self.name, "there is no recording; set QR_REPLAY_LEDGER to a ledger"
            )
        return self._recording
