# SPDX-License-Identifier: Apache-2.0
"""The sampling step: one draw, after the logits, for the rows that can be decided."""

from __future__ import annotations

import gc
import time
import weakref
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import (
    EntropyDraw,
    EntropyUnavailableError,
    FallbackEntropySource,
    FastSelector,
    ReferenceSelector,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Selector,
    Settings,
    StepResult,
    ZScoreMeanAmplifier,
    discard_record,
    resolve_request,
    token_record,
)
from qr_sampler.testing import ConstantEntropySource, RecordedEntropySource

DEPLOYMENT = Settings.model_construct()

SECOND_AMPLIFIER = """
    import numpy as np
    from qr_sampler import AmplificationResult, SignalAmplifier

    class FirstByte(SignalAmplifier):
        def amplify(self, blocks, counts=None):
            u = (blocks[:, 0] + 0.5) / 256.0
            return AmplificationResult(u=u, statistic=blocks[:, 0].astype(np.float64))
"""


@pytest.fixture
def _first_byte(install_plugin: Any) -> None:
    install_plugin(
        "first-byte",
        "[qr_sampler.signal_amplifiers]\nfirst_byte = first_byte_amplifier:FirstByte\n",
        {"first_byte_amplifier": SECOND_AMPLIFIER},
    )


def mixed_parameters(rng: np.random.Generator, count: int, *amplifiers: str) -> Rows:
    return Rows(
        [
            SamplingParameters(
                sample_count=int(rng.choice([1, 2, 7, 64, 200])),
                signal_amplifier_type=str(rng.choice(amplifiers)),
                temperature_strategy=str(rng.choice(["fixed", "edt"])),
                fixed_temperature=float(rng.uniform(0.2, 3.0)),
                top_k=int(rng.integers(0, 20)),
                min_p=float(rng.choice([0.0, 0.05])),
                top_p=float(rng.uniform(0.3, 1.0)),
                truncate_first=bool(rng.random() < 0.5),
            )
            for _ in range(count)
        ]
    )


def outcome(result: StepResult, index: int) -> tuple[float, ...]:
    plan, picked = result.plan, result.selection
    return (
        picked.token_ids[index],
        picked.rank[index],
        picked.probability[index],
        picked.candidates[index],
        result.amplification.u[index],
        result.amplification.statistic[index],
        plan.temperature.temperature[index],
        plan.temperature.entropy_nats[index],
        result.block_bytes[index],
        result.block_sum[index],
    )


@pytest.mark.usefixtures("_first_byte")
@pytest.mark.parametrize("seed", range(20))
def test_a_mixed_batch_equals_its_rows_one_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, vocab_size = int(rng.integers(1, 12)), int(rng.integers(1, 80))
    logits = rng.normal(0.0, 3.0, (count, vocab_size)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.2] = -np.inf
    logits[rng.random(count) < 0.2] = -np.inf
    rows = mixed_parameters(rng, count, "zscore_mean", "first_byte")
    recording = rng.bytes(10_000)

    together = SamplingPipeline(DEPLOYMENT, RecordedEntropySource(recording)).sample(logits, rows)
    tape = RecordedEntropySource(recording)
    alone = SamplingPipeline(DEPLOYMENT, tape)
    decided = 0
    for line in range(count):
        result = alone.sample(logits[line : line + 1], rows.take(np.array([line])))
        if result is None:
            assert np.isneginf(logits[line]).all()
            continue
        assert together is not None
        assert together.plan.lines[decided] == line
        assert outcome(together, decided) == outcome(result, 0)
        decided += 1
    assert decided == (0 if together is None else together.plan.lines.size)


def test_the_step_is_the_composition_of_its_parts() -> None:
    rng = np.random.default_rng(12)
    logits = rng.normal(0.0, 2.0, (5, 60)).astype(np.float32)
    rows = Rows([SamplingParameters(sample_count=n, top_p=0.9) for n in (3, 8, 3, 1, 20)])
    recording = rng.bytes(35)
    result = SamplingPipeline(DEPLOYMENT, RecordedEntropySource(recording)).sample(logits, rows)
    assert result is not None
    selector, start = ReferenceSelector(), 0
    temperature = np.full(5, 0.7)
    measurement = selector.measure(logits, rows, temperature, np.zeros(5, dtype=np.intp))
    plan = selector.prepare(measurement, temperature)
    us = []
    for size in (3, 8, 3, 1, 20):
        block = np.frombuffer(recording[start : start + size], np.uint8)[np.newaxis]
        us.append(ZScoreMeanAmplifier().amplify(block).u[0])
        start += size
    assert result.amplification.u.tolist() == us
    expected = selector.pick(plan, np.array(us))
    assert result.selection.token_ids.tolist() == expected.token_ids.tolist()
    assert result.block_bytes.tolist() == [3, 8, 3, 1, 20]
    assert result.block_sum.tolist() == [
        sum(recording[a:b]) for a, b in ((0, 3), (3, 11), (11, 14), (14, 15), (15, 35))
    ]
    assert (result.draw_bytes, result.draw.data) == (35, b"")
    exact = measurement.entropy_nats
    np.testing.assert_allclose(result.plan.temperature.entropy_nats, exact, rtol=1e-5)


def test_block_sums_of_long_blocks_do_not_overflow() -> None:
    rows = Rows([SamplingParameters(sample_count=2**20)])
    pipeline = SamplingPipeline(DEPLOYMENT, ConstantEntropySource(255))
    result = pipeline.sample(np.zeros((1, 3), np.float32), rows)
    assert result is not None
    assert result.block_sum.tolist() == [255 * 2**20]


UNDECIDABLE = {
    "all masked": [-np.inf, -np.inf, -np.inf],
    "one nan": [0.0, np.nan, -np.inf],
    "all nan": [np.nan] * 3,
    "positive infinity": [0.0, np.inf, -np.inf],
    "both infinities and nan": [np.inf, -np.inf, np.nan],
}


@pytest.mark.parametrize("row", UNDECIDABLE.values(), ids=UNDECIDABLE)
def test_undecidable_rows_are_left_out_and_cost_nothing(row: list[float]) -> None:
    logits = np.array([row, [0.0, 1.0, -np.inf], row, [2.0, 1.0, 0.0], row], dtype=np.float32)
    rows = Rows([SamplingParameters(sample_count=n) for n in (1, 10, 100, 1_000, 10_000)])
    source = ConstantEntropySource()
    result = SamplingPipeline(DEPLOYMENT, source).sample(logits, rows)
    assert result is not None
    assert result.plan.lines.tolist() == [1, 3]
    assert [p.sample_count for p in result.plan.rows.parameters] == [10, 1_000]
    assert source.requests == [1_010]
    assert result.selection.token_ids.shape == (2,)


@pytest.mark.parametrize("row", UNDECIDABLE.values(), ids=UNDECIDABLE)
def test_nothing_is_drawn_when_no_row_can_be_decided(row: list[float]) -> None:
    source = ConstantEntropySource()
    pipeline = SamplingPipeline(DEPLOYMENT, source)
    rows = Rows([SamplingParameters()] * 2)
    assert pipeline.sample(np.array([row, row], dtype=np.float32), rows) is None
    assert source.requests == []


class JournalSource(ConstantEntropySource):
    """Notes every draw in a journal that it shares with others."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.journal = journal

    def draw(self, n: int) -> EntropyDraw:
        self.journal.append(f"draw {n}")
        return super().draw(n)


def test_bytes_are_asked_for_once_and_after_all_preparation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal: list[str] = []
    for owner, name in (
        (FastSelector, "measure"),
        (FastSelector, "prepare"),
        (ZScoreMeanAmplifier, "amplify"),
        (FastSelector, "pick"),
    ):
        original = getattr(owner, name)

        def noted(*args: Any, _original: Any = original, _name: str = name) -> Any:
            journal.append(_name)
            return _original(*args)

        monkeypatch.setattr(owner, name, noted)
    pipeline = SamplingPipeline(DEPLOYMENT, JournalSource(journal))
    logits = np.zeros((3, 4), np.float32)
    rows = Rows([SamplingParameters(sample_count=n) for n in (5, 6, 5)])
    plan = pipeline.prepare(logits, rows)
    assert journal == ["measure", "prepare"]
    result = pipeline.complete(plan)
    assert journal == ["measure", "prepare", "draw 16", "amplify", "amplify", "pick"]
    assert plan.logits_ready_ns <= result.draw.requested_ns <= result.draw.received_ns
    with pytest.raises(ValueError, match="complete already"):
        pipeline.complete(plan)
    assert len(journal) == 6


@pytest.mark.parametrize("selector", [FastSelector(), ReferenceSelector()], ids=["fast", "ref"])
def test_the_barrier_time_is_that_of_the_measurement(
    selector: FastSelector | ReferenceSelector,
) -> None:
    """The logits of these selectors are complete when the call begins."""
    pipeline = SamplingPipeline(DEPLOYMENT, ConstantEntropySource(), selector)
    logits, rows = np.zeros((1, 2), np.float32), Rows([SamplingParameters()])
    before = time.monotonic_ns()
    plan = pipeline.prepare(logits, rows)
    assert before <= plan.logits_ready_ns <= time.monotonic_ns()


def test_preparing_draws_nothing() -> None:
    source = ConstantEntropySource(fail_with="must not be touched")
    pipeline = SamplingPipeline(DEPLOYMENT, source)
    plan = pipeline.prepare(np.zeros((2, 5), np.float32), Rows([SamplingParameters()] * 2))
    assert plan.lines.tolist() == [0, 1]
    with pytest.raises(EntropyUnavailableError, match="must not be touched"):
        pipeline.complete(plan)


def test_logits_are_not_modified() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0.0, 3.0, (6, 50)).astype(np.float32)
    logits[2] = np.nan
    logits[3, 4:] = -np.inf
    before = logits.copy()
    logits.flags.writeable = False
    pipeline = SamplingPipeline(DEPLOYMENT, ConstantEntropySource())
    assert pipeline.sample(logits, mixed_parameters(rng, 6, "zscore_mean")) is not None
    np.testing.assert_array_equal(logits, before)


def test_a_fallback_is_visible_in_the_step() -> None:
    source = FallbackEntropySource(
        ConstantEntropySource(name="device", fail_with="unplugged"), ConstantEntropySource(200)
    )
    result = SamplingPipeline(DEPLOYMENT, source).sample(
        np.zeros((1, 9), np.float32), Rows([SamplingParameters(sample_count=4)])
    )
    assert result is not None
    assert (result.draw.fallback, result.draw.source) == (True, "constant")
    assert result.draw.fallback_reason == "device: unplugged"
    assert result.selection.token_ids.tolist() == [8]


@settings(max_examples=200)
@given(st.binary(min_size=64, max_size=64))
def test_more_signal_never_means_a_more_probable_token(data: bytes) -> None:
    """u grows with the byte sum, and the rank with u."""
    logits = np.random.default_rng(0).normal(0.0, 1.0, (1, 100)).astype(np.float32).repeat(8, 0)
    source = RecordedEntropySource(data)
    rows = Rows([SamplingParameters(sample_count=8)] * 8)
    result = SamplingPipeline(DEPLOYMENT, source).sample(logits, rows)
    assert result is not None
    order = np.argsort(result.block_sum, kind="stable")
    assert (np.diff(result.selection.rank[order]) >= 0).all()


def test_records_repeat_the_step() -> None:
    settings_ = Settings.load(sample_count=16)
    asked = {"qr_request_key": "r", "qr_trial": "t", "qr_condition": "c", "qr_top_k": 3}
    options = resolve_request(settings_, asked)
    logits = np.array([[0.0] * 4, [-np.inf] * 4, [3.0, 1.0, 2.0, 0.0]], np.float32)
    source = ConstantEntropySource(140, name="device", max_bytes_per_request=10)
    step = SamplingPipeline(settings_, source).sample(logits, Rows([options.parameters] * 3))
    assert step is not None
    record = token_record(step, 1, request_key="r", sequence="s", position=5, options=options)
    assert record.as_dict() == {
        "kind": "token",
        "request_key": "r",
        "sequence": "s",
        "position": 5,
        "token_id": step.selection.token_ids[1],
        "u": step.amplification.u[1],
        "statistic": step.amplification.statistic[1],
        "lattice_step": step.amplification.lattice_step[1],
        "temperature": 0.7,
        "entropy_nats": step.plan.temperature.entropy_nats[1],
        "varentropy_nats2": step.plan.temperature.varentropy_nats2[1],
        "running_entropy_nats": None,
        "rank": step.selection.rank[1],
        "probability": step.selection.probability[1],
        "candidates": 3,
        "amplifier": "zscore_mean",
        "baseline": "",
        "temperature_strategy": "fixed",
        "source": "device",
        "source_distribution": "",
        "source_version": "",
        "fallback": False,
        "fallback_reason": "",
        "device_id": "",
        "device_timestamp_ns": None,
        "block_bytes": 16,
        "block_sum": 16 * 140,
        "block_ones": 16 * 3,
        "draw_bytes": 32,
        "draw_requests": 4,
        "t_logits_ns": step.plan.logits_ready_ns,
        "t_request_ns": step.draw.requested_ns,
        "t_received_ns": step.draw.received_ns,
        "wall_time_ns": step.draw.wall_time_ns,
        "trial": "t",
        "condition": "c",
        "commitment": "",
        "row_digest": "",
        "echo_verified": None,
        "signature_verified": None,
        "health": "untested",
        "role": None,
        "outcome": None,
        "jit": True,
        "uniforms": None,
        "emitted": True,
    }
    plain = (bool, int, float, str, type(None))
    assert all(type(value) in plain for value in record.as_dict().values())

    discard = discard_record(step, 0, request_key="r", sequence="s", position=6, reason="aborted")
    assert discard.as_dict() == {
        "kind": "discard",
        "request_key": "r",
        "sequence": "s",
        "position": 6,
        "reason": "aborted",
        "source": "device",
        "fallback": False,
        "block_bytes": 16,
        "u": step.amplification.u[0],
        "t_logits_ns": step.plan.logits_ready_ns,
        "t_request_ns": step.draw.requested_ns,
        "t_received_ns": step.draw.received_ns,
        "wall_time_ns": step.draw.wall_time_ns,
        "commitment": "",
        "row_digest": "",
        "role": None,
        "jit": True,
        "log_q": None,
        "unit_ns": None,
    }
    assert all(type(value) in plain for value in discard.as_dict().values())


@pytest.mark.parametrize("selector", [FastSelector(), ReferenceSelector()], ids=["fast", "ref"])
def test_the_result_of_a_step_does_not_hold_on_to_its_logits(
    selector: Selector[Any, Any],
) -> None:
    pipeline = SamplingPipeline(
        Settings.load(sample_count=8, max_ks_distance=1.0), ConstantEntropySource(), selector
    )
    logits = np.zeros((2, 5_000), dtype=np.float32)
    rows = Rows([SamplingParameters(sample_count=8)] * 2)
    reference = weakref.ref(logits)
    result = pipeline.sample(logits, rows)
    assert result is not None
    del logits
    gc.collect()
    assert reference() is None
    assert result.plan.lines.tolist() == [0, 1]


def test_no_array_of_a_result_leads_back_into_the_next_step() -> None:
    pipeline = SamplingPipeline(Settings.load(), ConstantEntropySource())
    rows = Rows([SamplingParameters(sample_count=64)] * 2)
    result = pipeline.sample(np.zeros((2, 8), dtype=np.float32), rows)
    assert result is not None
    with pytest.raises(ValueError, match="read-only"):
        result.block_bytes[:] = 16


def test_a_step_keeps_counts_and_provenance_and_no_bytes() -> None:
    """Its result is kept until it is known what became of its tokens."""
    rows = Rows([SamplingParameters(sample_count=50_000)] * 2)
    source = ConstantEntropySource(140, name="device")
    step = SamplingPipeline(DEPLOYMENT, source).sample(np.zeros((2, 4), np.float32), rows)
    assert step is not None
    assert (step.draw_bytes, step.draw.source, step.block_sum.tolist()) == (
        100_000,
        "device",
        [140 * 50_000] * 2,
    )
    found: dict[int, Any] = {}
    waiting: list[Any] = [step]
    while waiting:
        one = waiting.pop()
        if id(one) not in found and not isinstance(one, (type, ModuleType, FunctionType)):
            found[id(one)] = one
            waiting += gc.get_referents(one)
    data = [one for one in found.values() if isinstance(one, (bytes, np.ndarray))]
    assert data
    assert max(memoryview(one).nbytes for one in data) < 1000
