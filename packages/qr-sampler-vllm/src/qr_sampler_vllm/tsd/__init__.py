# SPDX-License-Identifier: Apache-2.0
"""Thermodynamic speculative decoding inside vLLM, for those who opt in.

Two options of vLLM switch it on, both or none: ``worker_cls`` names a class of
:mod:`qr_sampler_vllm.tsd.worker`, and ``speculative_config`` with the method ``custom_class`` names
:class:`qr_sampler_vllm.tsd.drafter.TSDDrafter`. It needs the extra ``tsd``. Nothing of this package
but :mod:`qr_sampler_vllm.tsd.opt_in`, which knows the names, is imported without them.
"""

from __future__ import annotations

__all__: list[str] = []
