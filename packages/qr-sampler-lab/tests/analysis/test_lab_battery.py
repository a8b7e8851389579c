# SPDX-License-Identifier: Apache-2.0
"""All tests together: chunks do not matter, arms are compared, what cannot be said says why."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import Battery, LatticeLaw, Visibility, compare


def test_chunks_do_not_matter() -> None:
    rng, law = np.random.default_rng(1), LatticeLaw.of_bits(16)
    ones = rng.binomial(128, 0.5, 5_000)
    z = (ones - 64) / law.deviation
    for about, values in (("statistic", z), ("u", stats.norm.cdf(z))):
        whole, parts = Battery(about, law=law), Battery(about, law=law)
        whole.add(values, ones)
        for chunk, counts in zip(np.array_split(values, 11), np.array_split(ones, 11), strict=True):
            parts.add(chunk, counts)
        for one, other in zip(whole.results(), parts.results(), strict=True):
            assert (one.name, one.n) == (other.name, other.n)
            assert one.statistic == pytest.approx(other.statistic, rel=1e-9)
            assert one.p_value == pytest.approx(other.p_value, rel=1e-6)


def test_an_exact_law_is_tested_where_the_continuous_one_alarms() -> None:
    rng, law = np.random.default_rng(2), LatticeLaw.of_bits(4)
    ones = rng.binomial(32, 0.5, 20_000)
    u = stats.norm.cdf((ones - 16) / law.deviation)
    exact, blind = Battery("u", law=law), Battery("u")
    exact.add(u, ones)
    blind.add(u)
    assert min(result.p_value for result in exact.shape()) > 1e-3
    assert blind.shape()[0].p_value < 1e-9
    assert all("exact discrete law" in result.notes[-1] for result in exact.shape())


def test_tests_of_shape_are_withheld_where_the_lattice_shows() -> None:
    battery = Battery("u", visibility=Visibility(1e-3))
    rng = np.random.default_rng(3)
    battery.add(rng.random(1_100))
    assert not math.isnan(battery.shape()[0].p_value)
    battery.add(rng.random(100))
    withheld = battery.shape()
    assert all(math.isnan(result.p_value) for result in withheld)
    assert "1,156 tokens" in withheld[0].notes[-1]
    assert not math.isnan(battery.location()[0].p_value)


def test_no_tokens_are_a_reason_for_every_test() -> None:
    for result in Battery("u").results():
        assert math.isnan(result.p_value)
        assert result.notes[0].startswith("Cannot be said")
    assert len({result.name for result in Battery("u").results()}) == 9


def test_every_effect_is_seen_by_the_test_that_is_for_it() -> None:
    rng = np.random.default_rng(4)
    z = rng.standard_normal(20_000)
    effects = {
        "mean": z + 0.1,
        "variance": z * 1.1,
        "kolmogorov_smirnov": z + 0.1,
        "tails": np.where(np.abs(z) > 2.0, 1.3 * z, z),
        "cusum": z + np.linspace(-0.2, 0.2, z.size),
    }
    for name, values in effects.items():
        battery = Battery("statistic")
        battery.add(values)
        (found,) = (result for result in battery.results() if result.name == name)
        assert found.p_value < 1e-9, name


def test_arms_are_compared_whatever_they_share() -> None:
    rng = np.random.default_rng(5)
    arm, control, shifted = Battery("statistic"), Battery("statistic"), Battery("statistic")
    arm.add(rng.standard_normal(4_000) + 5.0)
    control.add(rng.standard_normal(9_000) + 5.0)
    shifted.add(rng.standard_normal(9_000) * 1.2 + 5.2)
    assert min(result.p_value for result in compare(arm, control)) > 1e-3
    assert max(result.p_value for result in compare(shifted, control)) < 1e-9
    assert compare(shifted, control, alternative="less")[0].p_value > 0.999


def test_a_baseline_widens_the_mean() -> None:
    alone, referred = Battery("u"), Battery("u", baseline_blocks=1_000)
    for battery in (alone, referred):
        battery.add(np.random.default_rng(6).random(1_000) * 0.99)
    ratio = alone.location()[0].statistic / referred.location()[0].statistic
    assert ratio == pytest.approx(math.sqrt(2.0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Battery("rank"), "about='rank'"),
        (lambda: Battery("u", law=LatticeLaw.of_bits(1), baseline_blocks=9), "one of them"),
        (lambda: Battery("u", law=LatticeLaw.of_bits(1)).add([0.5]), "count of every block"),
        (lambda: compare(Battery("u"), Battery("statistic")), "same column"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
