# SPDX-License-Identifier: Apache-2.0
"""A source that hands out what a ledger has recorded, so that a run can be made again."""

from __future__ import annotations

from qr_sampler_lab.replay.recording import Recording
from qr_sampler_lab.replay.source import ReplaySettings, ReplaySource

__all__ = ["Recording", "ReplaySettings", "ReplaySource"]
