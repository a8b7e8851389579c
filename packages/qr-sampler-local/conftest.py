# SPDX-License-Identifier: Apache-2.0
"""Docstrings are tested with what is installed: adapters only beside their engines."""

from __future__ import annotations

from importlib.util import find_spec

ADAPTERS = {"torch": "transformers", "mlx_lm": "mlx"}
"""What an adapter imports, by module, and its folder."""

MISSING = {name: folder for name, folder in ADAPTERS.items() if find_spec(name) is None}

collect_ignore_glob = [f"src/qr_sampler_local/{folder}/*" for folder in MISSING.values()]


def pytest_report_header() -> str | None:
    """Names what is left out."""
    if not MISSING:
        return None
    return f"qr-sampler-local: {', '.join(MISSING)} not installed, left out: {collect_ignore_glob}"
