# SPDX-License-Identifier: Apache-2.0
"""Hypothesis settings of the tests of sources."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Derandomised: a run that passes today passes tomorrow; machines differ in speed.
settings.register_profile(
    "qr-entropy-sources",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qr-entropy-sources")
