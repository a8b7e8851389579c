# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping of both model runners, with stand-ins for vLLM's objects.

These tests run where neither vLLM nor torch is installed. The same code meets vLLM's own batch and
its real engines in ``tests/engine``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    ConfigError,
    DiscardRecord,
    MemorySink,
    Rows,
    RunningMean,
    SamplingPipeline,
    Settings,
    TokenSamplingRecord,
)
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_vllm import runner_v1, runner_v2
from qr_sampler_vllm.requests import ActiveRequest, Choice
from qr_sampler_vllm.runner_v1 import RunnerV1
from qr_sampler_vllm.runner_v2 import RunnerV2

VOCAB = 16


class Direction(Enum):
    """Same names as vLLM's ``MoveDirectionality``."""

    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass
class Update:
    """Same fields as vLLM's ``BatchUpdate``."""

    batch_size: int
    removed: list[int] = field(default_factory=list)
    added: list[Any] = field(default_factory=list)
    moved: list[Any] = field(default_factory=list)


class MemorySession:
    """A session on plain arrays that keeps its records in memory."""

    def __init__(self, vllm_config: Any, runner: str) -> None:
        self.settings = Settings.load(sample_count=4, max_ks_distance=1)
        self.source = ConstantEntropySource()
        self.pipeline = SamplingPipeline(self.settings, self.source)
        self.sink = MemorySink()
        self.seen: list[list[float]] = []

    def sample(self, logits: Any, lines: Any, rows: Rows) -> Any:
        self.seen.append(rows.running_entropy.tolist())
        return self.pipeline.sample(logits[list(lines)], rows)

    def record(self, records: Any) -> None:
        self.sink.write(records)


@pytest.fixture(autouse=True)
def memory_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_v1, "EngineSession", MemorySession)
    monkeypatch.setattr(runner_v2, "EngineSession", MemorySession)
    monkeypatch.setattr(runner_v2, "_warmup_params", lambda: params(top_k=50, warmup=True))


def params(
    key: str | None = None,
    *,
    stop: tuple[int, ...] = (),
    eos: int | None = None,
    **extra: Any,
) -> SimpleNamespace:
    arguments = {f"qr_{name}": value for name, value in extra.items() if name != "warmup"}
    if key is not None:
        arguments["qr_request_key"] = key
    return SimpleNamespace(
        extra_args=arguments or None,
        stop_token_ids=list(stop),
        eos_token_id=eos,
        warmup=extra.get("warmup", False),
    )


def logits(rows: int) -> Any:
    return np.random.default_rng(0).normal(size=(rows, VOCAB)).astype(np.float32)


def records(runner: Any) -> list[Any]:
    return list(runner._session.sink.records)


class TestRunnerV1:
    def test_records_a_token_once_vllm_has_appended_it(self) -> None:
        runner, output = RunnerV1(object()), list[int]()
        runner.update_state(Update(1, added=[(0, params("a"), None, output)]))
        runner.apply(logits(1))
        assert records(runner) == []
        output.append(-1)
        runner.update_state(None)
        (record,) = records(runner)
        assert isinstance(record, TokenSamplingRecord)
        assert (record.request_key, record.position) == ("a", 0)

    def test_unfinished_prefill_becomes_a_discard(self) -> None:
        runner, output = RunnerV1(object()), list[int]()
        runner.update_state(Update(1, added=[(0, params("a"), None, output)]))
        runner.apply(logits(1))
        runner.update_state(None)
        runner.apply(logits(1))
        output.append(3)
        runner.flush()
        discard, token = records(runner)
        assert isinstance(discard, DiscardRecord)
        assert (discard.reason, discard.position, discard.block_bytes) == ("not_emitted", 0, 4)
        assert isinstance(token, TokenSamplingRecord)
        assert token.position == 0

    def test_last_token_of_a_removed_request_is_recorded_once(self) -> None:
        runner, output = RunnerV1(object()), list[int]()
        runner.update_state(Update(1, added=[(0, params("a"), None, output)]))
        runner.apply(logits(1))
        output.append(1)
        runner.update_state(Update(0, removed=[0]))
        runner.flush()
        assert [record.request_key for record in records(runner)] == ["a"]

    def test_replaced_row_is_settled_for_its_old_occupant(self) -> None:
        runner, first, second = RunnerV1(object()), list[int](), list[int]()
        runner.update_state(Update(1, added=[(0, params("a"), None, first)]))
        runner.apply(logits(1))
        first.append(1)
        runner.update_state(Update(1, added=[(0, params("b"), None, second)]))
        runner.apply(logits(1))
        second.append(1)
        runner.flush()
        assert [record.request_key for record in records(runner)] == ["a", "b"]

    def test_a_request_without_a_key_gets_a_unique_one(self) -> None:
        runner = RunnerV1(object())
        outputs: list[list[int]] = [[], []]
        added = [(row, params(), None, outputs[row]) for row in range(2)]
        runner.update_state(Update(2, added=added))
        runner.apply(logits(2))
        for output in outputs:
            output.append(0)
        runner.flush()
        keys = {record.request_key for record in records(runner)}
        assert len(keys) == 2
        assert all(keys)

    def test_empty_batch_draws_nothing(self) -> None:
        runner = RunnerV1(object())
        runner.update_state(None)
        rows = logits(1)
        assert runner.apply(rows) is rows
        assert runner._session.source.requests == []  # type: ignore[attr-defined]

    def test_each_row_obeys_its_own_overrides_after_a_swap(self) -> None:
        runner = RunnerV1(object())
        outputs: list[list[int]] = [[], []]
        added = [
            (0, params("narrow", top_k=1), None, outputs[0]),
            (1, params("wide"), None, outputs[1]),
        ]
        runner.update_state(Update(2, added=added))
        runner.update_state(Update(2, moved=[(0, 1, Direction.SWAP)]))
        runner.apply(logits(2))
        for output in outputs:
            output.append(0)
        runner.flush()
        candidates = {record.request_key: record.candidates for record in records(runner)}
        assert candidates == {"narrow": 1, "wide": VOCAB}


class Context(SimpleNamespace):
    """Same host fields as vLLM's ``LogitsContext``."""

    def __init__(self, slots: list[int], lengths: list[int]) -> None:
        super().__init__(idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=np.array(lengths))


def states(prompt: list[int], prefill: list[int] | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        max_num_reqs=len(prompt),
        prompt_len=SimpleNamespace(np=np.array(prompt)),
        prefill_len=SimpleNamespace(np=np.array(prefill or prompt)),
    )


class TestRunnerV2:
    def test_positions_count_from_the_end_of_the_prompt(self) -> None:
        runner = RunnerV2(object(), states([0, 5, 0, 7]))
        assert runner.add_request(3, params("late"))
        assert runner.add_request(1, params("early"))
        runner.apply(logits(2), Context([3, 1], [7, 8]))
        found = {record.request_key: record.position for record in records(runner)}
        assert found == {"late": 0, "early": 3}

    def test_unfinished_prefill_spends_nothing_and_leaves_the_row_alone(self) -> None:
        runner = RunnerV2(object(), states([32, 4]))
        runner.add_request(0, params("chunked"))
        runner.add_request(1, params("ready"))
        runner.apply(logits(2), Context([0, 1], [15, 4]))
        assert [record.request_key for record in records(runner)] == ["ready"]
        assert runner._session.source.requests == [4]  # type: ignore[attr-defined]

    def test_resumed_request_goes_on_at_its_position(self) -> None:
        runner = RunnerV2(object(), states([4], prefill=[9]))
        runner.add_request(0, params("resumed"))
        runner.apply(logits(1), Context([0], [8]))
        runner.apply(logits(1), Context([0], [9]))
        assert [record.position for record in records(runner)] == [5]

    def test_warmup_draws_nothing(self) -> None:
        runner = RunnerV2(object(), states([3]))
        assert not runner.add_request(0, params(top_k=50, warmup=True))
        rows = logits(1)
        assert runner.apply(rows, Context([0], [3])) is rows
        assert runner._session.source.requests == []  # type: ignore[attr-defined]
        assert records(runner) == []

    def test_a_recycled_slot_forgets_its_last_request(self) -> None:
        runner = RunnerV2(object(), states([2]))
        runner.add_request(0, params("old", top_k=1))
        runner.apply(logits(1), Context([0], [2]))
        runner.add_request(0, params("new"))
        runner.apply(logits(1), Context([0], [2]))
        old, new = records(runner)
        assert (old.request_key, old.candidates) == ("old", 1)
        assert (new.request_key, new.candidates) == ("new", VOCAB)

    def test_a_token_after_the_stop_token_is_a_discard(self) -> None:
        runner = RunnerV2(object(), states([2]))
        runner.add_request(0, params("a", stop=tuple(range(VOCAB))))
        for length in (2, 3):
            runner.apply(logits(1), Context([0], [length]))
        token, discard = records(runner)
        assert isinstance(token, TokenSamplingRecord)
        assert isinstance(discard, DiscardRecord)
        assert discard.reason == "after_stop"


def spread_logits(*spreads: float) -> Any:
    """Rows of different entropies, which a step can be told by."""
    return np.outer(spreads, logits(1)[0]).astype(np.float32)


DRIFTING = {
    "temperature_strategy": "varentropy",
    "varentropy_base_temp": 1.0,
    "varentropy_variance_weight": 0.0,
    "varentropy_drift_weight": 0.5,
    "varentropy_drift_rate": 0.25,
}


def as_strategies_see(token: TokenSamplingRecord) -> float:
    """Returns the entropy of a record rounded to a multiple of 2**-10."""
    return round(token.entropy_nats * 1024.0) / 1024.0


def replayed(tokens: list[TokenSamplingRecord]) -> list[float]:
    """The running mean before each token of one request, recomputed from its records."""
    mean, before = RunningMean(rate=0.25), []
    for token in tokens:
        before.append(mean.value)
        mean.observe(as_strategies_see(token))
    return before


class TestRunningEntropy:
    """The running mean is that of the emitted tokens, whatever else was sampled."""

    def seen(self, runner: Any) -> list[list[float]]:
        return list(runner._session.seen)

    def test_v1_carries_the_mean_of_each_request_through_the_batch(self) -> None:
        runner = RunnerV1(object())
        outputs: dict[str, list[int]] = {"a": [], "b": []}
        added = [(row, params(key, **DRIFTING), None, outputs[key]) for row, key in enumerate("ab")]
        runner.update_state(Update(2, added=added))
        for step in range(4):
            runner.apply(spread_logits(0.5 + step, 2.5 - 0.5 * step))
            for output in outputs.values():
                output.append(0)
            swap = Update(2, moved=[(0, 1, Direction.SWAP)])
            runner.update_state(swap if step == 1 else None)
        of = {key: [r for r in records(runner) if r.request_key == key] for key in "ab"}
        means = {key: replayed(of[key]) for key in "ab"}
        expected = [[means["a"][step], means["b"][step]] for step in (0, 1)]
        expected += [[means["b"][step], means["a"][step]] for step in (2, 3)]
        np.testing.assert_array_equal(self.seen(runner), expected)
        assert np.isnan(expected[0]).all()
        assert np.isfinite(expected[1:]).all()
        assert len({value for step in expected[1:] for value in step}) == 6

    def test_v1_forgets_what_vllm_threw_away(self) -> None:
        runner, output = RunnerV1(object()), list[int]()
        runner.update_state(Update(1, added=[(0, params("a", **DRIFTING), None, output)]))
        for step, emitted in enumerate((False, False, True, False, True, True)):
            runner.apply(spread_logits(0.5 + step))
            if emitted:
                output.append(0)
            runner.update_state(None)
        tokens = [r for r in records(runner) if isinstance(r, TokenSamplingRecord)]
        assert len(records(runner)) == 6
        before = replayed(tokens)
        seen = [mean for (mean,) in self.seen(runner)]
        np.testing.assert_array_equal(
            seen, [before[0], before[0], before[0], before[1], before[1], before[2]]
        )

    def test_v1_starts_afresh_after_a_preemption(self) -> None:
        runner, output = RunnerV1(object()), list[int]()
        for spread in (1.0, 2.0):
            runner.update_state(Update(1, added=[(0, params("a", **DRIFTING), None, output)]))
            runner.apply(spread_logits(spread))
            output.append(0)
            runner.update_state(Update(0, removed=[0]))
        assert np.isnan(self.seen(runner)).all()

    def test_v2_carries_the_mean_of_each_request_through_its_slots(self) -> None:
        runner = RunnerV2(object(), states([2, 2, 9]))
        for slot, key in enumerate("abc"):
            runner.add_request(slot, params(key, **DRIFTING))
        runner.apply(spread_logits(0.5, 1.0, 1.5), Context([0, 1, 2], [2, 2, 4]))
        runner.apply(spread_logits(2.0, 2.5, 3.0), Context([2, 1, 0], [9, 3, 3]))
        runner.apply(spread_logits(0.7, 0.9), Context([1, 2], [4, 10]))
        of = {key: [r for r in records(runner) if r.request_key == key] for key in "abc"}
        means = {key: replayed(of[key]) for key in "abc"}
        assert [len(means[key]) for key in "abc"] == [2, 3, 2]
        first, second, third = self.seen(runner)
        np.testing.assert_array_equal(first, [means["a"][0], means["b"][0]])
        np.testing.assert_array_equal(second, [means["c"][0], means["b"][1], means["a"][1]])
        np.testing.assert_array_equal(third, [means["b"][2], means["c"][1]])

    def test_a_token_after_the_stop_token_does_not_count(self) -> None:
        runner = RunnerV2(object(), states([2]))
        runner.add_request(0, params("a", stop=tuple(range(VOCAB)), **DRIFTING))
        for length in (2, 3, 4):
            runner.apply(spread_logits(float(length)), Context([0], [length]))
        token = records(runner)[0]
        np.testing.assert_array_equal(
            self.seen(runner), [[np.nan], [as_strategies_see(token)], [as_strategies_see(token)]]
        )

    def test_temperatures_follow_from_the_records(self) -> None:
        runner = RunnerV2(object(), states([2]))
        runner.add_request(0, params("a", varentropy_entropy_weight=0.2, **DRIFTING))
        for length in range(2, 12):
            runner.apply(spread_logits(0.3 * length), Context([0], [length]))
        tokens = records(runner)
        for token, before in zip(tokens, replayed(tokens), strict=True):
            drift = 0.0 if np.isnan(before) else as_strategies_see(token) - before
            expected = 1.0 + 0.2 * as_strategies_see(token) + 0.5 * drift
            assert token.temperature == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("offset", "stopped"), [(0, True), (1, False), (None, False)])
def test_the_end_of_text_token_ends_a_request_unless_ignored(
    offset: int | None, stopped: bool
) -> None:
    settings = Settings.load(sample_count=4, max_ks_distance=1)
    pipeline = SamplingPipeline(settings, ConstantEntropySource())
    step = pipeline.sample(logits(1), Rows([settings.sampling]))
    assert step is not None
    token_id = int(step.selection.token_ids[0])
    eos = None if offset is None else token_id + offset
    request = ActiveRequest.admit(params(eos=eos), settings)
    request.emitted(Choice(step, 0, position=5))
    assert request.stopped is stopped


def test_second_runner_of_one_engine_is_refused() -> None:
    vllm_config = object()
    first = RunnerV1(vllm_config)
    with pytest.raises(ConfigError, match="loaded twice"):
        RunnerV1(vllm_config)
    del first
    RunnerV1(vllm_config)
