# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what vLLM hands to the plugin, for tests that do without vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

__all__ = ["engine_config", "sampling_params"]

OPTIONS: Final = frozenset(
    {
        "enable_batch_sharded_sampling",
        "enable_trace_replay",
        "is_diffusion",
        "speculative_config",
        "watermark_config",
    }
)
"""What :func:`engine_config` takes beside its named arguments."""


def engine_config(
    *,
    max_num_seqs: int = 4,
    max_model_len: int = 64,
    vocab_size: int = 32_000,
    async_scheduling: bool = False,
    data_parallel_rank: int = 0,
    **options: Any,
) -> SimpleNamespace:
    """Returns what is read of a ``VllmConfig``: an engine on the CPU without parallelism.

    Args:
        max_num_seqs: Largest number of sequences in a step.
        max_model_len: Largest number of tokens of a sequence, the prompt included.
        vocab_size: Number of tokens that its model has.
        async_scheduling: Whether its steps overlap.
        data_parallel_rank: Which of several data-parallel engines it is.
        **options: Options that vLLM has switched off, such as ``speculative_config``.

    Raises:
        TypeError: When there is no such option.
    """
    if unknown := options.keys() - OPTIONS:
        raise TypeError(f"unknown options {sorted(unknown)}; choose from {sorted(OPTIONS)}")
    parallel_config = SimpleNamespace(
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        data_parallel_rank=data_parallel_rank,
        enable_batch_sharded_sampling=options.pop("enable_batch_sharded_sampling", None),
    )
    model_config = SimpleNamespace(
        model="tiny",
        max_model_len=max_model_len,
        get_vocab_size=lambda: vocab_size,
        enable_trace_replay=options.pop("enable_trace_replay", False),
        is_diffusion=options.pop("is_diffusion", False),
    )
    scheduler_config = SimpleNamespace(max_num_seqs=max_num_seqs, async_scheduling=async_scheduling)
    return SimpleNamespace(
        device_config=SimpleNamespace(device_type="cpu"),
        parallel_config=parallel_config,
        model_config=model_config,
        scheduler_config=scheduler_config,
        **{"speculative_config": None, "watermark_config": None, **options},
    )


def sampling_params(**changes: Any) -> SimpleNamespace:
    """Returns what is read of ``SamplingParams``: an ordinary request, but for *changes*."""
    ordinary = SimpleNamespace(
        extra_args=None,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        repetition_penalty=1.0,
        frequency_penalty=0.0,
        presence_penalty=0.0,
        ignore_eos=False,
        stop=(),
        stop_token_ids=(),
        eos_token_id=None,
        max_tokens=50,
        min_tokens=0,
    )
    vars(ordinary).update(changes)
    return ordinary
