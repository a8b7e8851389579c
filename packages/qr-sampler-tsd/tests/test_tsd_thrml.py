# SPDX-License-Identifier: Apache-2.0
"""thrml as a sampling unit, where the extra ``thrml`` is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qr_sampler_tsd import PsiError, PsiRelative, RecordingUniforms, Role, SeededUniforms
from qr_sampler_tsd.gate import run_gate
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import SimTSU, ThrmlTSU

pytest.importorskip("thrml", reason="needs the extra thrml")

GOLDEN = golden_payloads()


@pytest.fixture(scope="module")
def unit() -> ThrmlTSU:
    return ThrmlTSU()


def test_it_passes_the_gate(unit: ThrmlTSU) -> None:
    """200,000 draws per payload, false alarm 1e-9."""
    report = run_gate(unit, SeededUniforms(5))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", GOLDEN)
def test_it_chooses_what_sim_chooses_but_next_to_a_step(unit: ThrmlTSU, name: str) -> None:
    psi, recording = GOLDEN[name], RecordingUniforms(SeededUniforms(6))
    ours = unit.sample_categorical(psi, 8_000, recording)
    due = SimTSU().sample_categorical(psi, 8_000, SeededUniforms(6))
    (draw,) = recording.draws
    assert draw.role is Role.PROPOSAL
    different = ours.tokens != due.tokens
    steps = np.cumsum(psi.law().cell_probs)
    nearest = np.abs(draw.values[different, None] - steps).min(axis=1)
    assert (nearest < steps.size * 2.0**-22).all()
    assert different.sum() < 40
    np.testing.assert_array_equal(ours.log_q, psi.law().log_probs_of(ours.tokens))


@pytest.mark.parametrize("u", [0.0, 2.0**-53, 1 - 2.0**-53])
def test_the_ends_of_the_interval(unit: ThrmlTSU, u: float) -> None:
    for psi in GOLDEN.values():
        law = psi.law()
        number = np.array([u])
        states = unit._states(unit._log_weights(law), number)
        assert 0 <= states[0] <= law.ids.size
        assert law.tokens_at(states, number).tolist() == [law.select_one(u)]


def test_a_tail_without_weight_is_never_entered(unit: ThrmlTSU) -> None:
    psi = PsiRelative(
        ids=[4, 2], scores_q8=[127, -128], scale=1, tau=1, log_tail=-np.inf, vocab_size=9
    )
    assert set(unit.sample_categorical(psi, 500, SeededUniforms(1)).tokens) == {4}


def test_payloads_and_batches_share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from qr_sampler_tsd.tsu import _thrml_program

    traced = []
    sample_blocks = _thrml_program.sample_blocks

    def counted(key: Any, free: Any, *rest: Any) -> Any:
        traced.append(free[0].shape)
        return sample_blocks(key, free, *rest)

    monkeypatch.setattr(_thrml_program, "sample_blocks", counted)
    unit = ThrmlTSU(largest_batch=64)
    for batch_size in (33, 64, 50, 130):
        for name in ("flat", "cold", "excluded", "single"):
            samples = unit.sample_categorical(GOLDEN[name], batch_size, SeededUniforms(2))
            assert samples.tokens.shape == (batch_size,)
    # One node, traced for the 64 draws of a piece and for the 2 that remain of 130.
    assert traced == [(1,), (1,)]


def test_memory_is_that_of_weights_and_draws() -> None:
    """Not of their product, which is 2 GiB for the largest of both."""
    from qr_sampler_tsd.tsu._thrml_program import CategoricalProgram

    draws, states = 8192, 2**16
    program = CategoricalProgram(states)
    lowered = program._step.lower(
        program._program,
        np.zeros(states, np.float32),
        np.zeros(draws, np.float32),
        program._key,
    )
    memory = lowered.compile().compiled.memory_analysis()
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 64 * (draws + states)


def test_batches_that_are_split_choose_the_same(unit: ThrmlTSU) -> None:
    whole = unit.sample_categorical(GOLDEN["flat"], 130, SeededUniforms(7)).tokens
    split = ThrmlTSU(largest_batch=32).sample_categorical(GOLDEN["flat"], 130, SeededUniforms(7))
    assert split.tokens.tolist() == whole.tolist()


def test_the_key_of_thrml_is_not_read() -> None:
    import jax

    unit = ThrmlTSU()
    one = unit.sample_categorical(GOLDEN["flat"], 500, SeededUniforms(7)).tokens
    (program,) = unit._programs.values()
    program._key = jax.random.key(1234)
    two = unit.sample_categorical(GOLDEN["flat"], 500, SeededUniforms(7)).tokens
    assert one.tolist() == two.tolist()


def test_old_programs_are_dropped() -> None:
    unit = ThrmlTSU(programs_kept=2)
    for k in (63, 64, 63, 128):
        psi = PsiRelative(
            ids=range(k), scores_q8=[127] * k, scale=0, tau=1, log_tail=0.0, vocab_size=999
        )
        unit.sample_categorical(psi, 1, SeededUniforms(1))
    assert list(unit._programs) == [64, 256]


def test_heads_beyond_256_states_and_beyond_what_a_node_holds(unit: ThrmlTSU) -> None:
    k = 300
    psi = PsiRelative(
        ids=range(k), scores_q8=[127] * k, scale=0, tau=1, log_tail=-np.inf, vocab_size=k
    )
    tokens = unit.sample_categorical(psi, 5_000, SeededUniforms(1)).tokens
    assert set(tokens) == set(range(k))
    k = 2**16
    psi = PsiRelative(ids=range(k), scores_q8=[0] * k, scale=1, tau=1, log_tail=0, vocab_size=k + 1)
    with pytest.raises(PsiError, match="65537 cells, a node of thrml holds 65536"):
        unit.sample_categorical(psi, 1, SeededUniforms(1))


def test_its_law_is_not_known_exactly(unit: ThrmlTSU) -> None:
    assert unit.law(GOLDEN["flat"]) is None
