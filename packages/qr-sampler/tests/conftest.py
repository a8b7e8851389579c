# SPDX-License-Identifier: Apache-2.0
"""What all tests of the command share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the size of a window that is not there.

    pytest loads readline, which puts a size into the environment of its child processes; workers
    of pytest-xdist are such.
    """
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
