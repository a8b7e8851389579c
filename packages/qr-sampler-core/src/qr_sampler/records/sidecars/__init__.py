# SPDX-License-Identifier: Apache-2.0
"""Files beside those of a ledger, with what its lines have only digests of.

A sidecar is no part of the chain: it may be deleted, and its end may be torn.
"""

from __future__ import annotations

from qr_sampler.records.sidecars.configured import configured_sidecars
from qr_sampler.records.sidecars.file import SidecarFile
from qr_sampler.records.sidecars.prompts import PROMPTS_SUFFIX, PromptSidecar, prompt_digest
from qr_sampler.records.sidecars.sidecar import Sidecar

__all__ = [
    "PROMPTS_SUFFIX",
    "PromptSidecar",
    "Sidecar",
    "SidecarFile",
    "configured_sidecars",
    "prompt_digest",
]
