# SPDX-License-Identifier: Apache-2.0
"""What the front end of vLLM makes sure of: that its engines really sample with the plugin.

Model Runner V1 drops installed logits processors silently when speculative decoding is configured.
The tokens would then be vLLM's own, and nobody would notice.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from qr_sampler import ConfigError
from qr_sampler_vllm.layout import check_layout
from qr_sampler_vllm.run_directory import make_run_directory, published, run_directory

__all__ = ["check_engines", "check_front_end", "prepare"]

logger = logging.getLogger("vllm.qr_sampler")

REMEDY: Final = (
    "remove speculative_config, or use Model Runner V2 (VLLM_USE_V2_MODEL_RUNNER=1), or uninstall "
    "qr-sampler-vllm to have vLLM choose the tokens"
)

_engines_known = False
_elsewhere = False


def prepare() -> None:
    """Makes the run directory. vLLM calls this in every process, in the front end first."""
    make_run_directory()


def check_front_end(vllm_config: Any) -> None:
    """Refuses an engine that would not load the plugin, or that the plugin would refuse.

    Args:
        vllm_config: vLLM's ``VllmConfig``, as the front end has it.

    Raises:
        ConfigError: Saying why and what to do.
    """
    global _elsewhere
    check_layout(vllm_config)
    speculates = vllm_config.speculative_config is not None
    if speculates and not getattr(vllm_config, "use_v2_model_runner", False):
        raise ConfigError(
            "speculative decoding is configured, and Model Runner V1 drops logits processors "
            f"silently then, so no token would be chosen by your entropy source; {REMEDY}"
        )
    _elsewhere = _has_engines_elsewhere(vllm_config.parallel_config)


def check_engines() -> None:
    """Refuses a request as long as no engine of this front end has loaded the plugin.

    Raises:
        ConfigError: Saying why and what to do.
    """
    global _engines_known
    if _engines_known:
        return
    _engines_known = run_directory() is None or _elsewhere or bool(published())
    if not _engines_known:
        raise ConfigError(
            "qr-sampler-vllm is installed, but the engine has not loaded it, so no token would be "
            "chosen by your entropy source: vLLM drops logits processors silently, for instance "
            f"when Model Runner V1 is to decode speculatively; {REMEDY}"
        )
    if not published():
        logger.warning(
            "it cannot be seen from here whether the engines have loaded qr-sampler; look for "
            "their start-up message and for their ledgers"
        )


def _has_engines_elsewhere(parallel_config: Any) -> bool:
    """Returns whether engines may be on other hosts, where they cannot be seen from here."""
    return (
        getattr(parallel_config, "nnodes", 1) > 1
        or getattr(parallel_config, "distributed_executor_backend", None) == "ray"
        or getattr(parallel_config, "data_parallel_size_local", 1) == 0
    )
