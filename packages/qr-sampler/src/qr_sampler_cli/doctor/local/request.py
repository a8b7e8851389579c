# SPDX-License-Identifier: Apache-2.0
"""What is to be examined."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qr_sampler_local.engines import KnownEngine, known_engine

__all__ = ["LocalRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRequest:
    """An engine, and the model and the arguments that it will be given."""

    engine: str
    """Its name as users type it."""
    model: str | None = None
    """Path or name of the model, ``None`` if not given."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The engine's own arguments."""
    token: bool = False
    """Whether the model is loaded and a token is generated."""

    @property
    def known(self) -> KnownEngine:
        """The engine."""
        return known_engine(self.engine)

    @property
    def model_path(self) -> Path | None:
        """The directory or the file of the model, ``None`` if it is not on this machine."""
        path = Path(self.model).expanduser() if self.model else None
        return path if path is not None and path.exists() else None
