# SPDX-License-Identifier: Apache-2.0
"""What the front end of vLLM makes sure of: that its engines really sample with the plugin.

Where vLLM drops the plugin, the tokens would be vLLM's own, and nobody would notice.
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
"""Modules, or the beginning of their names, that vLLM imports only to run an engine on Ray."""

_engines_known = False
_elsewhere = False


def prepare() -> None:
    """Gets this process ready. vLLM calls this in every one of its own, in the front end first."""
    make_run_directory()
    share_env_file()
    guard_model_runner_v1()
    refuse_unsampled_answers(load=False)


def check_front_end(vllm_config: Any) -> None:
    """Refuses an engine that would not load the plugin, or that the plugin would refuse.

    Args:
        vllm_config: vLLM's ``VllmConfig``, as the front end has it.

    Raises:
        ConfigError: Saying why and what to do.
    """
    global _elsewhere
    check_layout(vllm_config)
    # The modules of a server are imported after the plugins have been.
    refuse_unsampled_answers(load=True)
    if opted_in(vllm_config) or not getattr(vllm_config, "use_v2_model_runner", False):
        check_speculation(vllm_config)
    _elsewhere = _has_engines_elsewhere(vllm_config.parallel_config)


def check_engines() -> None:
    """Refuses a request as long as no engine of this front end has loaded the plugin.

    Raises:
        ConfigError: Saying why and what to do.
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
        "it cannot be seen from here whether the engines have loaded qr-sampler; look for their "
        "start-up message and for their ledgers%s",
        "" if VARIABLE in os.environ else ", and name qr_sampler in VLLM_PLUGINS if that is set",
    )


def _has_engines_elsewhere(parallel_config: Any) -> bool:
    """Returns whether engines may be on other hosts, where they cannot be seen from here."""
    return (
        getattr(parallel_config, "nnodes", 1) > 1
        or getattr(parallel_config, "distributed_executor_backend", None) == "ray"
        or getattr(parallel_config, "data_parallel_size_local", 1) == 0
    )


def _on_ray() -> bool:
    """Returns whether the workers may belong to a Ray cluster that was there before this process.

    Offline nobody shows the plugin the configuration of the engine.
    """
    return any(name.startswith(_RAY_EXECUTORS) for name in list(sys.modules))
