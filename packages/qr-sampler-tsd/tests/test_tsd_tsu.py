# SPDX-License-Identifier: Apache-2.0
"""What every sampling unit promises: log q of F(psi), accounted uniforms, replayable draws."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_tsd import (
    EntropyUniforms,
    Psi,
    PsiTopK,
    RecordedUniforms,
    RecordingUniforms,
    Role,
    SeededUniforms,
)
from qr_sampler_tsd.errors import MissingExtraError
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import PBitGibbsTSU, PBitTreeTSU, SimTSU, ThrmlTSU, TSUAdapter

GOLDEN = golden_payloads()
UNITS = pytest.mark.parametrize(
    "unit", [SimTSU(), PBitTreeTSU(), PBitTreeTSU(8), PBitGibbsTSU(9)], ids=lambda unit: unit.name
)
PAYLOADS = pytest.mark.parametrize("psi", GOLDEN.values(), ids=GOLDEN)


@UNITS
@PAYLOADS
def test_log_q_is_that_of_the_payload(unit: TSUAdapter, psi: Psi) -> None:
    samples = unit.sample_categorical(psi, 300, SeededUniforms(1))
    assert samples.tokens.shape == samples.log_q.shape == (300,)
    assert (samples.tokens.dtype, samples.log_q.dtype) == (np.int64, np.float64)
    np.testing.assert_array_equal(samples.log_q, psi.law().log_probs_of(samples.tokens))
    assert np.isfinite(samples.log_q).all()


@UNITS
@PAYLOADS
def test_a_recording_brings_the_same_tokens_back(unit: TSUAdapter, psi: Psi) -> None:
    recording = RecordingUniforms(SeededUniforms(2))
    tokens = unit.sample_categorical(psi, 50, recording).tokens
    replay = RecordedUniforms(recording.draws)
    assert unit.sample_categorical(psi, 50, replay).tokens.tolist() == tokens.tolist()
    assert set(recording.drawn) == {Role.PROPOSAL}


@UNITS
def test_a_batch_below_1_is_refused(unit: TSUAdapter) -> None:
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        unit.sample_categorical(GOLDEN["v1"], 0, SeededUniforms(1))


@UNITS
def test_a_source_that_fails_is_heard_of(unit: TSUAdapter) -> None:
    uniforms = EntropyUniforms(ConstantEntropySource(fail_with="unplugged"))
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        unit.sample_categorical(GOLDEN["v1"], 2, uniforms)


@pytest.mark.parametrize(
    ("unit", "per_draw", "tail_draws"),
    [(SimTSU(), 1, 0), (PBitTreeTSU(), 6, 1), (PBitTreeTSU(8), 6, 1), (PBitGibbsTSU(9), 54, 1)],
    ids=lambda value: value.name if isinstance(value, TSUAdapter) else "",
)
def test_every_uniform_is_accounted(unit: TSUAdapter, per_draw: int, tail_draws: int) -> None:
    """64 cells are 6 bits; p-bits that hit the tail ask for one more uniform each, together."""
    psi = GOLDEN["flat"]
    recording = RecordingUniforms(SeededUniforms(3))
    tokens = unit.sample_categorical(psi, 200, recording).tokens
    in_tail = int(np.count_nonzero(~np.isin(tokens, psi.ids)))
    assert in_tail > 0
    assert recording.drawn == {Role.PROPOSAL: 200 * per_draw + tail_draws * in_tail}
    assert len(recording.draws) == 1 + tail_draws


def test_sim_draws_one_like_many() -> None:
    psi = GOLDEN["warm"]
    many = SimTSU().sample_categorical(psi, 100, SeededUniforms(4)).tokens
    uniforms = SeededUniforms(4)
    one = [int(SimTSU().sample_categorical(psi, 1, uniforms).tokens[0]) for _ in range(100)]
    assert one == many.tolist()


def test_sim_is_the_inverse_distribution_function() -> None:
    psi = GOLDEN["v1"]
    low = EntropyUniforms(ConstantEntropySource(0))
    high = EntropyUniforms(ConstantEntropySource(255))
    assert SimTSU().sample_categorical(psi, 1, low).tokens.tolist() == [psi.ids[0]]
    assert SimTSU().sample_categorical(psi, 2, high).tokens.tolist() == [999, 999]
    assert SimTSU().law(psi).probs().tolist() == psi.law().probs().tolist()


@UNITS
def test_a_payload_of_one_possible_token(unit: TSUAdapter) -> None:
    psi = PsiTopK(ids=[3], scores_q8=[0], scale=1, zero_point=0, tau=1, epsilon=0.5, vocab_size=5)
    bare = PsiTopK(ids=[3], scores_q8=[0], scale=1, zero_point=0, tau=1, epsilon=0, vocab_size=5)
    assert set(unit.sample_categorical(bare, 40, SeededUniforms(1)).tokens) == {3}
    masked = PsiTopK.from_bytes(psi.to_bytes(), excluded=[0, 1, 3, 4])
    assert set(unit.sample_categorical(masked, 40, SeededUniforms(1)).tokens) == {2}


def test_thrml_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qr_sampler_tsd.tsu._thrml_program", None)
    with pytest.raises(MissingExtraError, match="pip install thrml") as caught:
        ThrmlTSU()
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("largest_batch", [0, -8, 3, 6])
def test_batches_of_thrml_are_powers_of_two(largest_batch: int) -> None:
    with pytest.raises(ValueError, match=f"largest_batch={largest_batch} must be a power of two"):
        ThrmlTSU(largest_batch)


def test_thrml_keeps_at_least_one_program() -> None:
    with pytest.raises(ValueError, match="programs_kept=0 must be at least 1"):
        ThrmlTSU(programs_kept=0)
