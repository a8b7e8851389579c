# SPDX-License-Identifier: Apache-2.0
"""Leaves out, visibly, the examples of modules that import what is not installed."""

from __future__ import annotations

from importlib.util import find_spec

PLACES = {
    "numba": "src/qr_sampler_accel/host/*.py",
    "torch": "src/qr_sampler_accel/device/*.py",
    "triton": "src/qr_sampler_accel/device/triton/*.py",
}
MISSING = {name: place for name, place in PLACES.items() if find_spec(name) is None}

collect_ignore_glob = list(MISSING.values())


def pytest_report_header() -> str:
    """Says which examples are not looked for."""
    if not MISSING:
        return "qr-sampler-accel: nothing is left out"
    return f"qr-sampler-accel: {', '.join(MISSING)} not installed, left out: {collect_ignore_glob}"
