# SPDX-License-Identifier: Apache-2.0
"""What every temperature strategy must do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pytest

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows
from qr_sampler.settings import SamplingParameters
from qr_sampler.settings.temperature_parameters import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy, rounded
from qr_sampler.testing.contracts.calls import in_time
from qr_sampler.testing.contracts.clauses import Contract, clause

__all__ = ["TemperatureStrategyContract"]

_TIMELY: Final = "test_temperatures_come_in_time"
_SHAPE: Final = "test_temperatures_have_the_promised_form"
_PURE: Final = "test_same_rows_give_the_same_temperatures"
_VOCAB_SIZE: Final = 1000


class TemperatureStrategyContract(Contract):
    """Inherit, override the fixture :meth:`strategy`, and pytest checks it by the contract.

    Examples:
        >>> import pytest
        >>> from qr_sampler import EDTTemperatureStrategy
        >>> class TestEDT(TemperatureStrategyContract):
        ...     @pytest.fixture
        ...     def strategy(self):
        ...         return EDTTemperatureStrategy()
    """

    @pytest.fixture
    def strategy(self) -> Any:
        """The strategy under test. To be overridden."""
        raise NotImplementedError("override the fixture 'strategy' to return it")

    @pytest.fixture
    def parameters(self) -> Any:
        """Parameters of requests that use the strategy, one or more; to be overridden for more."""
        return [SamplingParameters.model_validate({})]

    @clause()
    def test_what_it_reads_exists(self, strategy: TemperatureStrategy) -> None:
        """``reads`` names fields of the statistics."""
        known = {field.name for field in dataclasses.fields(LogitStatistics)}
        assert set(strategy.reads) <= known
        assert isinstance(strategy.constant, bool)

    @clause()
    def test_temperatures_come_in_time(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """It runs within a step of the engine, and nothing can end it there."""
        statistics, rows = _usual(parameters)
        in_time(lambda: strategy.temperatures(statistics, rows), self.patience_s, "temperatures()")

    @clause(_TIMELY)
    @pytest.mark.parametrize("count", [1, 3])
    def test_temperatures_have_the_promised_form(
        self,
        strategy: TemperatureStrategy,
        parameters: Sequence[SamplingParameters],
        count: int,
    ) -> None:
        """One float64 number per row."""
        statistics, rows = _usual(parameters, count)
        temperatures: object = strategy.temperatures(statistics, rows)
        assert isinstance(temperatures, np.ndarray)
        assert (temperatures.dtype, temperatures.shape) == (np.float64, (count,))

    @clause(_TIMELY, _SHAPE)
    def test_temperatures_are_in_range(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """Within MIN_TEMPERATURE and MAX_TEMPERATURE, for statistics at their limits, too."""
        entropies = [0.0, math.log(2.0), math.log(_VOCAB_SIZE)]
        grid = np.array(np.meshgrid(entropies, [0.0, 0.5, 40.0], [0.0, 3.0, 1e4])).reshape(3, -1)
        for means in (np.full(grid.shape[1], np.nan), np.zeros(grid.shape[1]), grid[0][::-1]):
            rows = _rows(parameters, grid.shape[1], means)
            temperatures = strategy.temperatures(_statistics(*grid), rows)
            inside = (temperatures >= MIN_TEMPERATURE) & (temperatures <= MAX_TEMPERATURE)
            assert inside.all(), f"{temperatures[~inside]} out of range"

    @clause(_TIMELY, _SHAPE)
    def test_a_vocabulary_of_one_is_served(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """Nothing is divided by the logarithm of one."""
        statistics = dataclasses.replace(_statistics([0.0], [0.0], [0.0]), vocab_size=1)
        assert np.isfinite(strategy.temperatures(statistics, _rows(parameters, 1))).all()

    @clause(_TIMELY, _SHAPE)
    def test_same_rows_give_the_same_temperatures(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """A function of its arguments: no state, no randomness of its own."""
        statistics, rows = _usual(parameters)
        first = strategy.temperatures(statistics, rows).tolist()
        other, one_row = _usual(parameters, 1)
        strategy.temperatures(other, one_row)
        assert strategy.temperatures(statistics, rows).tolist() == first

    @clause(_TIMELY, _SHAPE, _PURE)
    def test_rows_do_not_depend_on_each_other(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """A row gets the same temperature alone as in a batch."""
        statistics, rows = _usual(parameters)
        together = strategy.temperatures(statistics, rows).tolist()
        for row, expected in enumerate(together):
            index = np.array([row])
            alone = strategy.temperatures(_taken(statistics, index), rows.take(index))
            assert alone.tolist() == [expected]

    @clause(_TIMELY, _SHAPE, _PURE)
    def test_only_what_it_reads_matters(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """Statistics that ``reads`` leaves out may differ between machines."""
        statistics, rows = _usual(parameters)
        expected = strategy.temperatures(statistics, rows).tolist()
        for field in ("entropy_nats", "varentropy_nats2", "logit_deviation"):
            if field not in strategy.reads:
                changed: Any = {field: getattr(statistics, field) + 0.25}
                other = dataclasses.replace(statistics, **changed)
                assert strategy.temperatures(other, rows).tolist() == expected, field

    @clause(_TIMELY, _SHAPE)
    def test_arguments_are_left_alone(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """Statistics become records: they are read, not changed."""
        statistics, rows = _usual(parameters)
        fields = ("entropy_nats", "varentropy_nats2", "logit_deviation")
        before = [getattr(statistics, field).tolist() for field in fields]
        strategy.temperatures(statistics, rows)
        assert [getattr(statistics, field).tolist() for field in fields] == before

    @clause(_TIMELY, _SHAPE)
    def test_results_stay_as_they_are(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """A later call does not write into the array of an earlier one."""
        statistics, rows = _usual(parameters)
        first = strategy.temperatures(statistics, rows)
        kept = first.tolist()
        strategy.temperatures(_statistics([0.1] * 5, [0.2] * 5, [0.3] * 5), rows)
        assert first.tolist() == kept

    @clause(_TIMELY, _SHAPE, _PURE)
    def test_a_constant_one_is_constant(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """What calls itself constant depends on nothing but the parameters."""
        if not strategy.constant:
            pytest.skip("it does not call itself constant")
        statistics, rows = _usual(parameters)
        expected = strategy.temperatures(statistics, rows).tolist()
        other = _statistics([0.5] * 5, [0.25] * 5, [2.0] * 5)
        assert strategy.temperatures(other, rows).tolist() == expected
        remembering = rows.with_running_entropy([0.5] * 5)
        assert strategy.temperatures(statistics, remembering).tolist() == expected

    @clause(_TIMELY, _SHAPE, _PURE, "test_results_stay_as_they_are")
    def test_threads_get_what_belongs_to_their_rows(
        self, strategy: TemperatureStrategy, parameters: Sequence[SamplingParameters]
    ) -> None:
        """An instance is shared by threads."""
        cases = [
            (_statistics([0.1 * index] * 3, [0.0] * 3, [1.0] * 3), _rows(parameters, 3))
            for index in range(32)
        ]
        alone = [strategy.temperatures(*case).tolist() for case in cases]
        with ThreadPoolExecutor(8) as pool:
            together = pool.map(lambda case: strategy.temperatures(*case).tolist(), cases)
            assert list(together) == alone


def _usual(
    parameters: Sequence[SamplingParameters], count: int = 5
) -> tuple[LogitStatistics, Rows]:
    """Returns rows of a usual kind, with their statistics."""
    entropy = np.linspace(0.2, 6.0, count)
    statistics = _statistics(entropy, 0.5 * entropy, np.linspace(1.0, 3.0, count))
    means = np.where(np.arange(count) % 2, 0.5 * entropy, np.nan)
    return statistics, _rows(parameters, count, means)


def _statistics(entropy: Any, varentropy: Any, deviation: Any) -> LogitStatistics:
    return LogitStatistics(
        entropy_nats=rounded(np.array(entropy, dtype=np.float64)),
        varentropy_nats2=rounded(np.array(varentropy, dtype=np.float64)),
        logit_deviation=np.array(deviation, dtype=np.float64),
        vocab_size=_VOCAB_SIZE,
    )


def _rows(
    parameters: Sequence[SamplingParameters], count: int, means: FloatArray | None = None
) -> Rows:
    return Rows([parameters[index % len(parameters)] for index in range(count)], means)


def _taken(statistics: LogitStatistics, index: Any) -> LogitStatistics:
    return dataclasses.replace(
        statistics,
        entropy_nats=statistics.entropy_nats[index],
        varentropy_nats2=statistics.varentropy_nats2[index],
        logit_deviation=statistics.logit_deviation[index],
    )
