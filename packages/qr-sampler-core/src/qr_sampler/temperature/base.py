# SPDX-License-Identifier: Apache-2.0
"""The contract of temperature strategies, and the statistics that they decide on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows

if TYPE_CHECKING:
    from qr_sampler.settings import EnvironmentSettings

__all__ = [
    "STATISTICS_STEP",
    "LogitStatistics",
    "TemperatureResult",
    "TemperatureStrategy",
    "rounded",
]

STATISTICS_STEP: Final = 2.0**-10
"""Grid of the entropies that strategies see, in nats and in nats squared.

The last digits of a sum over the vocabulary depend on the order of addition, which differs between
devices and libraries. On this grid they never reach a temperature, hence no token, provided that
whoever adds up settles a sum that lies within its error of the middle between two grid points.
"""


def rounded(values: FloatArray) -> FloatArray:
    """Returns the multiples of ``STATISTICS_STEP`` nearest to *values*, halves to even.

    The step is a power of two, so the only rounding is the one that is meant.

    Args:
        values: Any shape, float64.

    Returns:
        The same shape. Applying the function again changes nothing.
    """
    grid: FloatArray = np.rint(values / STATISTICS_STEP) * STATISTICS_STEP
    return grid


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitStatistics:
    """What is known about B rows of logits before a temperature is chosen.

    p is softmax(logits), at temperature 1, on its support: the tokens with p > 0.
    """

    entropy_nats: FloatArray
    """Shape ``(B,)``, float64: Shannon entropy, the mean of -ln p under p, :func:`rounded`."""
    varentropy_nats2: FloatArray
    """Shape ``(B,)``, float64: varentropy, the variance of -ln p under p, in nats squared,
    :func:`rounded`."""
    logit_deviation: FloatArray
    """Shape ``(B,)``, float64: standard deviation of the row's finite logits, dividing by their
    number; NaN where the row does not ask for it."""
    vocab_size: int
    """Number of columns V, masked tokens included."""

    @property
    def normalised_entropy(self) -> FloatArray:
        """Entropy as a fraction of ln V, the largest one. Shape ``(B,)``, in [0, 1]; 0 if V = 1.

        The entropy is rounded, so equal logits may give a little less than 1.
        """
        largest = math.log(self.vocab_size) or 1.0
        fraction: FloatArray = np.minimum(self.entropy_nats / largest, 1.0)
        return fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureResult:
    """Temperatures of B rows with the entropies that were computed along the way."""

    temperature: FloatArray
    """Shape ``(B,)``, positive."""
    entropy_nats: FloatArray
    """Shape ``(B,)``, Shannon entropy at temperature 1, whatever the strategy, as measured:
    rounding it gives what the strategy saw."""
    varentropy_nats2: FloatArray
    """Shape ``(B,)``, varentropy at temperature 1, likewise."""


class TemperatureStrategy(ABC):
    """Chooses the temperature of each row from its statistics and its request's parameters.

    Must be overridden: :meth:`temperatures`. May be overridden: :attr:`reads`, :attr:`constant`,
    :meth:`from_environment`. A strategy is made once and shared by requests and threads, so it is
    stateless: what a request remembers of its past comes in as ``rows.running_entropy``. It may not
    raise, since every parameter was checked when the request was admitted.
    """

    settings_model: ClassVar[type[EnvironmentSettings] | None] = None
    """The model of its own settings, for ``qr-sampler settings`` and ``doctor``; ``None`` for a
    strategy without any."""

    reads: ClassVar[frozenset[str]] = frozenset({"entropy_nats", "varentropy_nats2"})
    """Which fields of the statistics the result depends on. All are computed and recorded for every
    row in any case; these are made the same to the last digit on every machine."""

    constant: ClassVar[bool] = False
    """Whether the result depends on nothing but the parameters of the rows, and so stays the same
    while the batch does. It is not asked for in every step then. Not inherited by strategies of
    other projects."""

    @classmethod
    def from_environment(cls) -> TemperatureStrategy:
        """Returns a strategy configured from ``QR_*`` variables and the ``.env`` file.

        Raises:
            ConfigError: When a setting of this strategy is malformed.
        """
        return cls()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must stay secret; they are masked in what is recorded of its settings."""
        return ()

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings that are in use, for the first line of a ledger; never a secret one."""
        return {}

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
