# SPDX-License-Identifier: Apache-2.0
"""Which engine layouts are served, and why the others are refused at start-up."""

from __future__ import annotations

from typing import Any

from qr_sampler import ConfigError

__all__ = ["check_layout"]


def check_layout(vllm_config: Any) -> None:
    """Refuses an engine whose layout would make tokens or records wrong.

    Args:
        vllm_config: vLLM's ``VllmConfig``.

    Raises:
        ConfigError: Naming the option, why it cannot be served and what to do.
    """
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    ranks = parallel.tensor_parallel_size
    if ranks > 1:
        raise ConfigError(
            f"tensor_parallel_size={ranks}: every rank samples for itself, so each would draw its "
            "own entropy and force a different token; use tensor_parallel_size=1, or pipeline or "
            "data parallelism"
        )
    if vllm_config.speculative_config is not None:
        raise ConfigError(
            "speculative decoding is configured: draft tokens that are rejected would be recorded "
            "as emitted; remove speculative_config"
        )
    if getattr(parallel, "enable_batch_sharded_sampling", None):
        raise ConfigError(
            "enable_batch_sharded_sampling gives every rank other rows, so no rank could record "
            "them all; switch it off"
        )
    if getattr(model, "enable_trace_replay", False):
        raise ConfigError(
            "enable_trace_replay overwrites sampled tokens after they were recorded; switch it off"
        )
    if getattr(vllm_config, "watermark_config", None) is not None:
        raise ConfigError(
            "watermark_config changes the choice of tokens behind the entropy source's back; "
            "remove it"
        )
