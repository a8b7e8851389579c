# SPDX-License-Identifier: Apache-2.0
"""Which sidecars a ledger has."""

from __future__ import annotations

from qr_sampler.records.sidecars.blocks import BlocksSidecar
from qr_sampler.records.sidecars.sidecar import Sidecar
from qr_sampler.settings import Settings

__all__ = ["configured_sidecars"]


def configured_sidecars(settings: Settings, run_id: str) -> list[Sidecar]:
    """Returns the sidecars that *settings* ask for.

    Args:
        settings: The deployment's settings.
        run_id: Name of the run.
    """
    return [BlocksSidecar(settings.ledger_sync_ms / 1e3)] if settings.ledger_blocks else []
