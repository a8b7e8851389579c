# SPDX-License-Identifier: Apache-2.0
"""Sampling for llama.cpp through llama-cpp-python.

:class:`LlamaCppSampler` takes the place of the sampler of one ``Llama``, so that its completions,
conversations and streams stay as they are.
"""

from __future__ import annotations

from qr_sampler_local.llama_cpp.request import SamplingRequest
from qr_sampler_local.llama_cpp.sampler import LlamaCppSampler

__all__ = ["LlamaCppSampler", "SamplingRequest"]
