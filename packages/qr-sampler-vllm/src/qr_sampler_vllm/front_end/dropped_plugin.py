# SPDX-License-Identifier: Apache-2.0
"""Makes Model Runner V1 refuse to start an engine rather than silently drop the plugin.

Under speculative decoding Model Runner V1 silently leaves out installed logits processors. One
function of vLLM decides that, in the process that runs the model, and nothing else in that process
learns of it: hence this function is wrapped. If a version of vLLM has no function of that name,
the front end still refuses the first request.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Final

from qr_sampler import ConfigError
from qr_sampler_vllm.tsd.opt_in import check_opt_in, opted_in

__all__ = ["REMEDY", "check_speculation", "guard_model_runner_v1"]

REMEDY: Final = (
    "remove speculative_config, or use Model Runner V2 (VLLM_USE_V2_MODEL_RUNNER=1), or uninstall "
    "qr-sampler-vllm to have vLLM choose the tokens"
)

_FUNCTION: Final = "build_logitsprocs"


def guard_model_runner_v1() -> None:
    """Wraps the function in which Model Runner V1 drops the plugin, once per process."""
    try:
        from vllm.v1.sample import logits_processor
    except ImportError:
        return
    build = getattr(logits_processor, _FUNCTION, None)
    if build is None or hasattr(build, "qr_sampler_guard"):
        return

    @wraps(build)
    def build_or_refuse(vllm_config: Any, *arguments: Any, **options: Any) -> Any:
        if getattr(vllm_config.model_config, "runner_type", None) != "pooling":
            check_speculation(vllm_config)
        return build(vllm_config, *arguments, **options)

    build_or_refuse.qr_sampler_guard = True  # type: ignore[attr-defined]
    setattr(logits_processor, _FUNCTION, build_or_refuse)


def check_speculation(vllm_config: Any) -> None:
    """Refuses speculative decoding under Model Runner V1 unless the TSD worker verifies drafts.

    Args:
        vllm_config: vLLM's ``VllmConfig`` of an engine under Model Runner V1.

    Raises:
        ConfigError: With the reason and the remedy.
    """
    if opted_in(vllm_config):
        check_opt_in(vllm_config)
    elif vllm_config.speculative_config is not None:
        raise ConfigError(
            "speculative decoding is configured, and Model Runner V1 drops logits processors "
            f"silently then, so no token would be chosen by your entropy source; {REMEDY}"
        )
