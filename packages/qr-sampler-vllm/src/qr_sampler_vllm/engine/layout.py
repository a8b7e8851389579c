# SPDX-License-Identifier: Apache-2.0
"""The layout of an engine: which layouts are refused at start-up, and which process samples."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from typing import Any, Final

from qr_sampler import ConfigError
from qr_sampler_vllm.engine.tensor_parallel import TensorParallelGroup

__all__ = [
    "Ranks",
    "check_layout",
    "most_rows",
    "ranks_of",
    "samples_here",
    "settles_at_once",
    "steps_in_flight",
    "tensor_parallel_group",
]

_EXACT_METHODS: Final = ("standard", "block")
"""Methods of vLLM that accept a draft exactly where all mass of the target is on it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """How many processes make up an engine, and which engine it is."""

    tensor_parallel_size: int
    """Number of ranks that hold a slice of every layer."""
    pipeline_parallel_size: int
    """Number of stages that hold a part of the layers."""
    data_parallel_rank: int
    """Index of this engine among data-parallel ones, from 0. Their number is unknown: each engine
    of a dense model is configured as if it were alone."""


def ranks_of(vllm_config: Any) -> Ranks:
    """Returns the ranks of the engine that *vllm_config* describes."""
    parallel = vllm_config.parallel_config
    return Ranks(
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        data_parallel_rank=getattr(parallel, "data_parallel_index", parallel.data_parallel_rank),
    )


def most_rows(vllm_config: Any) -> int:
    """Returns the largest number of rows of logits in one step."""
    drafts = getattr(vllm_config.speculative_config, "num_speculative_tokens", None) or 0
    return int(vllm_config.scheduler_config.max_num_seqs) * (1 + drafts)


def samples_here(vllm_config: Any) -> bool:
    """Returns whether this process samples: under pipeline parallelism only the last stage does."""
    if vllm_config.parallel_config.pipeline_parallel_size == 1:
        return True
    from vllm.distributed import get_pp_group

    return bool(get_pp_group().is_last_rank)


def settles_at_once(vllm_config: Any) -> bool:
    """Returns whether every sampled token is emitted.

    Otherwise a request can be aborted while its token is in flight: when the engine runs in another
    process than its caller, or has several steps in flight.
    """
    return (
        not vllm_config.scheduler_config.async_scheduling
        and vllm_config.parallel_config.pipeline_parallel_size == 1
        and os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
        and multiprocessing.parent_process() is None
    )


def steps_in_flight(vllm_config: Any) -> int:
    """Returns how many steps of a sequence vLLM may begin before it processes the tokens of one.

    With asynchronous scheduling the second begins before the tokens of the first are known, and an
    abort can come in between. The stages of a pipeline work on different sequences at any time.
    """
    return 2 if vllm_config.scheduler_config.async_scheduling else 1


def tensor_parallel_group(vllm_config: Any) -> TensorParallelGroup | None:
    """Returns the ranks that sample the same rows, or ``None`` if there is only one."""
    if vllm_config.parallel_config.tensor_parallel_size == 1:
        return None
    from vllm.distributed import get_tp_group

    return TensorParallelGroup(get_tp_group())


def check_layout(vllm_config: Any) -> None:
    """Refuses an engine whose layout would make tokens or records wrong.

    Args:
        vllm_config: vLLM's ``VllmConfig``.

    Raises:
        ConfigError: Naming the option, why it cannot be served and what to do.
    """
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    if getattr(parallel, "enable_batch_sharded_sampling", None):
        raise ConfigError(
            "enable_batch_sharded_sampling gives every rank different rows, so no rank could "
            "record them all; switch it off"
        )
    if getattr(model, "enable_trace_replay", False):
        raise ConfigError(
            "enable_trace_replay overwrites sampled tokens after they were recorded; switch it off"
        )
    if getattr(vllm_config, "watermark_config", None) is not None:
        raise ConfigError(
            "watermark_config changes the choice of tokens, bypassing the entropy source; remove it"
        )
    if getattr(model, "is_diffusion", False):
        raise ConfigError(
            "a diffusion model samples without logits processors, so no token would be chosen by "
            "your entropy source; serve another model, or uninstall qr-sampler-vllm"
        )
    if vllm_config.speculative_config is not None:
        _check_speculation(vllm_config.speculative_config)


def _check_speculation(speculative_config: Any) -> None:
    method = getattr(speculative_config, "rejection_sample_method", "standard")
    if method not in _EXACT_METHODS:
        raise ConfigError(
            f"rejection_sample_method={method!r}: not known to accept a draft only where it is "
            "what the entropy source chose ('synthetic' and 'fly' accept others); use "
            "'standard' or 'block'"
        )
    if getattr(speculative_config, "enable_adaptive_verification", False):
        raise ConfigError(
            "enable_adaptive_verification drops draft rows on the device, which no record could "
            "reflect; switch it off"
        )
