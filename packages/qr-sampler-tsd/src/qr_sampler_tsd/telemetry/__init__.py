# SPDX-License-Identifier: Apache-2.0
"""What a run did, step by step, in files: events as JSON lines, a summary as CSV, plots."""

from __future__ import annotations

from qr_sampler_tsd.telemetry.events import (
    MEASURED,
    TelemetryEvent,
    as_json_line,
    sampler_version,
    version_hash,
)
from qr_sampler_tsd.telemetry.plots import plot_run, require_matplotlib
from qr_sampler_tsd.telemetry.summary import FieldSummary, Summary
from qr_sampler_tsd.telemetry.writer import EVENTS_FILE, SUMMARY_FILE, RunWriter

__all__ = [
    "EVENTS_FILE",
    "MEASURED",
    "SUMMARY_FILE",
    "FieldSummary",
    "RunWriter",
    "Summary",
    "TelemetryEvent",
    "as_json_line",
    "plot_run",
    "require_matplotlib",
    "sampler_version",
    "version_hash",
]
