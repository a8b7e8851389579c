# SPDX-License-Identifier: Apache-2.0
"""What a sequence was sampled with, and the temperatures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from qr_sampler import (
    TEMPERATURE_STRATEGIES,
    LogitStatistics,
    QRSamplerError,
    Rows,
    RunningMean,
    SamplingParameters,
)
from qr_sampler.components.strategies import strategy_named
from qr_sampler.temperature import rounded
from qr_sampler_cli.audit.rederivation.transcripts import Decided, RecordedNumbers, Transcript

__all__ = ["Temperatures", "UnknownParametersError", "parameters_of"]

_CLOSE: Final = 1e-12
"""Relative difference that a recorded float64 may have from the same one computed elsewhere."""

_MOST: Final = 1e9
"""More than any entropy of a row."""


class UnknownParametersError(QRSamplerError, ValueError):
    """A sequence was sampled with something that this version does not know, or does not say it."""


def parameters_of(options: Mapping[str, Any]) -> SamplingParameters:
    """Returns the parameters in the ``options`` of a sequence.

    Raises:
        UnknownParametersError: When some are missing, unknown or out of range, or when the strategy
            of the temperature is not installed here.
    """
    values = {name: value for name, value in options.items() if name != "source"}
    if set(values) != set(SamplingParameters.model_fields):
        raise UnknownParametersError("parameters that are not recorded, or not known here")
    try:
        parameters = SamplingParameters(**values)
    except ValidationError:
        raise UnknownParametersError("parameters that are out of range") from None
    name = parameters.temperature_strategy
    if name not in TEMPERATURE_STRATEGIES.names():
        raise UnknownParametersError(f"the temperature strategy {name[:40]!r}, not installed here")
    return parameters


class Temperatures:
    """The temperatures of a sequence, recomputed from its recorded entropies by the strategies.

    Whether those entropies are the model's is judged by itself, in :mod:`~.statistics_error`, so
    the temperature needs no tolerance of its own, although strategies see entropies on a grid.

    Args:
        transcript: The sequence.
        vocab_size: Number of tokens of the model.
    """

    def __init__(self, transcript: Transcript, vocab_size: int) -> None:
        self._parameters = transcript.parameters
        self._vocab_size = vocab_size
        self._mean = RunningMean(transcript.parameters.varentropy_drift_rate)

    def fault(self, decided: int, numbers: RecordedNumbers, deviation: float) -> str:
        """Returns what is wrong with the temperature of the next token; empty if nothing is.

        Args:
            decided: What has decided it, a :class:`Decided`.
            numbers: What is recorded of it.
            deviation: Standard deviation of its logits.

        Raises:
            ComponentError: When a strategy of another project fails.
        """
        if decided == Decided.NOTHING:
            return ""
        if not 0.0 <= numbers.entropy_nats <= _MOST or not 0.0 <= numbers.varentropy_nats2 <= _MOST:
            return "its entropy or varentropy is none of any distribution"
        mean, self_mean = numbers.running_entropy_nats, self._mean.value
        (entropy,) = rounded(np.array([numbers.entropy_nats]))
        self._mean.observe(float(entropy))
        if not _same(mean, self_mean):
            return f"running_entropy_nats is {mean!r}, and of the tokens before it {self_mean!r}"
        expected = self._expected(numbers, deviation)
        if not _same(numbers.temperature, expected):
            return f"temperature is {numbers.temperature!r}, and from its entropy {expected!r}"
        return ""

    def _expected(self, numbers: RecordedNumbers, deviation: float) -> float:
        statistics = LogitStatistics(
            entropy_nats=rounded(np.array([numbers.entropy_nats])),
            varentropy_nats2=rounded(np.array([numbers.varentropy_nats2])),
            logit_deviation=np.array([deviation]),
            vocab_size=self._vocab_size,
        )
        rows = Rows([self._parameters], [numbers.running_entropy_nats])
        strategy = strategy_named(self._parameters.temperature_strategy)
        return float(strategy.temperatures(statistics, rows)[0])


def _same(one: float, other: float) -> bool:
    return bool(np.isclose(one, other, rtol=_CLOSE, atol=0.0, equal_nan=True))
