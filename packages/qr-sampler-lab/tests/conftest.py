# SPDX-License-Identifier: Apache-2.0
"""Hypothesis settings of the laboratory's tests."""

from __future__ import annotations

from hypothesis import settings

# Derandomised: a run that passes today passes tomorrow; no deadline: machines differ in speed.
settings.register_profile("qr-sampler-lab", derandomize=True, deadline=None, database=None)
settings.load_profile("qr-sampler-lab")
