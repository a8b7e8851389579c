# SPDX-License-Identifier: Apache-2.0
"""The class that vLLM loads. Importing it touches no device, no network and no entropy source."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qr_sampler import Settings
from qr_sampler_vllm.engine.interfaces import (
    BatchUpdateLike,
    LogitsContextLike,
    V1Interface,
    V2Interface,
)
from qr_sampler_vllm.engine.layout import samples_here, tensor_parallel_group
from qr_sampler_vllm.front_end.checks import check_engines
from qr_sampler_vllm.front_end.shared_settings import agreed_settings
from qr_sampler_vllm.requests.admission import check_request
from qr_sampler_vllm.runners.engines import check_not_loaded, register
from qr_sampler_vllm.runners.follower import Follower
from qr_sampler_vllm.runners.role import EngineRole
from qr_sampler_vllm.runners.v1 import RunnerV1
from qr_sampler_vllm.runners.v2 import RunnerV2
from qr_sampler_vllm.status.run_directory import announce

__all__ = ["QRSamplerLogitsProcessor"]


class QRSamplerLogitsProcessor(V1Interface, V2Interface):
    """Forces the token that the entropy source selects, under either model runner of vLLM.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        *runner_arguments: ``(device, is_pin_memory)`` from Model Runner V1, ``(req_states,)`` from
            Model Runner V2.

    Raises:
        ConfigError: When the engine's layout or a setting is not supported, or when the plugin is
            loaded twice.
        PluginError: When the configured source or its fallback is unknown, contested or broken.
    """

    def __init__(self, vllm_config: Any, *runner_arguments: Any) -> None:
        self._role = _role(vllm_config, runner_arguments)
        if isinstance(self._role, (RunnerV1, RunnerV2)):
            register(vllm_config, self._role, self)
        announce(Settings.load().model_dump(mode="json"))

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Accepts or refuses the ``qr_*`` keys of a request before it reaches the engine.

        Raises:
            ConfigError: A ``ValueError`` that names the key, its value and the remedy; vLLM answers
                the request with HTTP 400.
        """
        check_engines()
        check_request(_settings(), sampling_params)

    def is_argmax_invariant(self) -> bool:
        """Returns False: the forced token is usually not the most probable one."""
        return False

    def update_state(self, batch_update: BatchUpdateLike | None) -> None:
        """Applies the batch changes of Model Runner V1."""
        self._role.update_state(batch_update)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Assigns a slot of Model Runner V2; returns whether its logits will be modified."""
        return self._role.add_request(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        """Reads what Model Runner V2 has written about new requests."""
        self._role.apply_staged_writes()

    def apply(self, logits: Any, ctx: LogitsContextLike | None = None) -> Any:
        """Forces one token per row of *logits*, in place, and returns it.

        Args:
            logits: Tensor of shape ``(R, V)``.
            ctx: The layout of the step, from Model Runner V2 only.
        """
        return self._role.apply(logits, ctx)


def _role(vllm_config: Any, runner_arguments: tuple[Any, ...]) -> EngineRole:
    """Returns what this process does for its engine.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        runner_arguments: What the model runner passes besides: two arguments are Model Runner V1,
            one is V2.
    """
    if not samples_here(vllm_config):
        return EngineRole()
    ranks = tensor_parallel_group(vllm_config)
    if ranks is not None and not ranks.leads:
        return Follower(ranks)
    check_not_loaded(vllm_config)
    if len(runner_arguments) == 1:
        return RunnerV2(vllm_config, runner_arguments[0], ranks)
    return RunnerV1(vllm_config, ranks)


@lru_cache(maxsize=1)
def _settings() -> Settings:
    return agreed_settings()
