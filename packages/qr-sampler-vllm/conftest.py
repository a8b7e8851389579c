# SPDX-License-Identifier: Apache-2.0
"""Leaves out, visibly, the examples of modules that import what only vLLM brings."""

from __future__ import annotations

from importlib.util import find_spec

NEEDS_VLLM = [
    "src/qr_sampler_vllm/status/prometheus.py",
    "src/qr_sampler_vllm/front_end/stat_logger.py",
    "src/qr_sampler_vllm/tsd/samplers.py",
    "src/qr_sampler_vllm/tsd/speculator.py",
]

collect_ignore_glob = [] if find_spec("vllm") else NEEDS_VLLM


def pytest_report_header() -> str:
    """Says which examples are not looked for."""
    if not collect_ignore_glob:
        return "qr-sampler-vllm: nothing is left out"
    return f"qr-sampler-vllm: vLLM is not installed, left out: {', '.join(NEEDS_VLLM)}"
