# SPDX-License-Identifier: Apache-2.0
"""What drafts know of a request, and what becomes of numbers where nothing can be drafted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropyDraw, RequestOptions, SamplingParameters
from qr_sampler.host import StopConditions, TokenSequence, records_of
from qr_sampler_tsd import craft_relative_psi
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.request_shapes import NOTHING_KNOWN, RequestShapes, fitted, shapes_of
from qr_sampler_vllm.tsd.verification.exact_match import ExactMatch
from qr_sampler_vllm.tsd.verification.proposals import draw_proposals

PSI = craft_relative_psi([0.5, 0.25, 0.15, 0.1, 0.0], 4)
PROPOSER = BigramProposer.from_payloads(PSI, {}, 1.0)


def params(**fields: Any) -> SimpleNamespace:
    """The fields of vLLM's ``SamplingParams`` that count."""
    usual = {
        "allowed_token_ids": None,
        "bad_words_token_ids": None,
        "min_tokens": 0,
        "all_stop_token_ids": set(),
    }
    return SimpleNamespace(**{**usual, **fields})


def probs(shapes: RequestShapes, position: int = 0) -> list[float]:
    psi = fitted(PROPOSER, PROPOSER.start([1]), shapes, position)
    return [] if psi is None else psi.law().probs().round(3).tolist()


def test_filters_and_temperature_are_those_of_the_request() -> None:
    parameters = SamplingParameters(
        fixed_temperature=0.5, top_k=3, min_p=0.2, top_p=0.9, truncate_first=True
    )
    shapes = shapes_of(parameters, params())
    assert shapes.early is shapes.late
    shape = shapes.late
    assert (shape.temperature, shape.top_k, shape.min_p, shape.top_p) == (0.5, 3, 0.2, 0.9)
    assert shape.truncate_first
    assert shapes_of(SamplingParameters(top_k=-1), params()).late.top_k == 0


def test_a_temperature_that_depends_on_the_logits_is_not_guessed() -> None:
    shapes = shapes_of(SamplingParameters(temperature_strategy="edt"), params())
    assert shapes.late.temperature is None
    assert fitted(PROPOSER, PROPOSER.start([1]), shapes, 0) == PSI


def test_masks_of_the_request_are_those_of_its_drafts() -> None:
    flat = SamplingParameters(fixed_temperature=1.0)
    assert probs(shapes_of(flat, params())) == [0.5, 0.25, 0.15, 0.1, 0.0]
    assert probs(shapes_of(flat, params(allowed_token_ids=[1, 2, 4]))) == [0, 0.625, 0.375, 0, 0]
    # Words of several tokens depend on the text.
    words = [[0], [1, 2]]
    assert probs(shapes_of(flat, params(bad_words_token_ids=words))) == [0, 0.5, 0.3, 0.2, 0]


def test_nothing_stops_before_its_time() -> None:
    shapes = shapes_of(
        SamplingParameters(fixed_temperature=1.0), params(min_tokens=3, all_stop_token_ids={0})
    )
    assert probs(shapes, 2) == [0, 0.5, 0.3, 0.2, 0]
    assert probs(shapes, 3) == [0.5, 0.25, 0.15, 0.1, 0.0]


class OneSource:
    """A session with one source that never fails."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.settings = SimpleNamespace(fallback_mode="error", ledger_blocks=False)

    def source(self, _name: str) -> Any:
        def draw(n: int) -> EntropyDraw:
            return EntropyDraw(
                data=bytes(n), source="named", requested_ns=1, received_ns=2, wall_time_ns=3
            )

        return SimpleNamespace(draw=draw)

    def record(self, records: list[Any]) -> None:
        self.records += records


def wants(length: int, shapes: RequestShapes = NOTHING_KNOWN) -> DraftRequest:
    options = RequestOptions(parameters=SamplingParameters(), source="named")
    sequence = TokenSequence(options, StopConditions(frozenset()))
    return DraftRequest("a", sequence, 0, PROPOSER.start([1]), length, shapes)


def test_numbers_without_a_draft_are_discarded() -> None:
    """Every token may be drafted but for the second one, which none can follow."""
    nothing = shapes_of(SamplingParameters(), params(bad_words_token_ids=[[n] for n in range(5)]))
    free = shapes_of(SamplingParameters(), params())
    session: Any = OneSource()
    shapes = RequestShapes(free.late, nothing.late, 1)
    made = draw_proposals(session, PROPOSER, [wants(3, shapes)])
    assert (len(made["a"].drafts), len(made["a"].laws)) == (1, 1)
    spare: list[Any] = list(records_of(session.records))
    assert [(one.reason, one.position, one.block_bytes) for one in spare] == [("not_needed", 1, 16)]
    assert [one.position for one in records_of(made["a"].discards("rejected_draft"))] == [0]  # type: ignore[attr-defined]


def test_the_likeliest_token_that_can_come_is_drafted() -> None:
    mode = ExactMatch(session=None)  # type: ignore[arg-type]
    assert mode.drafts(PROPOSER, [wants(2)]) == [[0, 0]]
    shapes = shapes_of(SamplingParameters(), params(allowed_token_ids=[3, 2]))
    assert mode.drafts(PROPOSER, [wants(2, shapes)]) == [[2, 2]]
    nothing = shapes_of(SamplingParameters(), params(allowed_token_ids=[]))
    assert mode.drafts(PROPOSER, [wants(2, nothing)]) == [[]]


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
def test_drafts_are_drawn_from_what_was_fitted(temperature: float) -> None:
    shapes = shapes_of(SamplingParameters(fixed_temperature=temperature), params())
    session: Any = OneSource()
    made = draw_proposals(session, PROPOSER, [wants(1, shapes)])
    law = np.array([0.5, 0.25, 0.15, 0.1, 0.0]) ** (1 / temperature)
    assert made["a"].laws[0].probs() == pytest.approx(law / law.sum(), abs=2e-3)
    assert not session.records
