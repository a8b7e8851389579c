# SPDX-License-Identifier: Apache-2.0
"""Amplifiers and temperature strategies of other projects: what they may return, and what not."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    AMPLIFIERS,
    TEMPERATURE_STRATEGIES,
    AmplificationResult,
    ComponentError,
    ConfigError,
    DroppedBytes,
    EntropyUnavailableError,
    Resolution,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Settings,
    SignalAmplifier,
    StepPlanner,
    TemperatureStrategy,
    resolve_request,
    token_record,
)
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.components.amplifiers import amplifier_named
from qr_sampler.components.strategies import strategy_named
from qr_sampler.settings import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.testing import ConstantEntropySource

LOGITS = np.linspace(0.0, 1.0, 16, dtype=np.float32).reshape(2, 8)


class Said(SignalAmplifier):
    """Returns, or raises, what the test has put here."""

    answer: Any = None
    bare: Any = None
    sharpness: Any = None

    def amplify(self, blocks: Any, counts: BlockCounts | None = None) -> Any:
        if isinstance(Said.answer, BaseException):
            raise Said.answer
        return Said.answer

    def resolution(self, block_bytes: int) -> Any:
        if isinstance(Said.sharpness, BaseException):
            raise Said.sharpness
        return Said.sharpness

    def without_baseline(self) -> Any:
        if isinstance(Said.bare, BaseException):
            raise Said.bare
        return Said.bare or self


class Warm(TemperatureStrategy):
    """Returns, or raises, what the test has put here."""

    reads = frozenset()
    answer: Any = None

    def temperatures(self, statistics: Any, rows: Rows) -> Any:
        if isinstance(Warm.answer, BaseException):
            raise Warm.answer
        return Warm.answer


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AMPLIFIERS._loaded, "said", Said)
    monkeypatch.setitem(TEMPERATURE_STRATEGIES._loaded, "warm", Warm)
    Said.answer, Said.bare, Said.sharpness = result(), None, None
    Warm.answer = np.ones(2)


def result(**changes: Any) -> AmplificationResult:
    good = AmplificationResult(np.array([0.25, 0.75]), np.array([-1.0, 1.0]))
    return good._replace(**changes)


class Step:
    """Two rows that use both components."""

    def __init__(self, source: ConstantEntropySource | None = None) -> None:
        self.dropped: list[DroppedBytes] = []
        self.source = source or ConstantEntropySource()
        self.settings = Settings.load(sample_count=4, max_ks_distance=1.0)
        self._pipeline = SamplingPipeline(
            self.settings, self.source, on_dropped=self.dropped.append
        )

    def sample(self) -> Any:
        parameters = SamplingParameters(
            sample_count=4, signal_amplifier_type="said", temperature_strategy="warm"
        )
        return self._pipeline.sample(LOGITS, Rows([parameters] * 2))


SERVED: list[Callable[[], Any]] = [
    result,
    lambda: result(u=[0.25, 0.75]),
    lambda: result(u=np.array([0.25, 0.75], dtype=np.float32)),
    lambda: result(u=np.array([0.25, 0.75], dtype=object)),
    lambda: result(lattice_step=0.5, baseline="digest"),
    lambda: result(baseline=np.array(["a", "b"])),
]


@pytest.mark.parametrize("make", SERVED)
def test_good_results_become_plain_arrays(make: Callable[[], Any]) -> None:
    Said.answer = make()
    options = resolve_request(Step().settings, {"qr_signal_amplifier_type": "said"})
    step = Step().sample()
    assert step.amplification.u.tolist() == [0.25, 0.75]
    assert {array.shape for array in step.amplification} == {(2,)}
    record = token_record(step, 1, request_key="a", sequence="b", position=0, options=options)
    assert json.loads(json.dumps(record.as_dict(), allow_nan=False))["u"] == 0.75


REFUSED: list[tuple[Any, str]] = [
    (result(u=np.array([0.25, math.nan])), r"ValueError: u is not inside \(0, 1\)"),
    (result(u=np.array([0.25, 1.0])), "not inside"),
    (result(u=np.array([0.0, 0.5])), "not inside"),
    (result(u=np.array([0.25, math.inf])), "not inside"),
    (result(u=np.array([0.25])), r"u has shape \(1,\), expected \(2,\)"),
    (result(u=0.5), r"u has shape \(\)"),
    (result(u=np.array(["a", "b"])), "ValueError"),
    (result(u=None), "has shape"),
    (result(statistic=np.array([0.0, math.inf])), "statistic is not finite"),
    (result(statistic=np.array([math.nan, 0.0])), "statistic is not finite"),
    (result(lattice_step=-1.0), "lattice_step is neither"),
    (result(lattice_step=math.inf), "lattice_step is neither"),
    (result(lattice_step=np.ones(3)), "lattice_step has shape"),
    (result(baseline="x" * 65), "baseline is not text"),
    (result(baseline=7), "baseline is not text"),
    (result(baseline=np.array(["a"] * 3)), "baseline has shape"),
    (None, "returned NoneType instead of an AmplificationResult"),
    (tuple(result()), "returned tuple"),
    (OSError("gone"), "OSError: gone"),
    (SystemExit(3), "SystemExit: 3"),
    (GeneratorExit(), "GeneratorExit"),
    (EntropyUnavailableError("system", "unplugged"), "unplugged"),
]


@pytest.mark.parametrize(("answer", "reason"), REFUSED)
def test_any_other_result_is_a_failure_of_one_kind(answer: Any, reason: str) -> None:
    Said.answer, step = answer, Step()
    with pytest.raises(ComponentError, match=f"signal amplifier 'said' has a defect: .*{reason}"):
        step.sample()
    # The bytes were drawn, and are accounted for.
    assert step.source.requests == [8]
    (dropped,) = step.dropped
    assert (dropped.source, dropped.count, dropped.reason) == ("constant", 8, "unfit")


TOO_WARM = [
    (np.array([1.0, math.nan]), "not within"),
    (np.array([1.0, math.inf]), "not within"),
    (np.array([1.0, MIN_TEMPERATURE / 2]), "not within"),
    (np.array([1.0, 2 * MAX_TEMPERATURE]), "not within"),
    (np.array([1.0]), r"returned shape \(1,\)"),
    (1.0, r"returned shape \(\)"),
    (None, r"returned shape \(\)"),
    ("hot", "ValueError"),
    (RuntimeError("broken"), "RuntimeError: broken"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
]


@pytest.mark.parametrize("reads", [frozenset(), frozenset({"entropy_nats"})])
@pytest.mark.parametrize(("answer", "reason"), TOO_WARM)
def test_any_other_temperature_is_a_failure_before_the_draw(
    answer: Any, reason: str, reads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise an interrupt might be the operator's.
    monkeypatch.setattr("qr_sampler.foreign.signal.getsignal", lambda number: None)
    monkeypatch.setattr(Warm, "reads", reads)
    strategy_named.__globals__["_strategy"].cache_clear()
    Warm.answer, step = answer, Step()
    with pytest.raises(ComponentError, match=f"temperature strategy 'warm' .*{reason}"):
        step.sample()
    assert step.source.requests == []
    assert step.dropped == []


def test_temperatures_may_come_in_any_array() -> None:
    Warm.answer = [1, np.float32(2.0)]
    assert Step().sample().plan.temperature.temperature.tolist() == [1.0, 2.0]


class Constant(Warm):
    """Says that it always returns the same, and counts how often it is asked."""

    constant = True
    asked = 0

    def temperatures(self, statistics: Any, rows: Rows) -> Any:
        Constant.asked += 1
        return np.full(len(rows), 0.5)


class Heir(Constant):
    """Does not say so itself."""


@pytest.mark.parametrize(("strategy", "asked"), [(Constant, 1), (Heir, 3)])
def test_constant_temperatures_are_asked_for_once_per_batch(
    strategy: type[Constant], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TEMPERATURE_STRATEGIES._loaded, "warm", strategy)
    strategy_named.__globals__["_strategy"].cache_clear()
    Constant.asked = 0
    rows = Rows([SamplingParameters(temperature_strategy="warm")] * 2)
    planner = StepPlanner()
    for _ in range(3):
        plan = planner.prepare(LOGITS, rows)
        assert plan.temperature.temperature.tolist() == [0.5, 0.5]
    assert Constant.asked == asked


class Writing(SignalAmplifier):
    """Changes what it is given."""

    what = "blocks"

    def amplify(self, blocks: Any, counts: BlockCounts | None = None) -> Any:
        assert counts is not None
        given = {"blocks": blocks, "sums": counts.sums, "ones": counts.ones}
        given[self.what][...] = 0
        return result()


@pytest.mark.parametrize("what", ["blocks", "sums", "ones"])
def test_an_amplifier_cannot_change_what_is_recorded(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AMPLIFIERS._loaded, "said", Writing)
    monkeypatch.setattr(Writing, "what", what)
    with pytest.raises(ComponentError, match="read-only"):
        Step().sample()


class Warming(TemperatureStrategy):
    """Changes what it is given."""

    def temperatures(self, statistics: Any, rows: Rows) -> Any:
        temperatures = rows.column("fixed_temperature")
        temperatures += 0.5
        rows.running_entropy[...] = 0.0
        return temperatures


def test_a_strategy_cannot_change_later_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEMPERATURE_STRATEGIES._loaded, "warm", Warming)
    rows = Rows([SamplingParameters(temperature_strategy="warm", fixed_temperature=1.0)] * 2)
    statistics = StepPlanner().prepare(LOGITS, rows).temperature
    assert statistics.temperature.tolist() == [1.5, 1.5]
    assert rows.column("fixed_temperature").tolist() == [1.0, 1.0]
    assert np.isnan(rows.running_entropy).all()


@pytest.mark.parametrize("field", ["entropy_nats", "varentropy_nats2", "logit_deviation"])
def test_a_strategy_cannot_change_what_is_recorded(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cooling(TemperatureStrategy):
        def temperatures(self, statistics: Any, rows: Rows) -> Any:
            getattr(statistics, field)[...] = 0.0
            return np.ones(len(rows))

    monkeypatch.setitem(TEMPERATURE_STRATEGIES._loaded, "warm", Cooling)
    with pytest.raises(ComponentError, match="read-only"):
        Step().sample()


def test_components_of_this_project_are_not_wrapped() -> None:
    assert type(amplifier_named("zscore_mean", Settings.load())).__name__ == "ZScoreMeanAmplifier"
    assert type(strategy_named("fixed")).__name__ == "FixedTemperatureStrategy"


def test_the_amplifier_for_a_fallback_is_looked_at_too() -> None:
    amplifier = amplifier_named("said", Settings.load())
    assert amplifier.without_baseline() is amplifier
    Said.bare = Said()
    other = amplifier.without_baseline()
    Said.answer = None
    with pytest.raises(ComponentError, match="returned NoneType"):
        other.amplify(np.zeros((2, 4), dtype=np.uint8))
    for bare, reason in [(7, "of type int"), (SystemExit(3), "SystemExit: 3")]:
        Said.bare = bare
        with pytest.raises(ComponentError, match=reason):
            amplifier.without_baseline()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (7, "TypeError: its resolution is of type int"),
        (SystemExit("x" * 10_000), "SystemExit: xxx"),
        (Resolution(lattice_step=0.1, ks_distance=math.nan), "away from uniform"),
        (Resolution(lattice_step=0.1, ks_distance="far"), "TypeError"),  # type: ignore[arg-type]
    ],
)
def test_admission_refuses_in_bounded_words(said: Any, reason: str) -> None:
    Said.sharpness = said
    with pytest.raises(ConfigError, match=reason) as refusal:
        resolve_request(Settings.load(), {"qr_signal_amplifier_type": "said"})
    assert len(str(refusal.value)) < 3000


def test_a_constructor_may_do_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    amplifier: Any = classmethod(lambda cls, settings: 7)
    monkeypatch.setattr(Said, "from_settings", amplifier)
    amplifier_named.__globals__["_amplifier"].cache_clear()
    with pytest.raises(ConfigError, match="returned int, not an amplifier"):
        resolve_request(Settings.load(), {"qr_signal_amplifier_type": "said"})
    monkeypatch.setattr(Warm, "reads", frozenset({"minds"}))
    strategy_named.__globals__["_strategy"].cache_clear()
    with pytest.raises(ConfigError, match=r"reads \['minds'\], which is unknown"):
        resolve_request(Settings.load(), {"qr_temperature_strategy": "warm"})
    strategy_named.__globals__["_strategy"].cache_clear()
    monkeypatch.setattr(Warm, "reads", frozenset())
    monkeypatch.setattr(Warm, "from_environment", classmethod(lambda cls: 7))
    with pytest.raises(ConfigError, match="returned int, not a strategy"):
        resolve_request(Settings.load(), {"qr_temperature_strategy": "warm"})


def test_a_defect_survives_pickling() -> None:
    error = ComponentError("signal amplifier", "said", "u is wrong")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name) == (str(error), "said")
