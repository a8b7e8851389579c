# SPDX-License-Identifier: Apache-2.0
"""A statistics logger for vLLM that logs nothing: vLLM shows it the engine's configuration."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY
from vllm.v1.metrics.loggers import StatLoggerBase

from qr_sampler_vllm.front_end.checks import check_front_end
from qr_sampler_vllm.status.prometheus import EngineCollector

__all__ = ["FrontEndCheck"]

_collectors: list[EngineCollector] = []


class FrontEndCheck(StatLoggerBase):  # type: ignore[misc]
    """Checks an engine before its first request and adds our metrics to vLLM's ``/metrics``.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        engine_index: Which of several engines it is.

    Raises:
        ConfigError: When the engine could not be served correctly; vLLM then does not start.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        if getattr(vllm_config.model_config, "runner_type", None) == "pooling":
            # Such an engine emits no tokens and does not load the plugin, so it has no status.
            return
        check_front_end(vllm_config)
        if not _collectors:
            _collectors.append(EngineCollector())
            REGISTRY.register(_collectors[0])

    def record(self, *arguments: Any, **options: Any) -> None:
        """Does nothing."""

    def log_engine_initialized(self) -> None:
        """Does nothing."""
