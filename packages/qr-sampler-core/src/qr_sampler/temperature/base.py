# SPDX-License-Identifier: Apache-2.0
"""The contract of temperature strategies, and the statistics that they decide on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from qr_sampler._typing import FloatArray, Logits
from qr_sampler.rows import Rows

__all__ = ["LogitStatistics", "TemperatureResult", "TemperatureStrategy", "shannon_entropy_nats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitStatistics:
    """What is known about B rows of logits before a temperature is chosen."""

    entropy_nats: FloatArray
    """Shape ``(B,)``, Shannon entropy at temperature 1."""
    vocab_size: int
    """Number of columns V, masked tokens included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureResult:
    """Temperatures of B rows with the entropies that were computed along the way."""

    temperature: FloatArray
    """Shape ``(B,)``, positive."""
    entropy_nats: FloatArray
    """Shape ``(B,)``, Shannon entropy at temperature 1, whatever the strategy."""


class TemperatureStrategy(ABC):
    """Chooses the temperature of each row from its statistics and its request's parameters.

    Strategies are stateless. Entropy is computed for every row by the pipeline, also for a strategy
    that has no use for it, because it is part of every record.
    """

    @abstractmethod
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns one temperature per row.

        Args:
            statistics: Statistics of B rows.
            rows: The parameters of the same B rows.

        Returns:
            Shape ``(B,)``, within ``MIN_TEMPERATURE`` and ``MAX_TEMPERATURE`` of
            :mod:`qr_sampler.settings`.
        """


def shannon_entropy_nats(logits: Logits) -> FloatArray:
    """Returns the Shannon entropy of softmax(logits) in nats, over the support only.

    H = ln S - sum(e_i (x_i - m)) / S with e_i = exp(x_i - m), S = sum(e_i), m = max(x); a term with
    e_i = 0 contributes its limit 0, so masked tokens do not matter.

    Args:
        logits: Shape ``(B, V)`` with a finite maximum in every row.

    Returns:
        Shape ``(B,)``, in [0, ln V].
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    totals = weights.sum(axis=1)
    np.multiply(weights, shifted, out=shifted, where=weights > 0.0)
    moments = np.sum(shifted, axis=1, where=weights > 0.0)
    entropy: FloatArray = np.maximum(np.log(totals) - moments / totals, 0.0)
    return entropy
