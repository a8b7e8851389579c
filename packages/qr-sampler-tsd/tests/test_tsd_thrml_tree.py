# SPDX-License-Identifier: Apache-2.0
"""Coupled spins of thrml as a tree of p-bits, where the extra ``thrml`` is installed."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from qr_sampler_tsd import PsiError, PsiRelative, RecordingUniforms, Role, SeededUniforms
from qr_sampler_tsd.gate import run_gate
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import PBitTreeTSU, ThrmlTreeTSU

pytest.importorskip("thrml", reason="needs the extra thrml")

GOLDEN = golden_payloads()


@pytest.fixture(scope="module")
def unit() -> ThrmlTreeTSU:
    return ThrmlTreeTSU()


@pytest.mark.heavy
def test_it_passes_the_gate(unit: ThrmlTreeTSU) -> None:
    """20,000 draws per payload, false alarm 1e-9."""
    report = run_gate(unit, SeededUniforms(5), 20_000)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", GOLDEN)
def test_its_spins_are_the_bits_of_the_simulated_tree(unit: ThrmlTreeTSU, name: str) -> None:
    """But where a uniform is next to the probability of a bit, which float32 rounds."""
    psi, recording = GOLDEN[name], RecordingUniforms(SeededUniforms(6))
    ours = unit.sample_categorical(psi, 4_000, recording)
    due = PBitTreeTSU().sample_categorical(psi, 4_000, SeededUniforms(6))
    assert {draw.role for draw in recording.draws} == {Role.PROPOSAL}
    assert np.count_nonzero(ours.tokens != due.tokens) < 4
    np.testing.assert_array_equal(ours.log_q, psi.law().log_probs_of(ours.tokens))


def test_couplings_give_every_node_its_bias() -> None:
    """By the polynomial, in plain Python."""
    from qr_sampler_tsd.tsu._thrml_tree import couplings

    levels = 5
    biases = np.random.default_rng(1).normal(scale=3, size=2**levels)
    weights = iter(couplings(biases))
    for level in range(levels):
        terms = [
            (one, weight)
            for order in range(level + 1)
            for one, weight in zip(combinations(range(level), order), next(weights), strict=True)
        ]
        for node, spins in enumerate(product((-1, 1), repeat=level), start=1 << level):
            gamma = sum(weight * np.prod([spins[at] for at in one]) for one, weight in terms)
            assert gamma == pytest.approx(biases[node], abs=1e-5)


def test_the_program_is_made_of_coupled_spin_nodes() -> None:
    from thrml import SpinNode

    from qr_sampler_tsd.tsu._thrml_tree import SpinTreeProgram

    program = SpinTreeProgram(4)._program
    nodes = [node for block in program.gibbs_spec.free_blocks for node in block.nodes]
    assert [type(node) for node in nodes] == [SpinNode] * 4
    per_level = [
        sum(one.weights.size for one in interactions)
        for interactions in program.per_block_interactions
    ]
    # A coupling to every set of the spins above, the empty one included.
    assert per_level == [1, 2, 4, 8]


def test_the_key_of_thrml_is_not_read(unit: ThrmlTreeTSU) -> None:
    import jax

    one = unit.sample_categorical(GOLDEN["flat"], 64, SeededUniforms(7)).tokens
    unit._programs[6]._key = jax.random.key(1234)
    two = unit.sample_categorical(GOLDEN["flat"], 64, SeededUniforms(7)).tokens
    assert one.tolist() == two.tolist()


@pytest.mark.parametrize("u", [0.0, 2.0**-53, 1 - 2.0**-53])
def test_the_ends_of_the_interval_never_reach_what_cannot_occur(
    unit: ThrmlTreeTSU, u: float
) -> None:
    from qr_sampler_tsd import RecordedUniforms, UniformDraw

    for psi in GOLDEN.values():
        law = psi.law()
        draws = [
            UniformDraw(Role.PROPOSAL, np.full(n, u), None)
            for n in ((law.ids.size).bit_length(), 1)
        ]
        (token,) = unit.draw_tokens(law, 1, RecordedUniforms(draws))
        assert law.prob_of(token) > 0


@pytest.mark.heavy
def test_memory_is_bounded() -> None:
    """By the products of spins that a piece holds."""
    from qr_sampler_tsd.tsu._thrml_tree import SpinTreeProgram, couplings
    from qr_sampler_tsd.tsu.thrml_tree import draws_at_once

    levels = 6
    program, count = SpinTreeProgram(levels), draws_at_once(levels)
    lowered = program._step.lower(
        program._program,
        couplings(np.zeros(2**levels)),
        np.full((levels, count), 0.5, np.float32),
        program._key,
    )
    assert lowered.compile().compiled.memory_analysis().temp_size_in_bytes < 4 * 2**20


def test_pieces_choose_the_same(unit: ThrmlTreeTSU, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unit.sample_categorical(GOLDEN["flat"], 130, SeededUniforms(7)).tokens
    monkeypatch.setattr("qr_sampler_tsd.tsu.thrml_tree.draws_at_once", lambda levels: 64)
    split = unit.sample_categorical(GOLDEN["flat"], 130, SeededUniforms(7)).tokens
    assert split.tolist() == whole.tolist()


def test_heads_beyond_the_tree_are_refused_before_a_draw(unit: ThrmlTreeTSU) -> None:
    k = 2**12
    psi = PsiRelative(ids=range(k), scores_q8=[0] * k, scale=1, tau=1, log_tail=0, vocab_size=k + 1)
    uniforms = SeededUniforms(1)
    with pytest.raises(PsiError, match="4097 cells, a tree of 12 spins of thrml holds 4096"):
        unit.sample_categorical(psi, 1, uniforms)
    assert not uniforms.drawn


def test_a_payload_without_a_head_is_a_tail(unit: ThrmlTreeTSU) -> None:
    psi = PsiRelative(
        ids=[3], scores_q8=[0], scale=1, tau=1, log_tail=0.0, vocab_size=5, excluded=[0, 1, 3, 4]
    )
    assert set(unit.sample_categorical(psi, 40, SeededUniforms(1)).tokens) == {2}
