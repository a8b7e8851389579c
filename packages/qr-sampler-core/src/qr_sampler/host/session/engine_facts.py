# SPDX-License-Identifier: Apache-2.0
"""What a host engine says of itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qr_sampler.host.journal import DISTRIBUTIONS
from qr_sampler.host.public_text import public_model_name
from qr_sampler.settings import Settings

__all__ = ["EngineFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """A host engine's description of itself, for the genesis record and the status."""

    engine: str
    """Its name, with its version if it has one."""
    model: str
    """Name of the model that it serves."""
    model_files: Path | None = None
    """Directory of its files, or the one file that it is; ``None`` if they are not known."""
    rank: int = 0
    """Which of several data-parallel engines it is, counted from 0."""
    distributions: Sequence[str] = DISTRIBUTIONS
    """The distributions whose versions enter the genesis record, as far as they are installed."""
    more_settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the sampling, as JSON-ready values."""
    host: Mapping[str, Any] = field(default_factory=dict)
    """Further facts about the engine for its ledger, as JSON-ready values."""
    busy: bool = False
    """Whether its steps keep the interpreter busy, so that they would wait for a thread which
    writes the ledger; another process does so then, unless the operator does not want one."""
    more_status: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of its status, as JSON-ready values that anybody may read."""

    def described(self, settings: Settings, run_id: str) -> dict[str, Any]:
        """Returns the constant part of the status.

        Args:
            settings: The deployment's settings.
            run_id: Name of the run.
        """
        return {
            "engine": self.rank,
            "run_id": run_id,
            "pid": os.getpid(),
            **self.more_status,
            "model": public_model_name(self.model),
            "amplifier": settings.signal_amplifier_type,
            "temperature_strategy": settings.temperature_strategy,
            "fallback_mode": settings.fallback_mode,
            "started_wall_time_ns": time.time_ns(),
        }
