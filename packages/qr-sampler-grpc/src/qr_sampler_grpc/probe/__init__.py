# SPDX-License-Identifier: Apache-2.0
"""Finds out what a server can do before tokens depend on it; ``qr-sampler probe`` shows it.

- :func:`target_for`: which server, and how it is spoken to.
- :class:`Plan` and :func:`examine`: what is tried.
- :class:`ProbeReport`: what was found.
"""

from __future__ import annotations

from qr_sampler_grpc.link.quota_pacer import QuotaPacer
from qr_sampler_grpc.probe.examination import examine
from qr_sampler_grpc.probe.plan import Plan
from qr_sampler_grpc.probe.report import ProbeReport
from qr_sampler_grpc.probe.sanity import FALSE_ALARM_RATE
from qr_sampler_grpc.probe.target import target_for

__all__ = ["FALSE_ALARM_RATE", "Plan", "ProbeReport", "QuotaPacer", "examine", "target_for"]
