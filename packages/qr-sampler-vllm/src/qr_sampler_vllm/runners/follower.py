# SPDX-License-Identifier: Apache-2.0
"""The tensor-parallel ranks that follow the choice of the first."""

from __future__ import annotations

from typing import Any

from qr_sampler import ConfigError, Settings
from qr_sampler_vllm.engine.interfaces import LogitsContextLike
from qr_sampler_vllm.engine.tensor_parallel import TensorParallelGroup
from qr_sampler_vllm.requests.admission import resolve
from qr_sampler_vllm.requests.made_up_requests import is_warming_up
from qr_sampler_vllm.runners.role import EngineRole

__all__ = ["Follower"]


class Follower(EngineRole):
    """A tensor-parallel rank other than the first: forces what the first has chosen.

    It touches no entropy source and writes no records.

    Args:
        ranks: The ranks that have to force the same tokens.
    """

    def __init__(self, ranks: TensorParallelGroup) -> None:
        self._ranks = ranks
        self._settings = Settings.load()

    def add_request(self, slot: int, sampling_params: Any) -> bool:
        """Returns whether logits will be modified; must agree with the first rank."""
        if is_warming_up():
            return False
        try:
            return not resolve(self._settings, sampling_params).left_to_engine
        except ConfigError:
            # The first rank reports it and ends the request.
            return True

    def apply(self, logits: Any, context: LogitsContextLike | None = None) -> Any:
        """Forces in every row the token that the first rank has forced there."""
        self._ranks.hear(logits)
        return logits
