# SPDX-License-Identifier: Apache-2.0
"""What a process does for its engine when vLLM calls on it."""

from __future__ import annotations

from typing import Any

from qr_sampler_vllm.engine.interfaces import BatchUpdateLike, LogitsContextLike

__all__ = ["EngineRole"]


class EngineRole:
    """The calls of both model runners, none of which does anything.

    As it is, the role of a pipeline stage that never samples; the others override what they need.
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
