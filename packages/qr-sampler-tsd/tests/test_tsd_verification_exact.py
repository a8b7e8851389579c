# SPDX-License-Identifier: Apache-2.0
"""Every verifier against exact enumeration: all drafts, and all uniforms integrated out."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler_tsd import HeadTailLaw, Law, Role, UniformSource
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import VerificationError
from qr_sampler_tsd.verification import (
    Verdict,
    accept_correct,
    joint_ratios,
    k_seq_acceptance,
    optimal_division,
    verify_block,
    verify_k_seq,
    verify_tokens,
)

ULPS = 2**53
TOLERANCE = 1e-12

Masses: TypeAlias = dict[tuple[tuple[int, ...], int], float]
"""Probability of each pair of emitted tokens and number of accepted drafts."""


class Scripted(UniformSource):
    """Given uniforms, then zeros."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = values
        self.roles: list[Role] = []

    def _take(self, n: int, role: Role) -> FloatArray:
        start = len(self.roles)
        self.roles += [role] * n
        given = [*self.values[start : start + n], *[0.0] * n][:n]
        return np.array(given)


def outcome_law(verify: Callable[[UniformSource], Verdict]) -> Masses:
    """Returns the distribution of what a verifier emits, its uniforms integrated out.

    Whatever follows from a uniform is a step function of it, which returns to no earlier step; its
    steps are found by bisection on the multiples of 2**-53 that uniforms are.
    """
    masses: Masses = defaultdict(float)
    _integrate(verify, (), 1.0, masses)
    return masses


def _integrate(
    verify: Callable[[UniformSource], Verdict],
    prefix: tuple[float, ...],
    weight: float,
    masses: Masses,
) -> None:
    source = Scripted(prefix)
    verdict = verify(source)
    if len(source.roles) == len(prefix):
        masses[verdict.tokens, verdict.accepted] += weight
        return

    def follows(ulps: int) -> object:
        source = Scripted((*prefix, ulps / ULPS))
        return verify(source), tuple(source.roles)

    for start, end in _steps(follows, 0, ULPS - 1, follows(0), follows(ULPS - 1)):
        _integrate(verify, (*prefix, start / ULPS), weight * (end - start) / ULPS, masses)


def _steps(
    follows: Callable[[int], object], low: int, high: int, at_low: object, at_high: object
) -> Iterable[tuple[int, int]]:
    """Returns the half-open pieces of [low, high] on which *follows* is constant."""
    starts = [low]

    def search(low: int, high: int, at_low: object, at_high: object) -> None:
        if at_low == at_high:
            return
        if high - low == 1:
            starts.append(high)
            return
        middle = (low + high) // 2
        at_middle = follows(middle)
        search(low, middle, at_low, at_middle)
        search(middle, high, at_middle, at_high)

    search(low, high, at_low, at_high)
    return zip(starts, [*starts[1:], high + 1], strict=True)


def law_from(masses: Sequence[float]) -> HeadTailLaw:
    """Returns the distribution of these masses, zeros among them."""
    given = np.asarray(masses, dtype=np.float64)
    ids = np.flatnonzero(given)
    return HeadTailLaw(ids, np.log(given[ids]), -np.inf, vocab_size=given.size)


class Bigram:
    """A target and a proposal that both depend on the previous token; the first context is 0."""

    def __init__(self, p: Sequence[Sequence[float]], q: Sequence[Sequence[float]]) -> None:
        self.p = np.asarray(p, dtype=np.float64)
        self.p /= self.p.sum(axis=1, keepdims=True)
        self.q = [law_from(row) for row in q]
        self.vocab_size = len(q)

    def target_of(self, tokens: Sequence[int], context: int = 0) -> float:
        mass = 1.0
        for token in tokens:
            mass *= self.p[context, token]
            context = token
        return mass

    def blocks(self, length: int) -> Iterable[tuple[tuple[int, ...], float, FloatArray, list[Law]]]:
        """Returns all drafts with their probability, target rows and proposals."""
        for drafts in itertools.product(range(self.vocab_size), repeat=length):
            contexts = (0, *drafts)
            laws: list[Law] = [self.q[context] for context in contexts[:-1]]
            mass = float(np.prod([law.prob_of(x) for law, x in zip(laws, drafts, strict=True)]))
            if mass:
                yield drafts, mass, self.p[list(contexts)], laws


Verifier: TypeAlias = Callable[
    [FloatArray, Sequence[Law], Sequence[int], UniformSource, FloatArray], Verdict
]


def joint_law(verifier: Verifier, bigram: Bigram, length: int) -> tuple[FloatArray, float]:
    """Returns the distribution of the next L + 1 tokens, and the mean of accepted drafts.

    A pass that emits fewer tokens is continued with the target.
    """
    vocab = bigram.vocab_size
    joint = np.zeros((vocab,) * (length + 1))
    accepted = 0.0
    for drafts, mass, rows, laws in bigram.blocks(length):
        verify = partial(_call, verifier, rows, laws, drafts, np.empty(vocab))
        for (tokens, count), share in outcome_law(verify).items():
            accepted += mass * share * count
            for rest in itertools.product(range(vocab), repeat=length + 1 - len(tokens)):
                joint[(*tokens, *rest)] += mass * share * bigram.target_of(rest, tokens[-1])
    return joint, accepted


def _call(
    verifier: Verifier,
    rows: FloatArray,
    laws: Sequence[Law],
    drafts: Sequence[int],
    buffer: FloatArray,
    uniforms: UniformSource,
) -> Verdict:
    return verifier(rows, laws, drafts, uniforms, buffer)


def target_joint(bigram: Bigram, length: int) -> FloatArray:
    joint = np.zeros((bigram.vocab_size,) * (length + 1))
    for tokens in np.ndindex(*joint.shape):
        joint[tokens] = bigram.target_of(tokens)
    return joint


USUAL = Bigram(
    p=[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.25, 0.7, 0.05]],
    q=[[0.3, 0.3, 0.4], [0.6, 0.2, 0.2], [0.2, 0.5, 0.3]],
)
ZEROS = Bigram(
    p=[[0.5, 0.5, 0.0], [0.0, 0.1, 0.9], [0.25, 0.7, 0.05]],
    q=[[0.0, 0.6, 0.4], [1.0, 0.0, 0.0], [0.0, 0.9, 0.1]],
)
EQUAL = Bigram(
    p=[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.25, 0.5, 0.25]],
    q=[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.25, 0.5, 0.25]],
)
DISJOINT = Bigram(
    p=[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.3, 0.7, 0.0]],
    q=[[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]],
)
PAIR = Bigram(p=[[0.75, 0.25], [0.5, 0.5]], q=[[0.4, 0.6], [0.9, 0.1]])
CASES = {
    "usual": USUAL,
    "zeros": ZEROS,
    "equal": EQUAL,
    "disjoint": DISJOINT,
    "pair": PAIR,
}


@pytest.mark.heavy
@pytest.mark.parametrize("verifier", [verify_tokens, verify_block])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_blocks_follow_the_target_exactly(verifier: Verifier, length: int, case: str) -> None:
    bigram = CASES[case]
    joint, accepted = joint_law(verifier, bigram, length)
    assert np.abs(joint - target_joint(bigram, length)).max() < TOLERANCE
    if case == "equal":
        assert accepted == pytest.approx(length, abs=TOLERANCE)
    if case == "disjoint":
        assert accepted == pytest.approx(0, abs=TOLERANCE)


@pytest.mark.heavy
@pytest.mark.parametrize("case", CASES)
def test_a_prefix_of_a_block_stands_with_its_own_probability(case: str) -> None:
    """P(at least i drafts stand, given the first i of them) = P_i, whatever comes after them."""
    bigram, length = CASES[case], 3
    stands: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for drafts, mass, rows, laws in bigram.blocks(length):
        targets = [float(row[token]) for row, token in zip(rows, drafts, strict=False)]
        proposals = [law.prob_of(token) for law, token in zip(laws, drafts, strict=True)]
        joint = joint_ratios(targets, proposals)
        verify = partial(_call, verify_block, rows, laws, drafts, np.empty(bigram.vocab_size))
        for (_, count), share in outcome_law(verify).items():
            for least in range(1, length + 1):
                found = stands[drafts[:least]]
                found[0] += mass * share
                found[1] += mass * share * (count >= least)
                found[2] = joint[least]
    for reached, stood, predicted in stands.values():
        assert stood / reached == pytest.approx(predicted, abs=TOLERANCE)


def test_the_enumeration_finds_a_wrong_verifier() -> None:
    def without_residual(
        p: FloatArray,
        q: Sequence[Law],
        drafts: Sequence[int],
        uniforms: UniformSource,
        buffer: FloatArray,
    ) -> Verdict:
        verdict = verify_tokens(p, q, drafts, uniforms, buffer)
        if verdict.accepted == len(drafts):
            return verdict
        # The correction from p itself, a common mistake.
        last = int(np.searchsorted(np.cumsum(p[verdict.accepted]), uniforms.draw_one(Role.BONUS)))
        return Verdict((*drafts[: verdict.accepted], last), verdict.accepted, verdict.acceptance)

    joint, _ = joint_law(without_residual, USUAL, 1)
    assert np.abs(joint - target_joint(USUAL, 1)).max() > 0.01


@pytest.mark.parametrize("case", CASES)
def test_one_draft_follows_the_target_exactly(case: str) -> None:
    bigram = CASES[case]
    for p, q in zip(bigram.p, bigram.q, strict=True):
        found, accepted = np.zeros(p.size), 0.0
        for token, mass in enumerate(q.probs()):
            buffer = np.empty(p.size)
            verify = partial(accept_correct, p, q, token, buffer=buffer)
            for (tokens, count), share in outcome_law(verify).items() if mass else ():
                found[tokens[0]] += mass * share
                accepted += mass * share * count
        assert np.abs(found - p).max() < TOLERANCE
        assert accepted == pytest.approx(np.minimum(p, q.probs()).sum(), abs=TOLERANCE)


@pytest.mark.heavy
@pytest.mark.parametrize("drafts", [1, 2, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_several_drafts_follow_the_target_exactly(case: str, drafts: int) -> None:
    bigram = CASES[case]
    for p, q in zip(bigram.p, bigram.q, strict=True):
        buffer = np.empty(p.size)
        rho = optimal_division(p, q, drafts, buffer)
        found, accepted = np.zeros(p.size), 0.0
        for tokens in itertools.product(np.flatnonzero(q.probs()).tolist(), repeat=drafts):
            mass = float(np.prod(q.probs_of(tokens)))
            verify = partial(verify_k_seq, p, q, tokens, buffer=buffer, rho=rho)
            for (emitted, count), share in outcome_law(verify).items():
                found[emitted[0]] += mass * share
                accepted += mass * share * count
        assert np.abs(found - p).max() < TOLERANCE
        # beta by its definition, from dense vectors.
        beta = np.minimum(q.probs(), p / rho).sum()
        assert 1 - (1 - beta) ** drafts == pytest.approx(rho * beta, abs=TOLERANCE)
        assert accepted == pytest.approx(1 - (1 - beta) ** drafts, abs=TOLERANCE)
        assert accepted == pytest.approx(k_seq_acceptance(p, q, drafts, buffer), abs=TOLERANCE)


def test_more_drafts_are_accepted_more_often() -> None:
    p, q = USUAL.p[1], USUAL.q[1]
    shares = [k_seq_acceptance(p, q, k, np.empty(3)) for k in (1, 2, 4, 8)]
    assert shares[0] == pytest.approx(np.minimum(p, q.probs()).sum())
    assert shares == sorted(set(shares))
    # At least 1 - 1 / e of what k drafts allow: sum min(p, 1 - (1 - q)^k) bounds that from above.
    bounds = [np.minimum(p, 1 - (1 - q.probs()) ** k).sum() for k in (1, 2, 4, 8)]
    for share, bound in zip(shares, bounds, strict=True):
        assert (1 - 1 / np.e) * bound <= share <= bound + TOLERANCE


@pytest.mark.heavy
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_block_verification_accepts_at_least_as_many(case: str, length: int) -> None:
    _, by_token = joint_law(verify_tokens, CASES[case], length)
    _, by_block = joint_law(verify_block, CASES[case], length)
    assert by_block >= by_token - TOLERANCE
    if length == 1:
        assert by_block == pytest.approx(by_token, abs=TOLERANCE)


def test_block_verification_accepts_more_at_four_drafts() -> None:
    # A chain that keeps its state with 9 : 1 and a proposal that has no idea of it.
    sticky = Bigram(p=[[0.9, 0.1], [0.1, 0.9]], q=[[0.5, 0.5], [0.5, 0.5]])
    _, by_token = joint_law(verify_tokens, sticky, 4)
    _, by_block = joint_law(verify_block, sticky, 4)
    assert by_token == pytest.approx(sum(0.6**i for i in range(1, 5)), abs=TOLERANCE)
    assert by_block > by_token + 0.1


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_expected_tokens_of_independent_drafts(length: int) -> None:
    p, q = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
    alike = Bigram(p=[p] * 3, q=[q] * 3)
    _, accepted = joint_law(verify_tokens, alike, length)
    a = sum(map(min, p, q))
    assert accepted + 1 == pytest.approx((1 - a ** (length + 1)) / (1 - a), abs=TOLERANCE)


@pytest.mark.heavy
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_laws(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 3))
    masses = st.lists(st.integers(0, 8), min_size=size, max_size=size).filter(any)
    rows = st.lists(masses, min_size=size, max_size=size)
    bigram = Bigram(data.draw(rows), data.draw(rows))
    for verifier in (verify_tokens, verify_block):
        joint, _ = joint_law(verifier, bigram, 2)
        assert np.abs(joint - target_joint(bigram, 2)).max() < TOLERANCE


def test_only_what_decides_is_drawn() -> None:
    buffer = np.empty(3)
    for verify, roles in (
        (partial(accept_correct, EQUAL.p[0], EQUAL.q[0], 1, buffer=buffer), []),
        (partial(accept_correct, USUAL.p[0], USUAL.q[0], 2, buffer=buffer), [Role.ACCEPT]),
        (partial(accept_correct, DISJOINT.p[0], DISJOINT.q[0], 2, buffer=buffer), [Role.RESIDUAL]),
    ):
        source = Scripted([0.0])
        verify(uniforms=source)
        assert source.roles == roles
    for verifier in (verify_tokens, verify_block):
        source = Scripted([0.999, 0.999, 0.999])
        verifier(USUAL.p[[0, 2, 2]], [USUAL.q[0], USUAL.q[2]], [2, 2], source, buffer)
        assert set(source.roles) <= {Role.ACCEPT, Role.RESIDUAL}
        assert source.roles.count(Role.RESIDUAL) == 1
        source = Scripted([])
        verifier(USUAL.p[[0, 2, 2]], [USUAL.q[0], USUAL.q[2]], [2, 2], source, buffer)
        assert source.roles[-1] is Role.BONUS
        assert source.roles.count(Role.ACCEPT) <= 2


@pytest.mark.parametrize("verifier", [verify_tokens, verify_block])
def test_lengths_that_do_not_fit(verifier: Verifier) -> None:
    rows, laws = USUAL.p[[0, 1]], [USUAL.q[0]]
    for wrong_rows, wrong_laws, drafts in (
        (rows[:1], laws, [1]),
        (rows, laws, [1, 1]),
        (rows, [], []),
        (rows, laws * 2, [1]),
    ):
        with pytest.raises(VerificationError, match=r"L drafts need L proposals and L \+ 1"):
            verifier(wrong_rows, wrong_laws, drafts, Scripted([]), np.empty(3))


def test_no_draft_at_all() -> None:
    with pytest.raises(VerificationError, match="at least one draft"):
        verify_k_seq(USUAL.p[0], USUAL.q[0], [], Scripted([]), np.empty(3))


def test_a_token_that_the_proposal_lacks_is_judged_by_the_target() -> None:
    # Only a faulty unit can send it.
    q = law_from([0.0, 1.0, 0.0])
    assert accept_correct(USUAL.p[0], q, 0, Scripted([]), np.empty(3)).accepted == 1
    p = np.array([0.0, 0.5, 0.5])
    assert accept_correct(p, q, 0, Scripted([]), np.empty(3)).accepted == 0


def test_nothing_of_the_vocabulary_is_allocated() -> None:
    size = 100_000
    p = np.full(size, 1.0 / size)
    q = HeadTailLaw([3, 1], np.log([0.3, 0.5]), np.log(0.2 / size), size)
    buffer = np.empty(size)
    # Rejections and acceptances of every rule.
    calls: list[Callable[[UniformSource], Verdict]] = [
        partial(accept_correct, p, q, 1, buffer=buffer),
        partial(_call, verify_tokens, [p] * 3, [q] * 2, [3, 1], buffer),
        partial(_call, verify_tokens, [p] * 3, [q] * 2, [7, 8], buffer),
        partial(_call, verify_block, [p] * 3, [q] * 2, [7, 1], buffer),
        partial(_call, verify_block, [p] * 3, [q] * 2, [7, 8], buffer),
        partial(verify_k_seq, p, q, [1, 3], buffer=buffer),
    ]
    for call in calls:
        tracemalloc.start()
        call(Scripted([0.9, 0.9, 0.9]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size, call
