# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of whole engines share: an engine inside of its own process, on the CPU."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ENVIRONMENT", "OPTIONS"]

ENVIRONMENT: Final = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "QR_ENTROPY_SOURCE_TYPE": "system",
}
"""Variables of the process."""

OPTIONS: Final[dict[str, Any]] = {
    "distributed_executor_backend": "uni",
    "enforce_eager": True,
    "dtype": "float32",
    "enable_prefix_caching": False,
}
"""Options of vLLM's ``LLM``."""
