# SPDX-License-Identifier: Apache-2.0
"""What a host in the user's own process says of itself in its ledger."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from qr_sampler.host import EngineFacts

__all__ = ["engine_facts"]

_ALWAYS: Final = ("qr-sampler-core", "qr-sampler-local", "qr-entropy-sources", "numpy")
_WHERE_INSTALLED: Final = ("qr-sampler-accel", "numba")
"""They select the tokens then."""

_WHERE_IMPORTED: Final = {"torch": "torch", "mlx.core": "mlx"}
"""Distributions by the module whose import shows that logits may be theirs."""


def engine_facts(
    engine: str,
    model: str,
    *,
    model_files: Path | None = None,
    distributions: Iterable[str] = (),
    host: Mapping[str, Any] | None = None,
) -> EngineFacts:
    """Returns the description of a host for the genesis record.

    Args:
        engine: Its name, with its version if it has one.
        model: Name of the model.
        model_files: Directory of the model's files, or the one file that it is.
        distributions: Those of the engine, whose versions are recorded.
        host: Further facts about the engine, as JSON-ready values.
    """
    imported = [name for module, name in _WHERE_IMPORTED.items() if module in sys.modules]
    return EngineFacts(
        engine=engine,
        model=model,
        model_files=model_files,
        distributions=tuple(
            dict.fromkeys((*_ALWAYS, *_WHERE_INSTALLED, *imported, *distributions))
        ),
        host=dict(host or {}),
    )
