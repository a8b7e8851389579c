# SPDX-License-Identifier: Apache-2.0
"""qr-sampler for vLLM: every token that vLLM emits is chosen by an external entropy source.

vLLM finds the plugin through its entry point; nothing has to be imported by hand.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from qr_sampler_vllm.runners.engines import end_records, flush_records

__version__ = _version("qr-sampler-vllm")

__all__ = ["end_records", "flush_records"]
