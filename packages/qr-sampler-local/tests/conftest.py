# SPDX-License-Identifier: Apache-2.0
"""What the tests of the package share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see none of the settings of whoever runs them."""
    for name in [
        name for name in os.environ if name.startswith("QR_") and name != "QR_TINY_MODEL_DIR"
    ]:
        monkeypatch.delenv(name)
