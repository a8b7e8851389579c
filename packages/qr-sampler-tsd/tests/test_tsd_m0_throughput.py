# SPDX-License-Identifier: Apache-2.0
"""M0: acceptance against overlap, text against target, and the cost against the dense sampler."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from qr_sampler_tsd import RecordedUniforms, RecordingUniforms, Role, SeededUniforms
from qr_sampler_tsd.errors import ExperimentError, PsiError
from qr_sampler_tsd.experiments import Equipment, ExperimentSettings, M0Settings, run_m0
from qr_sampler_tsd.experiments.contexts import ContextTable, floor_of, prepare_all
from qr_sampler_tsd.experiments.dense import DenseClock, dense_law, dense_pass
from qr_sampler_tsd.experiments.drafting import Drafter
from qr_sampler_tsd.experiments.loop import run_passes
from qr_sampler_tsd.experiments.results import ExperimentResult
from qr_sampler_tsd.psi_relative import PsiRelative
from qr_sampler_tsd.tsu import SimTSU

FALSE_ALARMS = 1e-9
Z = 6.2
"""Standard deviations that a correct run exceeds with about that probability."""


def run(**options: Any) -> ExperimentResult:
    settings = M0Settings(**{"steps": 4000, "dense_seconds": 0, **options})
    return run_m0(settings, Equipment(SeededUniforms(settings.seed)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"law": "zipf", "alpha": 1.2},
        {"vocab_size": 32_000, "psi_version": 2},
        {"vocab_size": 151_936},
        {"length": 3},
        {"length": 3, "verifier": "block"},
        {"length": 4, "verifier": "k_seq"},
        {"batch": 4, "length": 2, "steps": 1500},
        {"epsilon": 1e-6},
        {"tau": 0.7},
    ],
    ids=str,
)
def test_text_and_acceptance(options: dict[str, Any]) -> None:
    result = run(**options)
    assert result.chi_square.p_value > FALSE_ALARMS
    assert result.chi_square.degrees > 50
    if result.accept_z is not None:
        assert abs(result.accept_z) < Z
        assert 0 < result.overlap_mass < 1  # type: ignore[operator]
    else:
        assert result.verifier == "block"
    assert result.tokens == pytest.approx(result.tokens_per_pass * result.passes)


def test_known_figures() -> None:
    # V = 1000, K = 64, seed 7: the overlap of the same distribution, computed by other means,
    # is .7453.
    result = run()
    assert result.overlap_mass == pytest.approx(0.7453, abs=5e-5)
    assert result.psi_bytes == 5 * 64 + 13
    assert result.acceptance_agrees
    # One million steps would still be one context.
    assert (result.contexts, result.passes, result.tokens) == (1, 4000, 4000)


def test_blocks_emit_what_independent_drafts_should() -> None:
    result = run(length=3, law="zipf", alpha=1.2)
    a = result.overlap_mass
    assert a is not None
    expected = (1 - a**4) / (1 - a)
    # A pass emits 1 to 4 tokens, so its deviation is at most 1.5.
    assert abs(result.tokens_per_pass - expected) < Z * 1.5 / math.sqrt(result.passes)


def test_every_uniform_is_accounted() -> None:
    recording = RecordingUniforms(SeededUniforms(3))
    settings = M0Settings(steps=500, dense_seconds=0.01)
    first = run_m0(settings, Equipment(recording))
    drawn = {
        role.value: sum(draw.values.size for draw in recording.draws if draw.role is role)
        for role in Role
    }
    assert first.uniforms == {role: count for role, count in drawn.items() if count}
    assert first.uniforms["proposal"] == 500
    # The same draws make the same text.
    again = run_m0(settings, Equipment(RecordedUniforms(recording.draws)))
    assert again.chi_square == first.chi_square


def test_one_seeded_uniform_is_the_same_with_and_without_an_array() -> None:
    plain, single = SeededUniforms(5), SeededUniforms(5)
    for role in (Role.ACCEPT, Role.BONUS, Role.ACCEPT):
        assert single.draw_one(role) == plain.draw(1, role)[0]
    assert single.drawn == plain.drawn == {Role.ACCEPT: 2, Role.BONUS: 1}


def test_a_unit_gives_the_same_text_as_the_direct_route() -> None:
    settings = M0Settings(steps=500, dense_seconds=0)
    direct = run_m0(settings, Equipment(SeededUniforms(3)))
    unit = run_m0(settings, Equipment(SeededUniforms(3), unit=SimTSU()))
    assert unit.unit == "SimTSU"
    assert direct.unit == "sim"
    assert unit.chi_square == direct.chi_square


class Skewed(SimTSU):
    """Proposes the best token twice as often as the distribution says."""

    @property
    def name(self) -> str:
        return "skewed"

    def draw_tokens(self, law: Any, batch_size: int, uniforms: Any) -> Any:
        tokens = super().draw_tokens(law, batch_size, uniforms)
        return np.where(uniforms.draw(batch_size, Role.PROPOSAL) < 0.15, law.ids[0], tokens)


def test_a_device_with_another_law_is_found() -> None:
    settings = M0Settings(steps=4000, dense_seconds=0)
    result = run_m0(settings, Equipment(SeededUniforms(3), unit=Skewed()))
    assert result.chi_square.p_value < FALSE_ALARMS


def test_dense_law_is_the_same_law() -> None:
    for version in (1, 2):
        settings = M0Settings(vocab_size=500, psi_version=version, tau=0.8)
        table = ContextTable(settings.target(), settings)
        assert dense_law(table[0]) == pytest.approx(table[0].law.probs(), rel=1e-9)


@pytest.mark.heavy
@pytest.mark.parametrize("length", [1, 3])
def test_dense_pass_follows_the_target(length: int) -> None:
    settings = M0Settings(vocab_size=12, k=4)
    table = ContextTable(settings.target(), settings)
    uniforms = SeededUniforms(1)
    tokens = [dense_pass(table, 0, length, uniforms)[0] for _ in range(20_000)]
    counts = np.bincount(tokens, minlength=12)
    p = table[0].p
    deviations = (counts - 20_000 * p) / np.sqrt(20_000 * p * (1 - p))
    assert np.abs(deviations).max() < 6.5


def test_no_step_allocates_the_vocabulary() -> None:
    settings = M0Settings(vocab_size=200_000, steps=300, dense_seconds=0)
    table = ContextTable(settings.target(), settings)
    prepare_all(table)
    uniforms = SeededUniforms(3)
    drafter = Drafter(table, None, uniforms)
    tracemalloc.start()
    run_passes(table, drafter, uniforms, lambda step: None)
    # The one buffer of the judge is allocated before the steps.
    peak = tracemalloc.get_traced_memory()[1] - 8 * settings.vocab_size
    tracemalloc.stop()
    assert peak < settings.vocab_size


def test_a_large_vocabulary_is_cheaper_than_dense() -> None:
    # About 100 times on an idle machine; this only tells O(V) from O(log V).
    result = run(vocab_size=151_936, steps=2000, dense_seconds=0.2)
    assert result.speed_ratio is not None
    assert result.speed_ratio > 5


def test_without_comparison() -> None:
    assert run(steps=10).speed_ratio is None


def test_a_clock_of_no_time() -> None:
    settings = M0Settings(vocab_size=50)
    clock = DenseClock(ContextTable(settings.target(), settings), 1, SeededUniforms(1), 0.0)
    clock()
    assert clock.passes_per_second is None


def test_floors() -> None:
    settings = M0Settings(vocab_size=1000)
    p = settings.target().row(0)
    first = settings.psi_for(p)
    second = M0Settings(vocab_size=1000, psi_version=2).psi_for(p)
    assert isinstance(second, PsiRelative)
    # Weights of version 2 are relative to the best token.
    assert floor_of(second) == pytest.approx(floor_of(first) / p.max(), rel=2e-2)
    assert floor_of(M0Settings(vocab_size=4, k=4, psi_version=2).psi_for(p[:4])) == 0


def test_an_infinite_gap() -> None:
    assert run(epsilon=0.0, steps=10).ce_gap_nats == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0"),
        ({"batch": 0}, "batch=0"),
        ({"steps": 0}, "steps=0"),
        ({"log_every": 0}, "log_every=0"),
        ({"seed": -1}, "seed=-1"),
        ({"dense_seconds": math.nan}, "dense_seconds=nan"),
        ({"verifier": "typical"}, "token, block, k_seq"),
        ({"psi_version": 3}, "psi_version=3"),
        ({"psi_version": 2, "epsilon": 0.1}, "no epsilon"),
        ({"law": "uniform"}, "dirichlet or zipf"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        M0Settings(**options)


def test_a_head_larger_than_the_vocabulary() -> None:
    with pytest.raises(PsiError, match="k=64"):
        run(vocab_size=10)
    assert ExperimentSettings().k == 64
