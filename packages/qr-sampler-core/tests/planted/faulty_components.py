# SPDX-License-Identifier: Apache-2.0
"""Amplifiers and strategies with one fault each, and the only clause that may notice it.

Collected by ``test_core_planted_faults.py``, in a process of its own.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from qr_sampler import (
    AmplificationResult,
    LogitStatistics,
    Rows,
    SignalAmplifier,
    TemperatureStrategy,
    ZScoreMeanAmplifier,
)
from qr_sampler.amplification.base import U_MAX, U_MIN
from qr_sampler.testing import AmplifierContract, TemperatureStrategyContract


class SoundAmplifier(ZScoreMeanAmplifier):
    """Has no fault."""

    @classmethod
    def from_settings(cls, settings: Any) -> Any:
        return cls()


class AmplifierHangs(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        threading.Event().wait()
        raise AssertionError


class NoResult(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> Any:
        return super().amplify(blocks).u


class SingleColumn(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(u=result.u[:, None])


class SinglePrecision(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> Any:
        result = super().amplify(blocks)
        return result._replace(u=result.u.astype(np.float32).clip(2**-20, 1 - 2**-20))


class NotANumber(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(statistic=result.statistic * np.nan)


class ReachesOne(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(u=np.where(result.u == U_MAX, 1.0, result.u))


class ReachesZero(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(u=np.where(result.u == U_MIN, 0.0, result.u))


class DividesByTheSpread(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        spread = np.ptp(blocks, axis=1)
        return result._replace(statistic=np.where(spread == 0, np.nan, result.statistic))


class NoNumberOfOneByte(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(u=np.where(blocks.shape[1] == 1, np.nan, result.u))


class PickyInTheEngine(SoundAmplifier):
    """Refuses a length only when it is too late."""

    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        if blocks.shape[1] % 8:
            raise ValueError("blocks must be whole words")
        return super().amplify(blocks)


class Dithers(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(u=result.u * (1.0 - 1e-9 * random.random()))


class LooksAtTheBatch(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result._replace(u=result.u * (1.0 - 1e-6 * len(blocks)))


class CountsTwice(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        return result if counts is None else result._replace(u=result.u / 2.0)


class WritesIntoBlocks(SoundAmplifier):
    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        if blocks.flags.writeable:
            blocks ^= 0xFF
        return result


class OneArrayForAll(SoundAmplifier):
    def __init__(self) -> None:
        super().__init__()
        self._u = np.empty(1 << 15)

    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        result = super().amplify(blocks)
        self._u[: len(blocks)] = result.u
        return result._replace(u=self._u[: len(blocks)])


class AmplifierRaces(SoundAmplifier):
    """Leaves its blocks where another thread exchanges them."""

    def amplify(self, blocks: Any, counts: Any = None) -> AmplificationResult:
        self._blocks = blocks
        time.sleep(0.002)
        return super().amplify(self._blocks)


class WrongDeviation(SoundAmplifier):
    """Takes the deviation of a continuous number, per bit, for that of a byte."""

    def __init__(self) -> None:
        super().__init__(std=55.0)


class ResolutionInWords(SoundAmplifier):
    def resolution(self, block_bytes: int) -> Any:
        return "fine"


class MadeOfNothing(SoundAmplifier):
    @classmethod
    def from_settings(cls, settings: Any) -> Any:
        return None


class SoundStrategy(TemperatureStrategy):
    """Has no fault."""

    reads: ClassVar[frozenset[str]] = frozenset({"entropy_nats"})

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        return 0.5 + statistics.entropy_nats / 20.0


class ReadsMinds(SoundStrategy):
    reads = frozenset({"entropy_nats", "minds"})


class StrategyHangs(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        threading.Event().wait()


class OneForAllRows(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        return np.array(0.7)


class AList(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        return super().temperatures(statistics, rows).tolist()


class ColdWhenCertain(SoundStrategy):
    """Forgets that an entropy may be zero."""

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        return statistics.entropy_nats / 5.0


class NeedsAMean(SoundStrategy):
    """Forgets that there is no running mean at first."""

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        lost = np.isnan(rows.running_entropy) & (statistics.entropy_nats > 6.5)
        return np.where(lost, np.nan, super().temperatures(statistics, rows))


class DividesByTheLogarithmOfOne(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        with np.errstate(all="ignore"):
            return 0.5 + statistics.entropy_nats / np.log(statistics.vocab_size)


class Whimsical(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        return super().temperatures(statistics, rows) + 0.1 * random.random()


class ComparesRows(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        return 0.5 + statistics.entropy_nats / (20.0 + statistics.entropy_nats.max())


class ReadsMore(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        more = np.minimum(statistics.varentropy_nats2, 1.0)
        return super().temperatures(statistics, rows) + 0.1 * more


class WritesIntoStatistics(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        temperatures = super().temperatures(statistics, rows)
        statistics.varentropy_nats2[...] = 0.0
        return temperatures


class OneArrayForAllRows(SoundStrategy):
    def __init__(self) -> None:
        self._array = np.empty(100)

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        self._array[: len(rows)] = super().temperatures(statistics, rows)
        return self._array[: len(rows)]


class FalselyConstant(SoundStrategy):
    constant = True


class StrategyRaces(SoundStrategy):
    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> Any:
        self._statistics = statistics
        time.sleep(0.002)
        return super().temperatures(self._statistics, rows)


class ChecksOfAmplifiers(AmplifierContract):
    __test__ = False
    kind: ClassVar[Callable[..., SignalAmplifier]]

    @pytest.fixture
    def amplifier(self) -> SignalAmplifier:
        return type(self).kind()


class ChecksOfStrategies(TemperatureStrategyContract):
    __test__ = False
    kind: ClassVar[Callable[..., TemperatureStrategy]]

    @pytest.fixture
    def strategy(self) -> TemperatureStrategy:
        return type(self).kind()


AMPLIFIERS: dict[type[SignalAmplifier], str] = {
    SoundAmplifier: "",
    AmplifierHangs: "test_a_result_comes_in_time",
    NoResult: "test_result_has_the_promised_form",
    SingleColumn: "test_result_has_the_promised_form",
    SinglePrecision: "test_result_has_the_promised_form",
    NotANumber: "test_result_has_the_promised_form",
    ReachesOne: "test_u_stays_inside_the_interval",
    ReachesZero: "test_u_stays_inside_the_interval",
    DividesByTheSpread: "test_u_stays_inside_the_interval",
    NoNumberOfOneByte: "test_lengths_that_are_not_refused_work",
    PickyInTheEngine: "test_lengths_that_are_not_refused_work",
    Dithers: "test_same_blocks_give_the_same_u",
    LooksAtTheBatch: "test_rows_do_not_depend_on_each_other",
    CountsTwice: "test_given_counts_change_nothing",
    WritesIntoBlocks: "test_blocks_are_left_alone",
    OneArrayForAll: "test_results_stay_as_they_are",
    AmplifierRaces: "test_threads_get_what_belongs_to_their_blocks",
    WrongDeviation: "test_u_of_unbiased_bytes_is_uniform",
    ResolutionInWords: "test_resolution_is_one_or_none",
    MadeOfNothing: "test_it_is_made_from_settings",
}

STRATEGIES: dict[type[TemperatureStrategy], str] = {
    SoundStrategy: "",
    ReadsMinds: "test_what_it_reads_exists",
    StrategyHangs: "test_temperatures_come_in_time",
    OneForAllRows: "test_temperatures_have_the_promised_form",
    AList: "test_temperatures_have_the_promised_form",
    ColdWhenCertain: "test_temperatures_are_in_range",
    NeedsAMean: "test_temperatures_are_in_range",
    DividesByTheLogarithmOfOne: "test_a_vocabulary_of_one_is_served",
    Whimsical: "test_same_rows_give_the_same_temperatures",
    ComparesRows: "test_rows_do_not_depend_on_each_other",
    ReadsMore: "test_only_what_it_reads_matters",
    WritesIntoStatistics: "test_arguments_are_left_alone",
    OneArrayForAllRows: "test_results_stay_as_they_are",
    FalselyConstant: "test_a_constant_one_is_constant",
    StrategyRaces: "test_threads_get_what_belongs_to_their_rows",
}

for base, faults in ((ChecksOfAmplifiers, AMPLIFIERS), (ChecksOfStrategies, STRATEGIES)):
    for kind, clause in faults.items():
        members = {"__test__": True, "kind": kind, "caught_by": clause, "__module__": __name__}
        if kind in (AmplifierHangs, StrategyHangs):
            members["patience_s"] = 1.0
        globals()[f"Test{kind.__name__}"] = type(f"Test{kind.__name__}", (base,), members)
