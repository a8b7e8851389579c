# SPDX-License-Identifier: Apache-2.0
"""The parts of TSD that need no vLLM: numbers, laws, sequences, drafts and their records."""

from __future__ import annotations

import hashlib
import math
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qr_sampler import (
    DiscardRecord,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    FastSelector,
    Record,
    ReferenceSelector,
    RequestOptions,
    Rows,
    SamplingParameters,
)
from qr_sampler.host import ForcedEnd, SequenceEnd, StopConditions, TokenSequence, records_of
from qr_sampler_tsd import Role, UniformsExhaustedError, craft_relative_psi
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_vllm.tsd.drafter import DraftRequest, draft_limit
from qr_sampler_vllm.tsd.sequences import Sequences
from qr_sampler_vllm.tsd.verification.proposals import draw_proposals
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw, StepUniforms
from qr_sampler_vllm.tsd.verification.target_laws import TargetLaws


def draw_of(data: bytes, at_ns: int = 5) -> EntropyDraw:
    return EntropyDraw(
        data=data, source="named", requested_ns=at_ns, received_ns=at_ns + 1, wall_time_ns=1
    )


def uniforms_of(data: bytes, first: int, count: int) -> StepUniforms:
    draw = draw_of(data)
    return StepUniforms(draw.data, NumbersDraw.of(draw, 4), first, count)


def sequence(max_tokens: int | None = None, source: str = "named") -> TokenSequence:
    options = RequestOptions(parameters=SamplingParameters(), source=source)
    return TokenSequence(options, StopConditions(frozenset(), max_tokens=max_tokens))


# Numbers of a draw.


def test_numbers_are_handed_out_once_and_accounted() -> None:
    words = np.array([0, 2**63, 2**64 - 1, 2**62], dtype="<u8")
    uniforms = uniforms_of(words.tobytes(), 1, 2)
    assert uniforms.draw_one(Role.ACCEPT) == 0.5
    assert uniforms.draw_one(Role.RESIDUAL) == 1.0 - 2.0**-53
    assert (uniforms.left, dict(uniforms.drawn)) == (0, {Role.ACCEPT: 1, Role.RESIDUAL: 1})
    assert b"".join(used.data for used in uniforms.used) == words[1:3].tobytes()
    assert [used.offset for used in uniforms.used] == [8, 16]
    (origin,) = {used.origin for used in uniforms.used}
    assert (origin.draw.data, origin.draw_bytes, origin.logits_ready_ns) == (b"", 32, 4)
    assert origin.data_sha256 == hashlib.sha256(words.tobytes()).hexdigest()
    with pytest.raises(UniformsExhaustedError, match="1 uniforms are wanted and 0 were drawn"):
        uniforms.draw_one(Role.ACCEPT)


def test_only_proposals_come_before_the_logits() -> None:
    uniforms = uniforms_of(bytes(32), 0, 4)
    for role in Role:
        uniforms.draw_one(role)
    assert {used.role: used.jit for used in uniforms.used} == {
        Role.PROPOSAL: False,
        Role.ACCEPT: True,
        Role.RESIDUAL: True,
        Role.BONUS: True,
    }
    assert uniforms.used[0].as_dict() == {
        "role": "proposal",
        "u": 0.0,
        "bytes": 8,
        "jit": False,
        "source": "named",
        "fallback": False,
        "t_request_ns": 5,
        "t_received_ns": 6,
    }


# Target laws.


def plain_law(row: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Temperature, top-k and top-p in plain Python, ties by ascending token."""
    weights = [math.exp((value - max(row)) / temperature) for value in row]
    order = sorted(range(len(row)), key=lambda token: (-row[token], token))
    order = order[:top_k] if top_k > 0 else order
    total, running, kept = sum(weights[token] for token in order), 0.0, []
    for token in order:
        kept.append(token)
        running += weights[token] / total
        if top_p < 1.0 and running >= top_p:
            break
    mass = sum(weights[token] for token in kept)
    return [weights[token] / mass if token in kept else 0.0 for token in range(len(row))]


def laws_of(
    rows: list[list[float]], parameters: list[SamplingParameters], selector: Any = None
) -> TargetLaws:
    logits = np.array(rows, dtype=np.float32)
    return TargetLaws.of(logits, Rows(parameters), selector)


@pytest.mark.parametrize("selector", [ReferenceSelector(), FastSelector()], ids=["sorted", "fast"])
@given(
    st.lists(st.integers(-64, 64).map(lambda n: n / 8), min_size=2, max_size=12),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    st.integers(0, 12),
    st.sampled_from([0.3, 0.7, 1.0]),
)
def test_target_laws_are_what_requests_demand(
    selector: Any, row: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    parameters = SamplingParameters(fixed_temperature=temperature, top_k=top_k, top_p=top_p)
    laws = laws_of([row], [parameters], selector)
    expected = plain_law(row, temperature, top_k, top_p)
    p = laws.probs(0)
    # At a sum that lies within rounding of top-p the two may cut differently.
    sums = np.cumsum(sorted(plain_law(row, temperature, top_k, 1.0), reverse=True))
    assume(top_p == 1.0 or np.abs(sums - top_p).min() > 1e-9)
    assert p == pytest.approx(expected, rel=1e-9, abs=2.0**-35)
    assert abs(p.sum() - 1.0) < 1e-14
    assert laws.candidates(0) == sum(value > 0 for value in expected)
    token = int(np.argmax(p))
    assert laws.rank(0, token) == 0


def test_masked_tokens_have_no_mass_and_masked_rows_no_law() -> None:
    rows = [[0.0, -math.inf, 1.0], [-math.inf] * 3, [math.nan, 0.0, 0.0]]
    laws = laws_of(rows, [SamplingParameters(fixed_temperature=1.0)] * 3)
    assert [row in laws for row in range(3)] == [True, False, False]
    assert laws.probs(0)[1] == 0.0
    assert laws.probs(0)[2] == pytest.approx(math.e / (1 + math.e), rel=1e-9)


# Sequences, by the names of their requests.


class FakeSession:
    """Keeps what is recorded."""

    def __init__(self, source: EntropySource | None = None, fallback_mode: str = "error") -> None:
        self.records: list[Record] = []
        self.settings = SimpleNamespace(fallback_mode=fallback_mode, ledger_blocks=False)
        self._source = source
        self.prompts: list[list[int]] = []

    def keep_prompt(self, sequence: TokenSequence, token_ids: list[int]) -> None:
        self.prompts.append(token_ids)

    def admit(self, params: Any, prompt_length: int) -> TokenSequence | None:
        return None if params.bypass else sequence(params.max_tokens)

    def record(self, records: list[Record]) -> None:
        self.records += records

    def write(self) -> None:
        pass

    def write_soon(self) -> None:
        pass

    def end_unrecorded(self, sequences: Any) -> bool:
        return False

    def close(self) -> None:
        pass

    def publish(self) -> None:
        pass

    def source(self, name: str) -> EntropySource:
        assert self._source is not None
        return self._source


class FakeRunner:
    """The part of vLLM's model runner that is looked at."""

    def __init__(self, size: int = 4) -> None:
        self.requests: dict[str, Any] = {}
        self.input_batch = SimpleNamespace(req_ids=[], spec_token_ids=[])
        self.discard_request_mask = SimpleNamespace(np=np.zeros(size, dtype=bool))

    def add(self, name: str, *, bypass: bool = False, output: tuple[int, ...] = ()) -> None:
        params = SimpleNamespace(stop=[], bypass=bypass, max_tokens=None)
        self.requests[name] = SimpleNamespace(
            sampling_params=params,
            prompt_token_ids=[1, 2],
            num_prompt_tokens=2,
            output_token_ids=list(output),
        )

    def step(self, **drafts: list[int]) -> list[int]:
        self.input_batch.req_ids = list(drafts)
        self.input_batch.spec_token_ids = list(drafts.values())
        return [len(own) for own in drafts.values()]


def sequences_of(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, *, at_once: bool = False
) -> tuple[Sequences, FakeSession]:
    if at_once:
        monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    else:
        monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(async_scheduling=False),
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
    )
    session = FakeSession()
    return Sequences(config, session, runner), session  # type: ignore[arg-type]


def end(position: int) -> ForcedEnd:
    return ForcedEnd(9, position)


def test_rows_follow_each_other_by_request(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FakeRunner()
    for name in "abc":
        runner.add(name, bypass=name == "c")
    sequences, session = sequences_of(runner, monkeypatch)
    runner.discard_request_mask.np[1] = True
    rows = sequences.rows(runner.step(a=[4, 5], b=[], c=[6]))
    assert [(row.name, row.first, row.drafts, row.emits) for row in rows] == [
        ("a", 0, [4, 5], True),
        ("b", 3, [], False),
        ("c", 4, [6], True),
    ]
    assert [row.sequence is None for row in rows] == [False, False, True]
    again = sequences.rows(runner.step(c=[], a=[7]))
    assert [(row.name, row.first) for row in again] == [("c", 0), ("a", 1)]
    assert again[1].sequence is rows[0].sequence
    assert sequences.of("a") is rows[0].sequence
    assert sequences.of("c") is sequences.of("nobody") is None
    assert session.prompts == [[1, 2]] * 2, "once for every sequence"


def test_tokens_are_recorded_when_vllm_has_gone_on(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FakeRunner()
    for name in "ab":
        runner.add(name)
    sequences, session = sequences_of(runner, monkeypatch)
    for row in sequences.rows(runner.step(a=[], b=[])):
        assert row.sequence is not None
        sequences.settle(row.sequence.sampled(end(0)))
        runner.requests[row.name].output_token_ids.append(9)
    sequences.flush()
    assert session.records == []
    # One was aborted meanwhile, the other is preempted: not in the batch, but not gone.
    del runner.requests["a"]
    sequences.rows(runner.step())
    assert [(record.kind, record.emitted) for record in records_of(session.records)] == [  # type: ignore[attr-defined]
        ("forced", None),
        ("forced", True),
    ]
    sequences.close()
    assert len(records_of(session.records)) == 2
    ends = [one for one in session.records if isinstance(one, SequenceEnd)]
    assert [(one.reason, one.tokens) for one in ends] == [("departed", 0), ("closed", 1)]


def test_tokens_of_an_idle_engine_do_not_wait_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FakeRunner()
    runner.add("a")
    sequences, session = sequences_of(runner, monkeypatch)
    (row,) = sequences.rows(runner.step(a=[]))
    assert row.sequence is not None
    sequences.settle(row.sequence.sampled(end(0)))
    runner.requests["a"].output_token_ids.append(9)
    sequences.pending["gone"] = SimpleNamespace(discards=lambda reason: [reason])  # type: ignore[assignment]
    sequences.write_overdue()
    assert session.records == ["aborted"]
    sequences.write_overdue()
    assert [record.emitted for record in records_of(session.records[1:])] == [None]  # type: ignore[attr-defined]
    sequences.rows(runner.step(a=[]))
    later = records_of(session.records[2:])
    assert [(record.kind, record.emitted) for record in later] == [("emission", True)]  # type: ignore[attr-defined]


def test_an_engine_that_is_let_go_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records outlive vLLM's model runner, and do not keep its memory."""
    runner = FakeRunner()
    sequences, _ = sequences_of(runner, monkeypatch)
    gone = weakref.ref(runner)
    del runner
    assert gone() is None
    sequences.flush()
    sequences.write_overdue()
    sequences.close()


def test_in_process_tokens_are_emitted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FakeRunner()
    runner.add("a")
    sequences, session = sequences_of(runner, monkeypatch, at_once=True)
    (row,) = sequences.rows(runner.step(a=[]))
    assert row.sequence is not None
    sequences.settle(row.sequence.sampled(end(0)))
    sequences.flush()
    assert [record.kind for record in records_of(session.records)] == ["forced"]


def test_tokens_that_vllm_chose_or_took_back_are_taken_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = FakeRunner()
    runner.add("a", output=(5, 6))
    sequences, _ = sequences_of(runner, monkeypatch)
    (row,) = sequences.rows(runner.step(a=[]))
    assert row.sequence is not None
    assert (row.sequence.tokens, row.position) == ([5, 6], 2)
    runner.requests["a"].output_token_ids[:] = [5]
    sequences.rows(runner.step(a=[]))
    assert row.sequence.tokens == [5]


# Drafts.

UNIGRAM = craft_relative_psi([0.5, 0.3, 0.15, 0.05], 2)
PROPOSER = BigramProposer.from_payloads(UNIGRAM, {})


class Stream(EntropySource):
    """Hands out the numbers of a generator, or fails."""

    name = "named"
    blocks = False

    def __init__(self, *, fails: bool = False) -> None:
        self._generator = np.random.default_rng(5)
        self._fails = fails
        self.requests: list[int] = []

    def get_random_bytes(self, n: int) -> bytes:
        if self._fails:
            raise EntropyUnavailableError("named", "unplugged")
        self.requests.append(n)
        return self._generator.bytes(n)


def wants(name: str, length: int) -> DraftRequest:
    return DraftRequest(name, sequence(), 7, PROPOSER.start([1]), length)


def test_all_drafts_of_a_step_come_with_one_request() -> None:
    source = Stream()
    made = draw_proposals(FakeSession(source), PROPOSER, [wants("a", 3), wants("b", 2)])  # type: ignore[arg-type]
    assert source.requests == [8 * 5]
    again = np.random.default_rng(5).bytes(40)
    words = np.frombuffer(again, "<u8") >> np.uint64(11)
    law = UNIGRAM.law()
    expected = [law.select_one(float(u)) for u in words * 2.0**-53]
    assert made["a"].drafts + made["b"].drafts == expected
    assert b"".join(used.data for one in made.values() for used in one.uniforms) == again


def test_drafts_that_are_not_verified_are_discarded() -> None:
    made = draw_proposals(FakeSession(Stream()), PROPOSER, [wants("a", 3)])  # type: ignore[arg-type]
    discards = records_of(made["a"].discards("rejected_draft", 1))
    assert [(type(one), one.position) for one in discards] == [  # type: ignore[attr-defined]
        (DiscardRecord, 8),
        (DiscardRecord, 9),
    ]
    for one in discards:
        assert isinstance(one, DiscardRecord)
        assert (one.block_bytes, one.role, one.jit) == (8, "proposal", False)
        assert (one.reason, one.t_logits_ns) == ("rejected_draft", None)


def test_without_entropy_nothing_is_drafted() -> None:
    failing = Stream(fails=True)
    session = FakeSession(failing, fallback_mode="end_request")
    assert draw_proposals(session, PROPOSER, [wants("a", 3)]) == {}  # type: ignore[arg-type]
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        draw_proposals(FakeSession(failing), PROPOSER, [wants("a", 3)])  # type: ignore[arg-type]


def test_what_was_drawn_for_drafts_is_discarded_when_the_engine_stops() -> None:
    class Sources(FakeSession):
        def source(self, name: str) -> EntropySource:
            return Stream(fails=name == "other")

    session = Sources()
    other = DraftRequest("b", sequence(source="other"), 7, PROPOSER.start([1]), 2)
    requests = [wants("a", 3), other]
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        draw_proposals(session, PROPOSER, requests)  # type: ignore[arg-type]
    discards = [one for one in records_of(session.records) if isinstance(one, DiscardRecord)]
    assert [(one.reason, one.block_bytes) for one in discards] == [("step_failed", 8)] * 3


@pytest.mark.parametrize(
    ("max_tokens", "emitted", "expected"),
    [(None, 0, 3), (10, 0, 3), (5, 2, 2), (5, 3, 1), (5, 4, 0), (5, 5, 0)],
)
def test_nothing_is_drafted_beyond_the_last_token(
    max_tokens: int | None, emitted: int, expected: int
) -> None:
    own = sequence(max_tokens)
    own.tokens[:] = [1] * emitted
    assert draft_limit(own, 3) == expected


def test_nothing_is_drafted_for_what_ends_or_is_left_to_vllm() -> None:
    ended, failed = sequence(), sequence()
    ended.ended = True
    failed.failure = "unplugged"
    assert [draft_limit(one, 3) for one in (ended, failed, None)] == [0, 0, 0]
