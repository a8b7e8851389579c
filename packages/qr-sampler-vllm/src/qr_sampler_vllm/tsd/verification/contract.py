# SPDX-License-Identifier: Apache-2.0
"""The contract of a mode of verification."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from qr_sampler.host import Entry
from qr_sampler_vllm.tsd.sequences import RequestRows

__all__ = ["Verification", "Verified"]


class Verified(NamedTuple):
    """The outcome of the rows of a step."""

    tokens: list[list[int]]
    """The tokens that each request emits; none where vLLM has to choose, or uses none."""
    records: list[Entry]
    """The records that this settles."""


class Verification(Protocol):
    """Chooses the tokens of a step."""

    def verify(self, logits: Any, requests: list[RequestRows]) -> Verified:
        """Returns the outcome of all rows.

        Args:
            logits: Tensor of shape ``(R, V)``, float32, the constraints of the requests applied;
                may be modified.
            requests: The requests of the batch with their rows, in row order.

        Raises:
            EntropyUnavailableError: When the source fails and the operator chose to stop then.
        """
