# SPDX-License-Identifier: Apache-2.0
"""Hypothesis settings, and an environment without settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
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


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables and `.env` file from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
