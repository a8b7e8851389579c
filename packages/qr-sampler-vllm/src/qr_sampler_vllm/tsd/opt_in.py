# SPDX-License-Identifier: Apache-2.0
"""The opt-in to TSD, and the engines that cannot be served with it."""

from __future__ import annotations

from typing import Any, Final

from qr_sampler import ConfigError

__all__ = [
    "DRAFTER",
    "STAND_INS",
    "WORKERS",
    "check_opt_in",
    "has_drafter",
    "has_worker",
    "opted_in",
    "uses_v2",
]

DRAFTER: Final = "qr_sampler_vllm.tsd.drafter.TSDDrafter"
"""What ``speculative_config`` names as ``model``."""

WORKERS: Final = (
    "qr_sampler_vllm.tsd.worker.TSDWorker",
    "qr_sampler_vllm.tsd.worker.TSDCPUWorker",
)
"""What ``worker_cls`` names: one of them on an accelerator, the other without."""


STAND_INS: Final = ("ngram", "ngram_gpu")
"""Methods of vLLM's own whose speculator is replaced under Model Runner V2."""


def uses_v2(vllm_config: Any) -> bool:
    """Returns whether an engine runs Model Runner V2."""
    return bool(getattr(vllm_config, "use_v2_model_runner", False))


def has_worker(vllm_config: Any) -> bool:
    """Returns whether ``worker_cls`` names one of ours."""
    parallel = getattr(vllm_config, "parallel_config", None)
    return getattr(parallel, "worker_cls", None) in WORKERS


def has_drafter(vllm_config: Any) -> bool:
    """Returns whether ``speculative_config`` names our drafter."""
    speculation = vllm_config.speculative_config
    return (
        getattr(speculation, "method", None) == "custom_class"
        and getattr(speculation, "model", None) == DRAFTER
    )


def opted_in(vllm_config: Any) -> bool:
    """Returns whether an engine has either of the two and so needs :func:`check_opt_in`."""
    return has_worker(vllm_config) or has_drafter(vllm_config)


def check_opt_in(vllm_config: Any) -> None:
    """Refuses an engine that could not be served correctly.

    Args:
        vllm_config: vLLM's ``VllmConfig`` of an engine that has :func:`opted_in`.

    Raises:
        ConfigError: With the reason and the remedy.
    """
    if uses_v2(vllm_config):
        _check_stand_in(vllm_config)
        _check_stages(vllm_config.parallel_config)
        return
    _check_both_halves(vllm_config)
    _check_runner(vllm_config)
    _check_parallelism(vllm_config.parallel_config)
    _check_sampling(vllm_config)


def _check_stand_in(vllm_config: Any) -> None:
    """Refuses what cannot be drafted for under Model Runner V2."""
    if not has_worker(vllm_config) or has_drafter(vllm_config):
        raise ConfigError(
            f"Model Runner V2 takes no drafter of another package ('custom_class' in vLLM's "
            "VllmConfig._get_v2_model_runner_unsupported_features); give speculative_config="
            '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2} with '
            f"worker_cls={WORKERS[0]}, which replaces its speculator, or set "
            "VLLM_USE_V2_MODEL_RUNNER=0"
        )
    method = getattr(vllm_config.speculative_config, "method", None)
    if method not in STAND_INS:
        raise ConfigError(
            f"speculative_config has the method {method!r}: under Model Runner V2 the TSD worker "
            f"takes the place of one of {', '.join(STAND_INS)}; give one of them with "
            "num_speculative_tokens and prompt_lookup_max"
        )
    from qr_sampler_vllm.tsd.settings import TSDSettings

    if TSDSettings.load().mode != "exact_match":
        raise ConfigError(
            "QR_TSD_MODE=canonical replaces vLLM's verification of drafts, which is done for Model "
            "Runner V1 only; set VLLM_USE_V2_MODEL_RUNNER=0, or QR_TSD_MODE=exact_match"
        )


def _check_stages(parallel: Any) -> None:
    size = parallel.pipeline_parallel_size
    if size != 1:
        raise ConfigError(
            f"pipeline_parallel_size={size}: drafts are made by the last stage, which does not "
            "learn of requests as the TSD worker has to; set pipeline_parallel_size=1"
        )


def _check_both_halves(vllm_config: Any) -> None:
    if not has_drafter(vllm_config):
        raise ConfigError(
            f"worker_cls={vllm_config.parallel_config.worker_cls!r} verifies the drafts of "
            f'{DRAFTER}; give speculative_config={{"method": "custom_class", "model": "{DRAFTER}", '
            '"num_speculative_tokens": 3} with it, or leave worker_cls out'
        )
    if not has_worker(vllm_config):
        raise ConfigError(
            f"{DRAFTER} drafts for a worker of qr-sampler, and vLLM's own would choose tokens with "
            f"its own random numbers; set worker_cls to {WORKERS[0]} on an accelerator or to "
            f"{WORKERS[1]} without, or remove speculative_config"
        )


def _check_runner(vllm_config: Any) -> None:
    if vllm_config.scheduler_config.async_scheduling:
        raise ConfigError(
            "async_scheduling=True lets vLLM continue before the tokens of a step are known, and "
            "the TSD worker has to know them; leave it out or set it to False"
        )


def _check_parallelism(parallel: Any) -> None:
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        size = getattr(parallel, name)
        if size != 1:
            raise ConfigError(
                f"{name}={size}: the TSD worker verifies drafts in one process, and others would "
                f"not learn which drafts were accepted; set {name}=1 and use data parallelism"
            )


def _check_sampling(vllm_config: Any) -> None:
    mode = str(getattr(vllm_config.model_config, "logprobs_mode", "raw_logprobs"))
    if mode.startswith("processed"):
        raise ConfigError(
            f"logprobs_mode={mode!r}: the TSD worker samples without vLLM's processed logits; use "
            "'raw_logprobs' or 'raw_logits'"
        )
    method = getattr(vllm_config.speculative_config, "rejection_sample_method", "standard")
    if method != "standard":
        raise ConfigError(
            f"rejection_sample_method={method!r} is vLLM's and the TSD worker has its own; leave "
            "it out, and choose with QR_TSD_MODE and QR_TSD_VERIFIER"
        )
