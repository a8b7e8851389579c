# SPDX-License-Identifier: Apache-2.0
"""The role of a process in its engine: what it does when vLLM calls it."""

from __future__ import annotations

from typing import Any

from qr_sampler_vllm.engine.interfaces import BatchUpdateLike, LogitsContextLike

__all__ = ["EngineRole"]


class EngineRole:
    """The calls of both model runners, doing nothing.

    As it stands this is the role of a pipeline stage that never samples; other roles override what
    they need.
    """

    def update_state(self, update: BatchUpdateLike | None) -> None:
        """Does nothing."""

    def add_request(self, slot: int, sampling_params: Any) -> bool:
        """Returns False: no logits will be modified."""
        return False

    def apply_staged_writes(self) -> None:
        """Does nothing."""

    def apply(self, logits: Any, context: LogitsContextLike | None = None) -> Any:
        """Returns *logits* as they are."""
        return logits
