# SPDX-License-Identifier: Apache-2.0
"""Which sidecars a ledger has."""

from __future__ import annotations

from qr_sampler.records.sidecars.blocks import BlocksSidecar
from qr_sampler.records.sidecars.prompts import PromptSidecar
from qr_sampler.records.sidecars.sidecar import Sidecar
from qr_sampler.settings import Settings

__all__ = ["configured_sidecars"]


def configured_sidecars(settings: Settings, run_id: str) -> list[Sidecar]:
    """Returns the sidecars that *settings* ask for.

    Args:
        settings: The deployment's settings.
        run_id: Name of the run.
    """
    sync_s = settings.ledger_sync_ms / 1e3
    sidecars: list[Sidecar] = []
    if settings.ledger_blocks:
        sidecars.append(BlocksSidecar(sync_s))
    if settings.ledger_prompts:
        sidecars.append(PromptSidecar(run_id, sync_s=sync_s))
    return sidecars
