# SPDX-License-Identifier: Apache-2.0
"""Thermodynamic speculative decoding inside vLLM, for those who opt in.

Two options of vLLM switch it on, both or none: ``worker_cls`` names a class of
:mod:`qr_sampler_vllm.tsd.worker`, and ``speculative_config`` with the method ``custom_class`` names
:class:`qr_sampler_vllm.tsd.drafter.TSDDrafter`. It needs the extra ``tsd``. Without
the two options nothing of this package is imported but :mod:`qr_sampler_vllm.tsd.opt_in`, which
holds the names.
"""

from __future__ import annotations

__all__: list[str] = []
