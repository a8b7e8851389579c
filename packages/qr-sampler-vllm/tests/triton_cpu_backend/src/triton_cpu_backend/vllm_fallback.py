# SPDX-License-Identifier: Apache-2.0
"""vLLM's own fallback for the one kernel that Triton's interpreter cannot run."""

from __future__ import annotations

import os


def use_torch_truncation() -> None:
    """Make vLLM apply top-k and top-p with torch in this process.

    The fused kernel calls a tensor method on a loop index, which is a plain ``int`` when it is
    interpreted. vLLM keeps a torch implementation for machines without Triton; this selects it.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    from vllm.v1.sample.ops import topk_topp_sampler

    topk_topp_sampler.HAS_TRITON = False
