# SPDX-License-Identifier: Apache-2.0
"""Hypothesis settings of the laboratory's tests."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings

# Derandomised: a run that passes today passes tomorrow; no deadline: machines differ in speed.
settings.register_profile("qr-sampler-lab", derandomize=True, deadline=None, database=None)
settings.load_profile("qr-sampler-lab")

JUDGED_PYTHON = (3, 11)
"""The interpreter whose coverage is judged."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "heavy: takes seconds, and the same on every interpreter.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sys.version_info[:2] == JUDGED_PYTHON:
        return
    elsewhere = "takes seconds, and the same on every interpreter: runs on Python {}.{}"
    skip = pytest.mark.skip(reason=elsewhere.format(*JUDGED_PYTHON))
    for item in items:
        if item.get_closest_marker("heavy"):
            item.add_marker(skip)
