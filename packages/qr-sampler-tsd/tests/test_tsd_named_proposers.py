# SPDX-License-Identifier: Apache-2.0
"""Prompt lookup, mixtures, and proposers by name: ours and those of other projects."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler.components.registry import Registry
from qr_sampler.errors import UnknownPluginError
from qr_sampler_tsd import Proposer, craft_relative_psi
from qr_sampler_tsd.errors import ProposerError, ProposerFileError
from qr_sampler_tsd.proposers import (
    BigramProposer,
    MixedProposer,
    NgramProposer,
    named,
    proposer_named,
    save_proposer,
)
from qr_sampler_tsd.proposers.guard import GuardedProposer
from qr_sampler_tsd.proposers.masses import psi_of_masses
from qr_sampler_tsd.proposers.named import PROPOSERS, described, parts_of
from qr_sampler_tsd.proposers.ngram import GROWTH

TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=30)


def matches(tokens: Sequence[int], longest: int) -> dict[int, int]:
    """By place, how many tokens before it are the last ones: in plain Python."""
    found = {}
    for place in range(1, len(tokens)):
        length = 0
        while (
            length < min(longest, place)
            and tokens[place - 1 - length] == tokens[len(tokens) - 1 - length]
        ):
            length += 1
        if length:
            found[place] = length
    return found


@given(TOKENS, st.integers(1, 6))
def test_prompt_lookup_counts_what_followed_every_match(tokens: list[int], longest: int) -> None:
    proposer = NgramProposer(5, longest)
    state = proposer.start(tokens)
    found = matches(tokens, longest)
    best = max(found.values(), default=0)
    share = 1 - 1 / best if best else 0.0
    assert proposer.confidence(state) == share
    law = proposer.psi(state).law()
    votes = np.zeros(5)
    for place, length in found.items():
        votes[tokens[place]] += GROWTH ** (length - best)
    if not share:
        # Nothing is claimed: a match of one token says as much as none.
        assert law.probs().sum() == pytest.approx(1)
        return
    others = votes == 0
    expected = share * votes / votes.sum()
    if others.any():
        expected[others] = (1 - share) / others.sum()
    assert law.probs() == pytest.approx(expected / expected.sum(), rel=0.05, abs=1e-3)


@given(TOKENS, st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40))
def test_states_are_immutable_whatever_is_drafted_and_rejected(
    start: list[int], moves: list[tuple[bool, int]]
) -> None:
    proposer = NgramProposer(5)
    kept = [(proposer.start(start), list(start))]
    for goes_back, token in moves:
        state, tokens = kept[len(kept) // 2 if goes_back else -1]
        kept.append((proposer.advance(state, token), [*tokens, token]))
    for state, tokens in kept:
        assert state.tokens.tolist() == tokens


def test_a_longer_match_counts_more() -> None:
    proposer = NgramProposer(10)
    # After 1 2: twice 3 after a match of one, once 4 after a match of two.
    state = proposer.start([2, 3, 2, 3, 1, 2, 4, 1, 2])
    assert proposer.psi(state).ids.tolist() == [4, 3]


@pytest.mark.parametrize("numbers", [(0,), (5, 0), (5, 1, 0)])
def test_prompt_lookup_needs_numbers(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ProposerError, match="must be at least 1"):
        NgramProposer(*numbers)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_masses_become_their_payload(masses: list[float], tail: float) -> None:
    given_masses = np.array(masses)
    law = psi_of_masses(np.arange(given_masses.size), given_masses, tail, 20).law()
    total = given_masses.sum() + tail
    if not given_masses.any():
        assert law.probs() == pytest.approx(np.full(20, 0.05), rel=1e-3)
        return
    # Codes of 8 bits between the best and the worst.
    positive = given_masses[given_masses > 0]
    if positive.size == given_masses.size and positive.min() > 1e-3 * positive.max():
        assert law.probs_of(np.arange(given_masses.size)) == pytest.approx(
            given_masses / total, rel=0.05, abs=1e-6
        )


TABLE = BigramProposer.from_payloads(
    craft_relative_psi([0.5, 0.2, 0.2, 0.1], 3), {1: craft_relative_psi([0.1, 0.1, 0.7, 0.1], 2)}
)


def test_a_mixture_is_a_mixture() -> None:
    ngram = NgramProposer(4)
    mixed = MixedProposer([ngram, TABLE])
    state = mixed.start([0, 1, 3, 0, 1])
    share = ngram.confidence(ngram.start([0, 1, 3, 0, 1]))
    assert share == 0.5
    one, other = (part.psi(part.start([0, 1, 3, 0, 1])).law().probs() for part in mixed.parts)
    psi = mixed.psi(state)
    assert psi is not None
    assert psi.law().probs() == pytest.approx(share * one + (1 - share) * other, rel=0.03)
    # Where nothing repeats, the last part has it all.
    alone = mixed.psi(mixed.advance(state, 2))
    assert alone is not None
    expected = TABLE.psi(TABLE.start([2])).law().probs()
    assert alone.law().probs() == pytest.approx(expected, rel=0.03)


def test_parts_of_different_temperatures_are_fitted_to_the_first() -> None:
    warm = BigramProposer.from_payloads(craft_relative_psi([0.6, 0.4], 2), {}, 1.0)
    cold = BigramProposer.from_payloads(craft_relative_psi([0.9, 0.1], 2), {}, 0.5)
    mixed = MixedProposer([NgramProposer(2), cold, warm])
    assert mixed.temperature == 0.5
    # A part that claims everything leaves nothing to those behind it.
    psi = mixed.psi(mixed.start([0]))
    assert psi is not None
    assert psi.law().probs() == pytest.approx([0.9, 0.1], rel=0.02)
    other = MixedProposer([warm])
    assert other.temperature == 1.0
    with pytest.raises(ProposerError, match=r"one vocabulary, got \[2, 4\]"):
        MixedProposer([warm, TABLE])
    with pytest.raises(ProposerError, match="one vocabulary"):
        MixedProposer([])


# Names.


def test_ours_is_installed() -> None:
    assert "ngram" in PROPOSERS.names()
    assert isinstance(proposer_named("ngram", 7), NgramProposer)


def test_files_names_and_mixtures(tmp_path: Path) -> None:
    file = tmp_path / "a+b.npz"
    save_proposer(file, TABLE)
    assert isinstance(proposer_named(str(file), 4), BigramProposer)
    file.rename(tmp_path / "table.npz")
    mixed = proposer_named(f"ngram + {tmp_path / 'table.npz'}", 4)
    assert isinstance(mixed, MixedProposer)
    assert [type(part) for part in mixed.parts] == [NgramProposer, BigramProposer]
    with pytest.raises(ProposerError, match=r"among 4 tokens and the model has 5"):
        proposer_named(str(tmp_path / "table.npz"), 5)
    with pytest.raises(UnknownPluginError, match="nonesuch"):
        proposer_named("nonesuch", 4)
    with pytest.raises(ProposerFileError, match="is no proposer to use"):
        proposer_named(str(tmp_path / "missing.npz"), 4)


@pytest.mark.parametrize("specification", ["", "+", "ngram+", "+".join(["ngram"] * 9)])
def test_parts_are_named(specification: str) -> None:
    with pytest.raises(ProposerError, match="join 1 to 8 of them"):
        parts_of(specification)


def test_files_do_not_hide_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_proposer("ngram", TABLE)
    assert isinstance(proposer_named("ngram", 4), NgramProposer)
    assert isinstance(proposer_named("./ngram", 4), BigramProposer)
    (tmp_path / "some-lamp").mkdir()
    with pytest.raises(UnknownPluginError, match="some-lamp"):
        proposer_named("some-lamp", 4)


def test_records_say_which_it_was(tmp_path: Path) -> None:
    save_proposer(tmp_path / "table.npz", TABLE)
    name, file = described(f"ngram+{tmp_path / 'table.npz'}")
    assert name["name"] == "ngram"
    assert name["distribution"].startswith("qr-sampler-tsd ")
    data = (tmp_path / "table.npz").read_bytes()
    assert file == {"file_sha256": hashlib.sha256(data).hexdigest()}


# Those of other projects.


class Foreign(Proposer[Any]):
    """Does what a test tells it to."""

    answers: ClassVar[dict[str, Any]] = {}

    def __init__(self, vocab_size: Any) -> None:
        self._size = vocab_size

    @property
    def vocab_size(self) -> int:
        size: int = self.answers.get("vocab_size", self._size)
        return size

    @property
    def temperature(self) -> float | None:
        temperature: float | None = self.answers.get("temperature")
        return temperature

    def _answer(self, name: str, usual: Any) -> Any:
        answer = self.answers.get(name, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self, tokens: Sequence[int]) -> Any:
        return self._answer("start", len(tokens))

    def advance(self, state: Any, token: int) -> Any:
        return self._answer("advance", state + 1)

    def psi(self, state: Any) -> Any:
        return self._answer("psi", craft_relative_psi([0.5, 0.3, 0.2], 2))

    def confidence(self, state: Any) -> float:
        share: float = self._answer("confidence", 0.25)
        return share


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> type[Foreign]:
    """A proposer that another project has installed under the name ``other``."""
    monkeypatch.setattr(Foreign, "answers", {})
    monkeypatch.setattr(Foreign, "__module__", "somebody_elses")
    known: Registry[Proposer[Any]] = Registry("proposer", "none", Proposer)  # type: ignore[type-abstract]
    monkeypatch.setattr(known, "load", lambda _: Foreign)
    monkeypatch.setattr(named, "PROPOSERS", known)
    return Foreign


def test_foreign_ones_are_guarded(foreign: type[Foreign]) -> None:
    proposer = proposer_named("other", 3)
    assert isinstance(proposer, GuardedProposer)
    state = proposer.advance(proposer.start([1, 2]), 0)
    assert state == 3
    psi = proposer.psi(state)
    assert psi is not None
    assert psi.ids.tolist() == [0, 1]
    assert proposer.confidence(state) == 0.25


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("start", RuntimeError("lost")),
        ("advance", KeyError(7)),
        ("psi", ValueError("no idea")),
        ("psi", "a text"),
        ("psi", type("Other", (type(craft_relative_psi([1.0], 1)),), {})),
        ("psi", craft_relative_psi([0.5, 0.5], 2)),
        ("confidence", 2.0),
        ("confidence", float("nan")),
        ("confidence", "much"),
    ],
)
def test_what_goes_wrong_in_a_step_costs_drafts_only(
    foreign: type[Foreign], where: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    proposer = proposer_named("other", 3)
    foreign.answers[where] = answer
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            state = proposer.advance(proposer.start([1]), 2)
            psi, share = proposer.psi(state), proposer.confidence(state)
    assert (psi is None) is (where != "confidence")
    assert share == (0.25 if where == "psi" else 0.0)
    (record,) = caplog.records
    assert "proposer 'other' has a defect: sequences that it fails for" in record.message
    mixed = MixedProposer([proposer, proposer])
    answer_of_all = mixed.psi(mixed.advance(mixed.start([1]), 2))
    assert (answer_of_all is None) is (where != "confidence")


@pytest.mark.parametrize(
    ("where", "answer", "words"),
    [
        ("vocab_size", "3", "its vocab_size is '3'"),
        ("vocab_size", True, "its vocab_size is True"),
        ("vocab_size", 0, "its vocab_size is 0"),
        ("vocab_size", 5, "among 5 tokens and the model has 3"),
        ("temperature", -1.0, "temperature=-1.0 must be"),
    ],
)
def test_what_is_wrong_at_the_start_is_refused(
    foreign: type[Foreign], where: str, answer: Any, words: str
) -> None:
    foreign.answers[where] = answer
    with pytest.raises(ProposerError, match=words):
        proposer_named("other", 3)


def test_a_constructor_may_raise_anything(
    foreign: type[Foreign], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(cls: Any, vocab_size: int) -> Any:
        raise SystemExit("no licence")

    monkeypatch.setattr(foreign, "for_vocabulary", classmethod(explode))
    with pytest.raises(ProposerError, match=r"the proposer 'other' cannot be made: .*no licence"):
        proposer_named("other", 3)
    monkeypatch.setattr(foreign, "for_vocabulary", classmethod(lambda cls, size: size))
    with pytest.raises(ProposerError, match="returned int, not a proposer"):
        proposer_named("other", 3)
