# SPDX-License-Identifier: Apache-2.0
"""What is asked of a request before it reaches the engine, where nothing may fail any more."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qr_sampler import END_REQUEST, ConfigError, EngineFields, RequestOptions, Settings
from qr_sampler import resolve_request as resolve_extra_args
from qr_sampler_vllm.penalties import check_penalties

__all__ = ["check_request", "is_warm_up", "resolve"]


def resolve(settings: Settings, sampling_params: Any) -> RequestOptions:
    """Returns what a request asked for.

    Args:
        settings: The deployment's settings.
        sampling_params: vLLM's ``SamplingParams``.

    Raises:
        ConfigError: Naming the key, its value and the remedy.
    """
    fields = EngineFields(
        temperature=sampling_params.temperature,
        top_p=sampling_params.top_p,
        top_k=sampling_params.top_k,
        min_p=sampling_params.min_p,
    )
    return resolve_extra_args(settings, sampling_params.extra_args, fields)


def check_request(settings: Settings, sampling_params: Any) -> None:
    """Refuses a request that could not be served as it asks.

    Raises:
        ConfigError: Naming the field, its value and the remedy.
    """
    options = resolve(settings, sampling_params)
    if options.left_to_engine:
        return
    budget = getattr(sampling_params, "thinking_token_budget", None)
    if budget is not None:
        raise ConfigError(
            f"thinking_token_budget={budget}: vLLM would overwrite chosen tokens when the budget "
            "is spent; leave it out, or pass qr_bypass=1 to have vLLM choose every token"
        )
    check_penalties(sampling_params)
    if settings.fallback_mode == END_REQUEST and _cannot_be_ended(sampling_params):
        raise ConfigError(
            "ignore_eos=True: the operator ends requests for which no entropy can be had "
            "(QR_FALLBACK_MODE=end_request), which takes a token that ends this one; name one in "
            "stop_token_ids"
        )


def is_warm_up(sampling_params: Any) -> bool:
    """Whether a request is one that vLLM warms its kernels up with, on made-up logits."""
    # An array among the fields cannot be compared; no warm-up has one.
    if getattr(sampling_params, "prompt_logprob_token_ids", None) is not None:
        return False
    # What clients send differs at least in the end-of-text token, which the front end fills in.
    return any(sampling_params == warm_up for warm_up in _warm_up_params())


@lru_cache(maxsize=1)
def _warm_up_params() -> tuple[Any, ...]:
    from vllm import SamplingParams

    make = getattr(SamplingParams, "for_sampler_warmup", None)
    of_attention = SamplingParams(max_tokens=2, temperature=0.0)
    if hasattr(of_attention, "watermarking"):
        of_attention.watermarking = False
    return (of_attention,) if make is None else (make(), of_attention)


def _cannot_be_ended(sampling_params: Any) -> bool:
    return bool(sampling_params.ignore_eos) and not sampling_params.stop_token_ids
