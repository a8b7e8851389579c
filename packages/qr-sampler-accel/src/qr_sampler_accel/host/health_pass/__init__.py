# SPDX-License-Identifier: Apache-2.0
"""All health tests of a draw, compiled: what NumPy measures in ten times as long."""

from __future__ import annotations

from qr_sampler_accel.host.health_pass.measures import CompiledMeasures

__all__ = ["CompiledMeasures"]
