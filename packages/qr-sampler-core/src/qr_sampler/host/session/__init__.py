# SPDX-License-Identifier: Apache-2.0
"""The sampling of one engine: it decides rows, forces their tokens and keeps their records."""

from __future__ import annotations

from qr_sampler.host.session.engine_facts import EngineFacts
from qr_sampler.host.session.sampling_session import SamplingSession

__all__ = ["EngineFacts", "SamplingSession"]
