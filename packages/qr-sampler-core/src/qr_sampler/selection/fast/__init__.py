# SPDX-License-Identifier: Apache-2.0
"""The fast selector: a few passes over the row, and a proof that the token is the right one."""

from __future__ import annotations

from qr_sampler.selection.fast.selector import FastMeasurement, FastPlan, FastSelector

__all__ = ["FastMeasurement", "FastPlan", "FastSelector"]
