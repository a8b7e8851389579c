# SPDX-License-Identifier: Apache-2.0
"""What watches a source while its bytes decide: tests, their cut-offs, and what they conclude.

The tests see whether a device is broken, not whether it is biased: what an experiment looks for
trips none of them, so that they cannot censor an effect.
"""

from __future__ import annotations

from qr_sampler.health.monitor import HealthMonitor
from qr_sampler.health.options import HealthOptions
from qr_sampler.health.policy import Alarm, HealthPolicy, HealthState, Reading
from qr_sampler.health.source_health import SourceHealth, Tested, assumed_min_entropy

__all__ = [
    "Alarm",
    "HealthMonitor",
    "HealthOptions",
    "HealthPolicy",
    "HealthState",
    "Reading",
    "SourceHealth",
    "Tested",
    "assumed_min_entropy",
]
