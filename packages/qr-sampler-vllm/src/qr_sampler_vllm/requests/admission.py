# SPDX-License-Identifier: Apache-2.0
"""Admission: requests are checked before they reach the engine, where it would be too late."""

from __future__ import annotations

from typing import Any

from qr_sampler import (
    END_REQUEST,
    ConfigError,
    EngineFields,
    RequestOptions,
    Settings,
    resolve_request,
)
from qr_sampler_vllm.requests.penalties import check_penalties

__all__ = ["check_request", "fields_of", "resolve"]


def resolve(settings: Settings, sampling_params: Any) -> RequestOptions:
    """Returns the options of a request.

    Args:
        settings: The deployment's settings.
        sampling_params: vLLM's ``SamplingParams``.

    Raises:
        ConfigError: Naming the key, its value and the remedy.
    """
    return resolve_request(settings, sampling_params.extra_args, fields_of(sampling_params))


def fields_of(sampling_params: Any) -> EngineFields:
    """Returns the ordinary fields of vLLM's ``SamplingParams``."""
    return EngineFields(
        temperature=sampling_params.temperature,
        top_p=sampling_params.top_p,
        top_k=sampling_params.top_k,
        min_p=sampling_params.min_p,
    )


def check_request(settings: Settings, sampling_params: Any) -> None:
    """Refuses a request that cannot be served as asked.

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
            "ignore_eos=True: the operator ends requests when no entropy is available "
            "(QR_FALLBACK_MODE=end_request), which needs a token that ends this one; name one in "
            "stop_token_ids"
        )


def _cannot_be_ended(sampling_params: Any) -> bool:
    return bool(sampling_params.ignore_eos) and not sampling_params.stop_token_ids
