# SPDX-License-Identifier: Apache-2.0
"""p-bits against plain Python: trees as products of bits, Gibbs sweeps as products of matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from qr_sampler_tsd import Psi, PsiRelative, RecordingUniforms, SeededUniforms
from qr_sampler_tsd.errors import MixingError
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import PBitGibbsTSU, PBitTreeTSU, sweep_law, sweeps_needed

GOLDEN = golden_payloads()
PAYLOADS = pytest.mark.parametrize("psi", GOLDEN.values(), ids=GOLDEN)
Probs = NDArray[np.float64]


@st.composite
def payloads(draw: st.DrawFn) -> PsiRelative:
    k = draw(st.integers(1, 9))
    codes = draw(st.lists(st.integers(-128, 127), min_size=k, max_size=k))
    return PsiRelative(
        ids=range(k),
        scores_q8=codes,
        scale=0.02,
        tau=draw(st.sampled_from([0.35, 1.0, 2.0])),
        log_tail=draw(st.one_of(st.just(-np.inf), st.floats(-5, 3))),
        vocab_size=k + draw(st.integers(0, 3)),
    )


def distance(one: Probs, other: Probs) -> float:
    return 0.5 * float(np.abs(one - other).sum())


def tree_by_hand(cells: list[float], dac_bits: int | None) -> list[float]:
    """The distribution of the leaves: below each prefix, the bias of the next bit, converted."""
    levels = (len(cells) - 1).bit_length()
    padded = cells + [0.0] * (2**levels - len(cells))

    def below(prefix: int, length: int) -> float:
        width = 2 ** (levels - length)
        return math.fsum(padded[prefix * width : (prefix + 1) * width])

    def prob(leaf: int) -> float:
        result = 1.0
        for length in range(levels):
            prefix = leaf >> (levels - length)
            zero, one = below(2 * prefix, length + 1), below(2 * prefix + 1, length + 1)
            if zero + one == 0:
                return 0.0
            if zero == 0 or one == 0:
                p_one = float(zero == 0)
            else:
                bias = 0.5 * math.log(one / zero)
                if dac_bits is not None:
                    step = 16 / (2**dac_bits - 1)
                    bias = round((min(8.0, max(-8.0, bias)) + 8) / step) * step - 8
                p_one = 1 / (1 + math.exp(-2 * bias))
            result *= p_one if leaf >> (levels - length - 1) & 1 else 1 - p_one
        return result

    return [prob(leaf) for leaf in range(len(cells))]


@pytest.mark.heavy
@given(payloads())
def test_a_tree_without_a_converter_is_exact(psi: PsiRelative) -> None:
    cells = psi.law().cell_probs
    np.testing.assert_allclose(PBitTreeTSU().law(psi).cell_probs, cells, atol=1e-14)
    assert PBitTreeTSU().tv_bound(cells.size) == 0.0


@given(payloads(), st.integers(2, 12))
def test_the_law_of_a_converter_and_its_bound(psi: PsiRelative, dac_bits: int) -> None:
    unit = PBitTreeTSU(dac_bits)
    cells = psi.law().cell_probs
    ours = unit.law(psi).cell_probs
    np.testing.assert_allclose(ours, tree_by_hand(cells.tolist(), dac_bits), atol=1e-12)
    assert distance(ours, cells) <= unit.tv_bound(cells.size) + 1e-12


@PAYLOADS
def test_converters_of_golden_payloads(psi: Psi) -> None:
    cells = psi.law().cell_probs
    distances = {
        bits: distance(PBitTreeTSU(bits).law(psi).cell_probs, cells) for bits in (8, 10, 12)
    }
    for bits, off in distances.items():
        assert off <= PBitTreeTSU(bits).tv_bound(cells.size)
    assert distances[8] < 0.02
    assert distances[12] < 0.001


@PAYLOADS
@pytest.mark.parametrize("unit", [PBitTreeTSU(), PBitTreeTSU(6)], ids=["exact", "6 bits"])
def test_tokens_follow_the_law_of_the_tree(unit: PBitTreeTSU, psi: Psi) -> None:
    """Chi-square on 20,000 draws, false alarm 1e-10 per payload."""
    check_cells(unit, psi, unit.law(psi).cell_probs)


def check_cells(unit: PBitTreeTSU | PBitGibbsTSU, psi: Psi, cells: Probs) -> None:
    law = psi.law()
    tokens = unit.sample_categorical(psi, 20_000, SeededUniforms(8)).tokens
    counts = np.array([np.count_nonzero(tokens == token) for token in law.ids])
    counts = np.append(counts, 20_000 - counts.sum())
    kept = 20_000 * cells >= 25
    observed = np.append(counts[kept], counts[~kept].sum())
    expected = np.append(20_000 * cells[kept], 20_000 * cells[~kept].sum())
    if expected[-1] < 25:
        observed, expected = observed[:-1], expected[:-1]
        expected *= observed.sum() / expected.sum()
    if observed.size > 1:
        assert stats.chisquare(observed, expected).pvalue > 1e-10


@given(payloads(), st.integers(0, 1000))
def test_a_tree_is_followed_bit_by_bit(psi: PsiRelative, seed: int) -> None:
    recording = RecordingUniforms(SeededUniforms(seed))
    tokens = PBitTreeTSU().sample_categorical(psi, 4, recording).tokens
    cells = psi.law().cell_probs.tolist()
    levels = (len(cells) - 1).bit_length()
    padded = np.array(cells + [0.0] * (2**levels - len(cells)))
    u = recording.draws[0].values.reshape(levels, 4)
    for draw, token in enumerate(tokens):
        start, width = 0, 2**levels
        for level in range(levels):
            width //= 2
            zero, one = padded[start : start + width].sum(), padded[start + width :][:width].sum()
            if u[level, draw] < one / (zero + one):
                start += width
        assert token == start or (start == len(cells) - 1 and token >= start)


@pytest.mark.parametrize("dac_bits", [1, 25, -3])
def test_an_impossible_converter_is_refused(dac_bits: int) -> None:
    with pytest.raises(ValueError, match=f"dac_bits={dac_bits} must be from 2 to 24"):
        PBitTreeTSU(dac_bits)


def sweep_by_hand(ranked: Probs) -> Probs:
    """The product of the matrices of single updates, the highest bit first."""
    states = ranked.size
    total = np.eye(states)
    for bit in reversed(range(states.bit_length() - 1)):
        update = np.zeros((states, states))
        for state in range(states):
            zero, one = state & ~(1 << bit), state | (1 << bit)
            mass = ranked[zero] + ranked[one]
            p_one = ranked[one] / mass if mass else 0.0
            update[state, one] += p_one
            update[state, zero] += 1 - p_one
        total = total @ update
    return total


@given(st.integers(0, 4), st.data())
def test_a_sweep_is_its_transition_matrix(bits: int, data: st.DataObject) -> None:
    size = 2**bits
    weights = st.one_of(st.just(0.0), st.floats(1e-6, 1))
    drawn = sorted(data.draw(st.lists(weights, min_size=size, max_size=size)), reverse=True)
    if not drawn[0]:
        return
    ranked = np.array(drawn) / sum(drawn)
    matrix = sweep_law(np.eye(size), ranked)
    np.testing.assert_allclose(matrix, sweep_by_hand(ranked), atol=1e-13)
    np.testing.assert_allclose(ranked @ matrix, ranked, atol=1e-13)
    start = np.eye(size)[0]
    np.testing.assert_allclose(sweep_law(start, ranked), start @ matrix, atol=1e-13)


@PAYLOADS
def test_sweeps_needed_are_the_least(psi: Psi) -> None:
    cells = psi.law().cell_probs
    for target in (1e-2, 1e-4, 1e-8):
        sweeps = sweeps_needed(psi, target)
        assert distance(PBitGibbsTSU(sweeps, target).law(psi).cell_probs, cells) <= target * 1.0001
        if sweeps > 1:
            with pytest.raises(MixingError, match="is allowed; allow more sweeps"):
                PBitGibbsTSU(sweeps - 1, target).law(psi)


def test_sweeps_that_do_not_reach_the_target_are_refused_before_a_draw() -> None:
    uniforms = SeededUniforms(1)
    with pytest.raises(MixingError, match=r"2 sweeps leave a total variation of 0\.\d+"):
        PBitGibbsTSU(2, 1e-3).sample_categorical(GOLDEN["flat"], 5, uniforms)
    assert not uniforms.drawn
    with pytest.raises(MixingError, match="3 sweeps do not reach a total variation of 1e-12"):
        sweeps_needed(GOLDEN["flat"], 1e-12, limit=3)


@pytest.mark.parametrize("name", ["flat", "warm", "cold", "excluded"])
def test_a_few_sweeps_reach_a_thousandth(name: str) -> None:
    assert sweeps_needed(GOLDEN[name], 1e-3) <= 6


def test_a_random_code_takes_far_more_sweeps() -> None:
    """The same cells of the steepest payload under permuted numbers."""
    cells = GOLDEN["cold"].law().cell_probs
    for seed in range(3):
        ranked = np.random.default_rng(seed).permutation(cells)
        sweeps = np.linalg.matrix_power(sweep_law(np.eye(64), ranked), 1_000)
        assert distance(sweeps[ranked.argmax()], ranked) > 1e-3


@PAYLOADS
@pytest.mark.parametrize("sweeps", [1, 2, 9])
def test_tokens_follow_the_law_of_the_chain(sweeps: int, psi: Psi) -> None:
    """Also of one that is far from mixed: predicted and measured mixing agree."""
    unit = PBitGibbsTSU(sweeps, 1.0)
    check_cells(unit, psi, unit.law(psi).cell_probs)


@given(payloads(), st.integers(0, 1000))
def test_bits_are_updated_one_after_the_other(psi: PsiRelative, seed: int) -> None:
    recording = RecordingUniforms(SeededUniforms(seed))
    tokens = PBitGibbsTSU(2, 1.0).sample_categorical(psi, 3, recording).tokens
    cells = psi.law().cell_probs
    order = sorted(range(cells.size), key=lambda cell: -cells[cell])
    bits = (cells.size - 1).bit_length()
    ranked = [*cells[order], *[0.0] * (2**bits - cells.size)]
    u = recording.draws[0].values.reshape(2 * bits, 3)
    for draw, token in enumerate(tokens):
        state = 0
        for row in range(2 * bits):
            bit = 1 << (bits - 1 - row % bits)
            zero, one = ranked[state & ~bit], ranked[state | bit]
            state = state | bit if u[row, draw] < one / (zero + one) else state & ~bit
        cell = order[state]
        assert token == cell or (cell == cells.size - 1 and token >= cell)


@pytest.mark.parametrize("sweeps", [0, -1])
def test_impossible_sweeps_are_refused(sweeps: int) -> None:
    with pytest.raises(ValueError, match=f"sweeps={sweeps} must be at least 1"):
        PBitGibbsTSU(sweeps)


@pytest.mark.parametrize("tv_target", [0.0, -1e-3, 1.5, math.nan])
def test_an_impossible_target_is_refused(tv_target: float) -> None:
    with pytest.raises(ValueError, match=f"tv_target={tv_target} must be above 0"):
        PBitGibbsTSU(3, tv_target)
