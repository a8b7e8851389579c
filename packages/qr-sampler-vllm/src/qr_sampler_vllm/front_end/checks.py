# SPDX-License-Identifier: Apache-2.0
"""Ensures, in vLLM's front end, that its engines really sample with the plugin.

If vLLM dropped the plugin, it would choose the tokens itself, and nobody would notice.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

from qr_sampler import ConfigError
from qr_sampler_vllm.engine.layout import check_layout
from qr_sampler_vllm.front_end.dropped_plugin import (
    REMEDY,
    check_speculation,
    guard_model_runner_v1,
)
from qr_sampler_vllm.front_end.shared_settings import share_env_file
from qr_sampler_vllm.front_end.unsampled_answers import refuse_unsampled_answers
from qr_sampler_vllm.status.run_directory import (
    VARIABLE,
    announced,
    make_run_directory,
    published,
    run_directory,
)
from qr_sampler_vllm.tsd.opt_in import opted_in

__all__ = ["check_engines", "check_front_end", "prepare"]

logger = logging.getLogger("vllm.qr_sampler")

_RAY_EXECUTORS: Final = (
    "vllm.v1.executor.ray_executor",
    "vllm.v1.executor.ray_distributed_executor",
)
"""Prefixes of the names of modules that vLLM imports only to run an engine on Ray."""

_engines_known = False
_elsewhere = False


def prepare() -> None:
    """Prepares this process. vLLM calls this in each of its processes, in the front end first."""
    make_run_directory()
    share_env_file()
    guard_model_runner_v1()
    refuse_unsampled_answers(load=False)


def check_front_end(vllm_config: Any) -> None:
    """Refuses an engine that would not load the plugin, or that the plugin would refuse.

    Args:
        vllm_config: vLLM's ``VllmConfig``, as the front end has it.

    Raises:
        ConfigError: With the reason and the remedy.
    """
    global _elsewhere
    check_layout(vllm_config)
    # A server imports its modules after its plugins.
    refuse_unsampled_answers(load=True)
    if opted_in(vllm_config) or not getattr(vllm_config, "use_v2_model_runner", False):
        check_speculation(vllm_config)
    _elsewhere = _has_engines_elsewhere(vllm_config.parallel_config)


def check_engines() -> None:
    """Refuses requests until an engine of this front end has loaded the plugin.

    Raises:
        ConfigError: With the reason and the remedy.
    """
    global _engines_known
    if _engines_known:
        return
    _engines_known = bool(announced() or published())
    if _engines_known:
        return
    if run_directory() is not None and not _elsewhere and not _on_ray():
        raise ConfigError(
            "qr-sampler-vllm is installed, but the engine has not loaded it, so no token would be "
            "chosen by your entropy source: vLLM drops logits processors silently, for instance "
            f"when Model Runner V1 is to decode speculatively; {REMEDY}"
        )
    _engines_known = True
    logger.warning(
        "the front end cannot see whether the engines have loaded qr-sampler; check their "
        "start-up messages and ledgers%s",
        "" if VARIABLE in os.environ else ", and name qr_sampler in VLLM_PLUGINS if that is set",
    )


def _has_engines_elsewhere(parallel_config: Any) -> bool:
    """Returns whether engines may run on other hosts, where this process cannot see them."""
    return (
        getattr(parallel_config, "nnodes", 1) > 1
        or getattr(parallel_config, "distributed_executor_backend", None) == "ray"
        or getattr(parallel_config, "data_parallel_size_local", 1) == 0
    )


def _on_ray() -> bool:
    """Returns whether the workers may belong to a Ray cluster older than this process.

    Offline the plugin does not get to see the configuration of the engine.
    """
    return any(name.startswith(_RAY_EXECUTORS) for name in list(sys.modules))
