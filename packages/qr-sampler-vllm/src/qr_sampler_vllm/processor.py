# SPDX-License-Identifier: Apache-2.0
"""The class that vLLM loads. Importing it touches no device, no network and no entropy source."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qr_sampler import Settings, resolve_request
from qr_sampler_vllm.interfaces import (
    BatchUpdateLike,
    LogitsContextLike,
    V1Interface,
    V2Interface,
)
from qr_sampler_vllm.runner_v1 import RunnerV1
from qr_sampler_vllm.runner_v2 import RunnerV2

__all__ = ["QRSamplerLogitsProcessor"]


class QRSamplerLogitsProcessor(V1Interface, V2Interface):
    """Forces the token that the entropy source selects, under either model runner of vLLM.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        *runner_arguments: ``(device, is_pin_memory)`` from Model Runner V1, ``(req_states,)`` from
            Model Runner V2.

    Raises:
        ConfigError: When the engine's layout or a setting cannot be served, or when the plugin is
            loaded twice.
        PluginError: When the configured source or its fallback is unknown, contested or broken.
    """

    def __init__(self, vllm_config: Any, *runner_arguments: Any) -> None:
        self._v1: RunnerV1 | None = None
        self._v2: RunnerV2 | None = None
        if len(runner_arguments) == 1:
            self._v2 = RunnerV2(vllm_config, runner_arguments[0])
        else:
            self._v1 = RunnerV1(vllm_config)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Accepts or refuses the ``qr_*`` keys of a request before it reaches the engine.

        Raises:
            ConfigError: A ``ValueError`` that names the key, its value and the remedy; vLLM answers
                the request with HTTP 400.
        """
        resolve_request(_settings(), sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """Returns False: the forced token is usually not the most probable one."""
        return False

    def update_state(self, batch_update: BatchUpdateLike | None) -> None:
        """Follows the batch of Model Runner V1."""
        if self._v1 is not None:
            self._v1.update_state(batch_update)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Takes a slot of Model Runner V2; returns whether its logits will be modified."""
        return self._v2 is not None and self._v2.add_request(req_idx, sampling_params)

    def apply(self, logits: Any, ctx: LogitsContextLike | None = None) -> Any:
        """Forces one token per row of *logits*, in place, and returns it.

        Args:
            logits: Tensor of shape ``(R, V)``.
            ctx: The layout of the step, from Model Runner V2 only.
        """
        if self._v2 is not None and ctx is not None:
            return self._v2.apply(logits, ctx)
        return self._v1.apply(logits) if self._v1 is not None else logits


@lru_cache(maxsize=1)
def _settings() -> Settings:
    return Settings.load()
