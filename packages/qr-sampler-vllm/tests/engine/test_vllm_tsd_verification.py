# SPDX-License-Identifier: Apache-2.0
"""What the canonical mode does with drafts that vLLM cuts off or replaces, and without entropy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qr_sampler import (
    ConfigError,
    DiscardRecord,
    EntropySource,
    EntropyUnavailableError,
    ForcedRecord,
    RequestOptions,
    SamplingParameters,
    Settings,
    TokenSamplingRecord,
)
from qr_sampler.host import RowGroups, StopConditions, TokenSequence, records_of
from qr_sampler_tsd import craft_relative_psi
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows

RATE = 1e-9
P = np.array([0.5, 0.2, 0.3, 0.0])
Q = [0.2, 0.3, 0.1, 0.4]
PROPOSER = BigramProposer.from_payloads(craft_relative_psi(Q, 4), {})


class Stream(EntropySource):
    """Hands out the numbers of a generator, and fails on demand."""

    name = "named"
    blocks = False

    def __init__(self) -> None:
        self._generator = np.random.default_rng(11)
        self.fails = False
        self.drawn = 0

    def get_random_bytes(self, n: int) -> bytes:
        if self.fails:
            raise EntropyUnavailableError("named", "unplugged")
        self.drawn += n
        return self._generator.bytes(n)


class FakeSession:
    """An ``EngineSession`` with one source."""

    without_entropy = EngineSession.without_entropy

    def __init__(self, source: EntropySource, **settings: Any) -> None:
        self.settings = Settings.load(entropy_source_type="named", **settings)
        self._source = source
        self.recorded: list[Any] = []
        self._groups = RowGroups()

    def source(self, name: str) -> EntropySource:
        return self._source

    def record(self, records: list[Any]) -> None:
        self.recorded += records

    def write(self) -> None:
        pass

    def end_unrecorded(self, sequences: Iterable[TokenSequence]) -> bool:
        return False

    def raise_if_told_to(self, error: Exception) -> None:
        if self.settings.fallback_mode == "error":
            raise error

    def give_up(self, sequences: list[TokenSequence], error: Exception) -> None:
        self.raise_if_told_to(error)
        for sequence in sequences:
            sequence.failure = str(error)


class Setting:
    """The canonical mode and one sequence."""

    def __init__(self, verifier: str = "block", **settings: Any) -> None:
        from qr_sampler_vllm.tsd.verification.canonical import Canonical

        self.source = Stream()
        self.pending: dict[str, Any] = {}
        sequences: Any = SimpleNamespace(pending=self.pending)
        session: Any = FakeSession(self.source, **settings)
        self.session = session
        self.mode = Canonical(session, sequences, verifier)
        options = RequestOptions(
            parameters=SamplingParameters(fixed_temperature=1.0), source="named"
        )
        self.sequence = TokenSequence(options, StopConditions(frozenset()), ending_token=3)
        self.records: list[Any] = []

    def draft(self, length: int) -> list[int]:
        position = len(self.sequence.tokens)
        request = DraftRequest("a", self.sequence, position, PROPOSER.start([1]), length)
        (drafts,) = self.mode.drafts(PROPOSER, [request])
        return drafts

    def verify(self, drafts: list[int], rows: list[Any] | None = None) -> list[int]:
        import torch

        with np.errstate(divide="ignore"):
            logits = np.log(np.array(rows or [P] * (len(drafts) + 1), dtype=np.float32))
        request = RequestRows("a", self.sequence, None, 0, list(self.sequence.tokens), drafts)
        verified = self.mode.verify(torch.from_numpy(logits), [request])
        self.records += records_of(verified.records + self.sequence.confirm())
        (tokens,) = verified.tokens
        return tokens

    def prefill(self) -> None:
        """A step without a row to decide: a part of a long prompt, or requests left to vLLM."""
        import torch

        chunk = RequestRows("b", None, None, 0, [], emits=False)
        assert self.mode.verify(torch.zeros((1, 4)), [chunk]).tokens == [[]]

    def spent(self) -> int:
        kinds = (TokenSamplingRecord, DiscardRecord)
        return sum(one.block_bytes for one in self.records if isinstance(one, kinds))


def critical(freedom: int) -> float:
    return float(stats.chi2.isf(RATE, freedom))


def statistic(counts: Counter[int], law: np.ndarray[Any, Any]) -> float:
    expected = law * sum(counts.values())
    observed = np.array([counts[token] for token in range(len(law))])
    assert not observed[expected == 0].any()
    some = expected > 0
    return float(((observed - expected)[some] ** 2 / expected[some]).sum())


@pytest.mark.parametrize("verifier", ["token", "block"])
def test_cutting_forbidden_drafts_off_does_not_bend_the_law(verifier: str) -> None:
    """As a grammar does it: all drafts from the first of probability 0 on are left out."""
    setting = Setting(verifier)
    counts: Counter[int] = Counter()
    texts = 5000
    for _ in range(texts):
        drafts = setting.draft(2)
        kept = drafts.index(3) if 3 in drafts else len(drafts)
        counts[setting.verify(drafts[:kept])[0]] += 1
    assert statistic(counts, P) < critical(2)
    assert setting.spent() == setting.source.drawn
    # Power: choosing from p instead where the first draft is cut off would not pass.
    overlap = np.minimum(P, Q)
    residual = P - overlap
    lost = 1.0 - overlap.sum()
    bent = overlap + (lost - Q[3]) * residual / residual.sum() + Q[3] * P
    centre = texts * float(((bent - P)[:3] ** 2 / P[:3]).sum())
    assert stats.ncx2.cdf(critical(2), 2, centre) < RATE


def test_a_draft_without_a_row_behind_it_is_the_last_token() -> None:
    setting = Setting()
    outcomes = set()
    for _ in range(60):
        drafts = setting.draft(3)
        # A full step: the scheduler has room for one draft.
        tokens = setting.verify(drafts[:1], [Q, Q])
        assert len(tokens) <= 2
        assert tokens[: len(tokens) - 1] == drafts[: len(tokens) - 1]
        outcomes |= {one.outcome for one in setting.records if one.kind == "token"}
        setting.records.clear()
    # p = q but for the rounding of scores: nearly all drafts stand, and no bonus follows.
    assert "accepted" in outcomes
    assert "bonus" not in outcomes


def test_drafts_of_vllm_itself_are_not_verified() -> None:
    setting = Setting()
    drafts = setting.draft(3)
    zeros = [0, 0, 0] if drafts != [0, 0, 0] else [1, 1, 1]
    assert len(setting.verify(zeros)) == 1
    reasons = [one.reason for one in setting.records if one.kind == "discard"]
    assert reasons == ["not_verified"] * 3
    (token,) = [one for one in setting.records if one.kind == "token"]
    assert (token.outcome, token.role, token.jit) == ("bonus", "bonus", True)
    assert setting.spent() == setting.source.drawn == 8 * 4


def test_drafts_for_another_position_are_not_verified() -> None:
    setting = Setting()
    drafts = setting.draft(2)
    setting.sequence.tokens.append(1)
    assert len(setting.verify(drafts)) == 1
    assert setting.spent() == setting.source.drawn


def test_rows_without_a_law_end_the_block() -> None:
    setting = Setting()
    nothing = [math.nan] * 4
    assert setting.verify(setting.draft(2), [nothing, P, P]) == [0]
    found = [(one.kind, one.reason) for one in setting.records]
    assert found == [("discard", "not_verified")] * 2 + [("undecided", "nan")]
    for _ in range(20):
        assert len(setting.verify(setting.draft(2), [P, nothing, P])) == 1
    assert setting.spent() == setting.source.drawn


def test_a_row_without_a_law_ends_a_request_where_the_operator_ends_those_without_entropy() -> None:
    setting = Setting(fallback_mode="end_request")
    with np.errstate(divide="ignore"):
        assert setting.verify(setting.draft(2), [[0.0] * 4, P, P]) == [3]
    undecided = [one for one in setting.records if one.kind == "undecided"]
    assert [(one.token_id, one.position, one.reason) for one in undecided] == [(3, 0, "masked")]
    assert setting.verify([]) == [3]
    assert setting.records[-1].kind == "forced"
    assert setting.spent() == setting.source.drawn == 16


def test_without_entropy_a_request_ends_and_its_drafts_are_discarded() -> None:
    setting = Setting(fallback_mode="end_request")
    drafts = setting.draft(2)
    setting.source.fails = True
    assert setting.verify(drafts) == [3]
    forced = [one for one in setting.records if isinstance(one, ForcedRecord)]
    assert [(one.token_id, one.position) for one in forced] == [(3, 0)]
    assert "unplugged" in forced[0].reason
    assert setting.spent() == setting.source.drawn == 16
    # From now on nothing is drawn for it.
    setting.source.fails = False
    assert setting.verify([]) == [3]
    assert setting.source.drawn == 16


def test_a_step_without_rows_follows_a_request_that_has_ended() -> None:
    setting = Setting(fallback_mode="end_request")
    setting.source.fails = True
    setting.verify([])
    setting.prefill()
    assert setting.verify([]) == [3]


def test_what_was_drawn_is_discarded_when_the_engine_stops() -> None:
    setting = Setting(fallback_mode="error")
    drafts = setting.draft(2)
    setting.source.fails = True
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        setting.verify(drafts)
    assert setting.source.drawn == 16
    discards: list[Any] = records_of(setting.session.recorded)
    assert [(one.reason, one.block_bytes) for one in discards] == [("step_failed", 8)] * 2


def test_without_entropy_the_engine_stops_where_the_operator_wants_that() -> None:
    setting = Setting(fallback_mode="error")
    drafts = setting.draft(2)
    setting.source.fails = True
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        setting.verify(drafts)


def test_tokens_after_the_end_are_discarded_number_by_number() -> None:
    setting = Setting()
    setting.sequence.ended = True
    tokens = setting.verify(setting.draft(2), [Q, Q, Q])
    assert tokens
    assert {one.kind for one in setting.records} == {"discard"}
    reasons = {one.reason for one in setting.records}
    assert "after_stop" in reasons
    assert setting.spent() == setting.source.drawn


def test_a_source_of_numbers_is_refused() -> None:
    from qr_sampler_vllm.tsd.verification.canonical import Canonical

    source = Stream()
    source.integrates = True
    session: Any = FakeSession(source)
    with pytest.raises(ConfigError, match="delivers uniform numbers"):
        Canonical(session, SimpleNamespace(pending={}), "block")  # type: ignore[arg-type]
