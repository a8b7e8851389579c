# SPDX-License-Identifier: Apache-2.0
"""Sampling units between proposer and verifier: the law of the text, the numbers, and failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qr_sampler import (
    ConfigError,
    DiscardRecord,
    EntropySource,
    RequestOptions,
    SamplingParameters,
    Settings,
    TokenSamplingRecord,
)
from qr_sampler.host import NumpyLogits, StopConditions, TokenSequence, records_of
from qr_sampler_tsd import HeadTailLaw, SimTSU, TSUAdapter, UniformSource, craft_relative_psi
from qr_sampler_tsd.errors import MixingError, PsiError
from qr_sampler_tsd.gate import GatedUnit
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_tsd.tsu import PBitGibbsTSU, named_unit
from qr_sampler_vllm.tsd import units
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows
from qr_sampler_vllm.tsd.settings import TSDSettings
from qr_sampler_vllm.tsd.units import facts_of, unit_of
from qr_sampler_vllm.tsd.verification import canonical
from qr_sampler_vllm.tsd.verification.canonical import Canonical

RATE = 1e-9
VOCAB = 5
TEXTS = 700
LENGTH = 3
P = np.array([[0.5, 0.2, 0.15, 0.1, 0.05], [0.1, 0.3, 0.3, 0.2, 0.1], [0.05, 0.05, 0.2, 0.3, 0.4]])
"""The target after a token, by its remainder modulo 3."""
Q = [[0.2, 0.4, 0.2, 0.1, 0.1], [0.3, 0.1, 0.2, 0.2, 0.2], [0.2, 0.3, 0.3, 0.1, 0.1]]
PAYLOADS = [craft_relative_psi(row, 3) for row in Q]
PROPOSER = BigramProposer.from_payloads(
    PAYLOADS[0], {token: PAYLOADS[token % 3] for token in range(VOCAB)}
)


class Stream(EntropySource):
    """Hands out the numbers of a generator."""

    name = "named"
    blocks = False

    def __init__(self, seed: int = 11) -> None:
        self._generator = np.random.default_rng(seed)
        self.drawn = 0

    def get_random_bytes(self, n: int) -> bytes:
        self.drawn += n
        return self._generator.bytes(n)


class FakeSession:
    """An ``EngineSession`` with one source."""

    def __init__(self, source: EntropySource) -> None:
        self.settings = Settings.load(entropy_source_type="named")
        self._source = source
        self.recorded: list[Any] = []

    def source(self, name: str) -> EntropySource:
        return self._source

    def record(self, records: list[Any]) -> None:
        self.recorded += records

    def end_unrecorded(self, sequences: Iterable[TokenSequence]) -> bool:
        return False

    def raise_if_told_to(self, error: Exception) -> None:
        raise error


class Crowd:
    """Many sequences of the canonical mode, and everything that is recorded of them."""

    def __init__(self, unit: TSUAdapter | None, count: int, seed: int = 11) -> None:
        self.source = Stream(seed)
        self.session: Any = FakeSession(self.source)
        sequences: Any = SimpleNamespace(pending={})
        self.mode = Canonical(self.session, sequences, "block", unit=unit)
        options = RequestOptions(
            parameters=SamplingParameters(fixed_temperature=1.0), source="named"
        )
        self.sequences = [
            TokenSequence(options, StopConditions(frozenset()), ending_token=3)
            for _ in range(count)
        ]

    def step(self, drafts: int) -> list[list[int]]:
        """Returns the tokens of a step of those that are not complete, after the token 1."""
        short = [one for one in self.sequences if len(one.tokens) < LENGTH]
        wants = [
            DraftRequest(one.name, one, len(one.tokens), PROPOSER.start([self._last(one)]), drafts)
            for one in short
        ]
        made = self.mode.drafts(PROPOSER, wants)
        requests, logits = [], []
        for one, own in zip(short, made, strict=True):
            requests.append(RequestRows(one.name, one, None, len(logits), list(one.tokens), own))
            logits += [np.log(P[token % 3]) for token in (self._last(one), *own)]
        verified = self.mode.verify(np.array(logits, dtype=np.float32), requests)
        self.session.record(verified.records)
        for one in short:
            self.session.record(one.confirm())
        return verified.tokens

    @staticmethod
    def _last(sequence: TokenSequence) -> int:
        return sequence.tokens[-1] if sequence.tokens else 1

    @property
    def records(self) -> list[Any]:
        return list(records_of(self.session.recorded))

    def spent(self) -> int:
        kinds = (TokenSamplingRecord, DiscardRecord)
        return sum(one.block_bytes for one in self.records if isinstance(one, kinds))


@pytest.fixture(autouse=True)
def _on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "TensorLogits", lambda *_, **__: NumpyLogits())


def joint_statistic(unit: TSUAdapter | None) -> tuple[float, int]:
    """Chi-square of the first three tokens: drafts, corrections, and whatever follows them."""
    crowd = Crowd(unit, TEXTS)
    while any(len(one.tokens) < LENGTH for one in crowd.sequences):
        crowd.step(2)
    counts = Counter(tuple(one.tokens[:LENGTH]) for one in crowd.sequences)
    law = {
        text: P[1][text[0]] * P[text[0] % 3][text[1]] * P[text[1] % 3][text[2]]
        for text in product(range(VOCAB), repeat=LENGTH)
    }
    expected = np.array([TEXTS * p for p in law.values()])
    observed = np.array([counts[text] for text in law])
    common = expected >= 5
    groups = [np.append(values[common], values[~common].sum()) for values in (observed, expected)]
    assert crowd.spent() == crowd.source.drawn, "bytes are in records and in discards"
    return float(((groups[0] - groups[1]) ** 2 / groups[1]).sum()), int(common.sum())


@pytest.mark.heavy
@pytest.mark.parametrize(
    "spec", ["simulated", "pbit_tree", "gibbs:sweeps=20,tv_target=1e-9", "thrml", "thrml_tree"]
)
def test_the_joint_law_is_that_of_the_target(spec: str) -> None:
    if "thrml" in spec:
        pytest.importorskip("thrml", reason="needs an extra of qr-sampler-tsd")
    statistic, freedom = joint_statistic(named_unit(spec))
    assert statistic < stats.chi2.isf(RATE, freedom)


class Sure(SimTSU):
    """Draws the most probable token, whatever F(psi) says: no unit passes the gate so."""

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> Any:
        super().draw_tokens(law, batch_size, uniforms)
        return np.full(batch_size, law.ids[0])


@pytest.mark.heavy
def test_the_joint_law_would_show_a_unit_that_draws_something_else() -> None:
    statistic, freedom = joint_statistic(Sure())
    assert statistic > stats.chi2.isf(RATE, freedom)


# What is recorded.


@pytest.mark.parametrize(
    ("spec", "bound"), [("simulated", 1), ("pbit_tree", 3), ("gibbs:sweeps=20", 41)]
)
def test_as_many_numbers_are_drawn_as_a_draft_can_take(spec: str, bound: int) -> None:
    """Four cells are two bits; the token of the tail takes one number more."""
    crowd = Crowd(named_unit(spec), 1)
    crowd.mode.drafts(PROPOSER, [DraftRequest("0", crowd.sequences[0], 0, PROPOSER.start([1]), 2)])
    assert crowd.source.drawn == 8 * 2 * bound
    spare = sum(one.block_bytes for one in crowd.records)
    reasons = {(one.reason, one.role, one.jit, one.u) for one in crowd.records}
    assert reasons <= {("not_needed", "proposal", False, None)}
    proposal: Any = crowd.mode._pending["0"]
    assert spare + sum(len(one.data) for one in proposal.uniforms) == crowd.source.drawn


def test_drafts_are_recorded_with_their_log_q_and_the_time_of_the_unit() -> None:
    crowd = Crowd(named_unit("pbit_tree"), 60)
    crowd.step(2)
    laws = [payload.law() for payload in PAYLOADS]
    seen = set()
    for one in crowd.records:
        if isinstance(one, DiscardRecord):
            assert (one.log_q is None) is (one.reason == "not_needed")
            if one.log_q is not None:
                seen.add(one.reason)
                assert one.log_q < 0 <= (one.unit_ns or 0)
                assert one.block_bytes in (16, 24)
            continue
        proposed = [used for used in one.uniforms if used["role"] == "proposal"]
        assert [set(used) >= {"log_q", "unit_ns"} for used in proposed] == [True] * len(proposed)
        assert not any("log_q" in used for used in one.uniforms if used["role"] != "proposal")
        seen.add(one.outcome)
        if one.outcome == "accepted":
            (used,) = proposed
            before = 1 if one.position == 0 else None
            if before is not None:
                due = math.log(laws[before % 3].prob_of(one.token_id))
                assert used["log_q"] == pytest.approx(due, abs=1e-12)
            assert one.u == used["u"]
    assert seen == {"accepted", "corrected", "bonus", "rejected_draft"}


# Units that fail.


class Failing(SimTSU):
    """Fails at the draws that a test names, after it has taken a number."""

    def __init__(self, error: BaseException, at: set[int]) -> None:
        self.error, self.at, self.calls = error, at, 0

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> Any:
        tokens = super().draw_tokens(law, batch_size, uniforms)
        self.calls += 1
        if self.calls - 1 in self.at:
            raise self.error
        return tokens


class Silent(SimTSU):
    """Draws by itself."""

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> Any:
        return law.ids[:batch_size]


@pytest.mark.parametrize(
    "error",
    [MixingError("too few sweeps"), PsiError("too many cells"), OSError("unplugged"), SystemExit()],
    ids=lambda error: type(error).__name__,
)
def test_a_unit_that_fails_costs_a_draft(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(Failing(error, {0, 2}), 2)
    tokens = crowd.step(2)
    assert len(tokens[0]) == 1
    assert 1 <= len(tokens[1]) <= 2, "the first of two drafts was drawn"
    failed = [one for one in crowd.records if one.kind == "discard" and one.reason == "unit_failed"]
    assert [(one.position, one.block_bytes, one.role, one.jit) for one in failed] == [
        (0, 8, "proposal", False),
        (1, 8, "proposal", False),
    ]
    assert crowd.spent() == crowd.source.drawn
    said = [one for one in caplog.records if "nothing is drafted where" in one.message]
    assert len(said) == 1, "once for each kind of failure"


@pytest.mark.heavy
def test_failures_leave_the_law_alone() -> None:
    """Every third draw fails, whatever it would be."""
    statistic, freedom = joint_statistic(Failing(OSError("noise"), set(range(0, 10**6, 3))))
    assert statistic < stats.chi2.isf(RATE, freedom)


def test_a_chain_that_does_not_mix_drafts_nothing() -> None:
    crowd = Crowd(PBitGibbsTSU(1, 1e-12), 3)
    assert [len(own) for own in crowd.step(2)] == [1, 1, 1]
    assert crowd.spent() == crowd.source.drawn
    assert {one.reason for one in crowd.records if one.kind == "discard"} == {"not_needed"}


def test_a_unit_takes_its_numbers_from_the_source() -> None:
    crowd = Crowd(Silent(), 2)
    assert [len(own) for own in crowd.step(2)] == [1, 1]
    assert crowd.spent() == crowd.source.drawn


def test_a_unit_without_a_bound_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    unit = SimTSU()
    unit.most_uniforms = lambda cells: 10**9  # type: ignore[method-assign]
    crowd = Crowd(unit, 2)
    assert [len(own) for own in crowd.step(2)] == [1, 1]
    assert crowd.spent() == crowd.source.drawn == 8 * 2
    assert "must be an int from 1 to 65536" in caplog.text


def test_larger_payloads_than_any_before_are_drafted_in_the_next_step() -> None:
    small, large = craft_relative_psi(Q[0], 1), craft_relative_psi(Q[0], 4)
    proposer = BigramProposer.from_payloads(large, {1: small})
    crowd = Crowd(named_unit("pbit_tree"), 1)
    lengths = []
    for _ in range(2):
        request = DraftRequest("0", crowd.sequences[0], 0, proposer.start([1]), 2)
        (drafts,) = crowd.mode.drafts(proposer, [request])
        lengths.append(len(drafts))
    # Two numbers a draft are enough for two cells, not for five.
    assert lengths == [1, 2]


# The unit of a deployment.


@pytest.fixture
def _untested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_passed", {})


@pytest.mark.usefixtures("_untested")
def test_the_gate_is_passed_once_in_a_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="vllm.qr_sampler")
    settings = TSDSettings(mode="canonical", unit="tree:dac_bits=12")
    for _ in range(2):
        unit = unit_of(settings)
        assert isinstance(unit, GatedUnit)
    said = [one.message for one in caplog.records if "gate of" in one.message]
    assert len(said) == 1
    assert "gate of PBitTreeTSU(dac_bits=12), 200000 draws per payload: passed, in" in said[0]
    facts = facts_of(unit)
    assert facts["unit"] == "PBitTreeTSU(dac_bits=12)"
    assert 0 < facts["gate"]["largest_total_variation"] < facts["gate"]["its_bound"]


@pytest.mark.usefixtures("_untested")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tree:dac_bits=6", r"QR_TSD_UNIT=tree:dac_bits=6: gate of PBitTreeTSU.*: failed: .*p = "),
        ("gibbs:sweeps=1", "QR_TSD_UNIT=gibbs:sweeps=1: 1 sweeps leave a total variation of"),
        ("gibs", "QR_TSD_UNIT=gibs: unit='gibs' is unknown; there are: simulated"),
    ],
)
def test_a_unit_that_does_not_pass_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unit_of(TSDSettings(mode="canonical", unit=spec))


def test_a_mode_that_draws_no_drafts_refuses_a_unit() -> None:
    assert unit_of(TSDSettings(mode="exact_match")) is None
    assert facts_of(None) == {"unit": None}
    with pytest.raises(ConfigError, match="QR_TSD_UNIT=thrml would draw nothing: QR_TSD_MODE=exac"):
        unit_of(TSDSettings(mode="exact_match", unit="thrml"))
