# SPDX-License-Identifier: Apache-2.0
"""A temperature strategy of another project, whose results are looked at before they are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np

from qr_sampler.arrays import FloatArray, read_only
from qr_sampler.foreign import component_failure, component_settings
from qr_sampler.rows import RowParameters, Rows
from qr_sampler.settings.temperature_parameters import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy

__all__ = ["GuardedStrategy"]

KIND: Final = "temperature strategy"

READABLE: Final = frozenset(field.name for field in dataclasses.fields(LogitStatistics))


class GuardedStrategy(TemperatureStrategy):
    """Asks *strategy* and lets nothing pass but what its contract promises.

    What it is asked about it cannot change: the statistics become records, and the parameters are
    those of later steps, too.

    It is called within a step, so that one which never returns holds up the engine.

    Args:
        strategy: The strategy.
        name: What it is configured as.

    Raises:
        ValueError: When it reads what there is not.
    """

    def __init__(self, strategy: TemperatureStrategy, name: str) -> None:
        self._strategy = strategy
        self._name = name
        self.reads = frozenset(strategy.reads)  # type: ignore[misc]
        if not self.reads <= READABLE:
            raise ValueError(f"it reads {sorted(self.reads - READABLE, key=str)}, which is unknown")
        # Inherited, it may be the word of a class that does something else.
        said = vars(type(strategy)).get("constant")
        self.constant = said is True and not self.reads  # type: ignore[misc]

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings of the strategy, in plain values."""
        return component_settings(KIND, self._name, self._strategy)

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns one temperature per row, in range.

        Raises:
            ComponentError: When the strategy has returned something else, or raised anything.
        """
        try:
            answer = self._strategy.temperatures(_read_only(statistics), _separate(rows))
            temperatures = np.array(answer, dtype=np.float64)
            if temperatures.shape != (len(rows),):
                raise ValueError(f"it returned shape {temperatures.shape}, expected {(len(rows),)}")
            if not ((temperatures >= MIN_TEMPERATURE) & (temperatures <= MAX_TEMPERATURE)).all():
                raise ValueError(
                    f"a temperature is not within {MIN_TEMPERATURE} and {MAX_TEMPERATURE}"
                )
            return temperatures
        except BaseException as error:
            raise component_failure(KIND, self._name, error) from None


def _read_only(statistics: LogitStatistics) -> LogitStatistics:
    return dataclasses.replace(
        statistics,
        entropy_nats=read_only(statistics.entropy_nats),
        varentropy_nats2=read_only(statistics.varentropy_nats2),
        logit_deviation=read_only(statistics.logit_deviation),
    )


def _separate(rows: Rows) -> Rows:
    """Returns the same rows with columns that nobody else reads."""
    return rows.derived(_own_rows).with_running_entropy(rows.running_entropy)


def _own_rows(parameters: RowParameters) -> Rows:
    return Rows(parameters.parameters)
