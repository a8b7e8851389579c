# SPDX-License-Identifier: Apache-2.0
"""The pseudo-random stand-in: its distributions, its streams, its settings."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qr_entropy_sources.byte_law import tilted_byte_law
from qr_entropy_sources.mock_uniform import MockUniformSource
from qr_sampler import ConfigError, JitClass
from qr_sampler.settings import BYTE_MEAN
from qr_sampler.testing import EntropySourceContract

ALPHA = 1e-9
"""False-alarm probability of each statistical test, were its seed not fixed."""

SAMPLE = 1_000_000


class CountingPCG64(np.random.PCG64):
    words = 0

    def random_raw(self, size: int) -> npt.NDArray[np.uint64]:  # type: ignore[override]
        CountingPCG64.words += size
        return super().random_raw(size)


class TestMockUniformSource(EntropySourceContract):
    @pytest.fixture
    def source(self, monkeypatch: pytest.MonkeyPatch) -> MockUniformSource:
        monkeypatch.setattr(np.random, "PCG64", CountingPCG64)
        CountingPCG64.words = 0
        return MockUniformSource()

    @pytest.fixture
    def generation_log(self) -> Callable[[], int]:
        return lambda: CountingPCG64.words


class TestSeededMockUniformSource(EntropySourceContract):
    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_fork_gets_bytes_of_its_own": "a seed gives the same bytes in every process"
    }

    @pytest.fixture
    def source(self) -> MockUniformSource:
        return MockUniformSource(seed=11)


class TestBiasedMockUniformSource(EntropySourceContract):
    uniform = False

    @pytest.fixture
    def source(self) -> MockUniformSource:
        return MockUniformSource(mean=160.0)


def goodness_of_fit(data: bytes, law: npt.NDArray[np.float64]) -> float:
    """Returns the p-value of Pearson's chi-square test of *data* against *law*."""
    observed = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    expected = law / law.sum() * len(data)
    assert expected.min() > 5, "cells too thin for the chi-square approximation"
    return float(stats.chisquare(observed, expected).pvalue)


UNIFORM = np.full(256, 1 / 256)


def test_default_is_uniform() -> None:
    data = MockUniformSource(seed=20_240_601).get_random_bytes(SAMPLE)
    assert goodness_of_fit(data, UNIFORM) > ALPHA


def test_default_bytes_are_independent_of_their_neighbours() -> None:
    values = np.frombuffer(MockUniformSource(seed=5).get_random_bytes(SAMPLE), dtype=np.uint8)
    pairs = (values[0::2] >> 4) * np.uint16(16) + (values[1::2] >> 4)
    assert goodness_of_fit(pairs.astype(np.uint8).tobytes(), UNIFORM) > ALPHA


@pytest.mark.parametrize("mean", [100.0, 126.0, 129.0, 140.0])
def test_biased_bytes_follow_their_law_and_no_other(mean: float) -> None:
    law = tilted_byte_law(mean)
    data = MockUniformSource(seed=7, mean=mean).get_random_bytes(SAMPLE)
    assert goodness_of_fit(data, law) > ALPHA
    noncentrality = SAMPLE * float(((law - UNIFORM) ** 2 / UNIFORM).sum())
    oversight = stats.ncx2.cdf(stats.chi2.isf(ALPHA, 255), 255, noncentrality)
    assert oversight < 1e-9, "the sample is too small to tell this bias from none"
    assert goodness_of_fit(data, UNIFORM) < ALPHA


@pytest.mark.parametrize("mean", [127.0, 127.5, 200.0])
def test_observed_mean_is_the_one_asked_for(mean: float) -> None:
    values = np.frombuffer(MockUniformSource(seed=8, mean=mean).get_random_bytes(SAMPLE), np.uint8)
    standard_error = float(values.std()) / math.sqrt(SAMPLE)
    # Six standard errors: two-sided false alarm 2e-9, and half a unit of the mean is beyond them.
    assert 6 * standard_error < 0.5
    assert abs(float(values.mean()) - mean) < 6 * standard_error


@settings(deadline=None)
@given(st.floats(min_value=1e-6, max_value=254.999999))
def test_law_has_the_mean_asked_for(mean: float) -> None:
    law = tilted_byte_law(mean)
    assert law.shape == (256,)
    assert np.all(law >= 0.0)
    assert math.isclose(law.sum(), 1.0, abs_tol=1e-12)
    assert math.isclose(law @ np.arange(256), mean, rel_tol=1e-12, abs_tol=1e-12)


@settings(deadline=None)
@given(st.floats(min_value=20.0, max_value=235.0))
def test_law_is_exponentially_tilted(mean: float) -> None:
    ratios = np.diff(np.log(tilted_byte_law(mean)))
    assert np.allclose(ratios, ratios[0], atol=1e-10)
    assert np.sign(round(float(ratios[0]), 12)) == np.sign(round(mean - BYTE_MEAN, 9))


def test_unbiased_law_is_exact() -> None:
    assert np.array_equal(tilted_byte_law(127.5), UNIFORM)


@pytest.mark.parametrize("mean", [5e-324, 1e-300, math.nextafter(255.0, 0.0)])
def test_law_survives_extreme_means(mean: float) -> None:
    law = tilted_byte_law(mean)
    assert math.isclose(law @ np.arange(256), mean, abs_tol=1e-12)
    assert set(MockUniformSource(seed=1, mean=mean).get_random_bytes(1000)) == {round(mean)}


@pytest.mark.parametrize("mean", [0.0, 255.0, -1.0, math.nan, math.inf])
def test_impossible_means_are_refused(mean: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 255"):
        MockUniformSource(mean=mean)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [127.5, 90.0])
@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=12), seed=st.integers(0, 2**64))
def test_seeded_stream_does_not_depend_on_how_it_is_split(
    mean: float, sizes: list[int], seed: int
) -> None:
    whole = MockUniformSource(seed=seed, mean=mean).get_random_bytes(sum(sizes))
    split = MockUniformSource(seed=seed, mean=mean)
    assert b"".join(split.get_random_bytes(size) for size in sizes) == whole


def test_seeds_name_streams() -> None:
    first, same, other = (MockUniformSource(seed=seed).get_random_bytes(32) for seed in (3, 3, 4))
    assert first == same
    assert first != other


def test_unseeded_sources_differ() -> None:
    assert MockUniformSource().get_random_bytes(32) != MockUniformSource().get_random_bytes(32)


def test_seeded_stream_is_golden() -> None:
    """NumPy promises not to change the raw stream of PCG64; neither do we change its use."""
    data = MockUniformSource(seed=1).get_random_bytes(4096)
    assert data[:8].hex() == "83f324f24f6cd368"
    assert (
        hashlib.sha256(data).hexdigest()
        == "2b3d83475c8a49f9d8c0870a362bd23aa6be23495e25badcefb0b50e0d4f9115"
    )


def test_threads_divide_a_seeded_stream() -> None:
    source = MockUniformSource(seed=9)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(source.get_random_bytes, [128] * 200))
    stream = MockUniformSource(seed=9).get_random_bytes(128 * 200)
    blocks = {stream[start : start + 128] for start in range(0, len(stream), 128)}
    assert set(answers) == blocks


# Python 3.12 and later warn of any fork while native threads run, such as those of OpenBLAS.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def drawn_in_child(source: MockUniformSource) -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.get_random_bytes(32))
        os._exit(0)
    os.close(writer)
    data = os.read(reader, 64)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    return data


@forks
def test_fork_gives_an_unseeded_child_its_own_stream() -> None:
    source = MockUniformSource()
    inherited = drawn_in_child(source)
    assert len(inherited) == 32
    assert inherited != source.get_random_bytes(32)


@forks
def test_fork_continues_a_seeded_stream() -> None:
    source = MockUniformSource(seed=2)
    source.get_random_bytes(10)
    assert drawn_in_child(source) == source.get_random_bytes(32)


def test_defaults_are_unbiased_and_unseeded() -> None:
    source = MockUniformSource.from_environment()
    assert (source.seed, source.mean) == (None, 127.5)
    assert source.jit_class is JitClass.PSEUDO


def test_settings_come_from_a_dotenv_file_below_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "QR_MOCK_UNIFORM_SEED=5\nQR_MOCK_UNIFORM_MEAN=20\nQR_SAMPLE_COUNT=64\n"
    )
    monkeypatch.setenv("QR_MOCK_UNIFORM_MEAN", "30.25")
    source = MockUniformSource.from_environment()
    assert (source.seed, source.mean) == (5, 30.25)
    assert source.recorded_settings == {"seed": 5, "mean": 30.25}


def test_empty_variables_count_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MOCK_UNIFORM_SEED", "")
    assert MockUniformSource.from_environment().seed is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QR_MOCK_UNIFORM_SEED", "abc"),
        ("QR_MOCK_UNIFORM_SEED", "-1"),
        ("QR_MOCK_UNIFORM_SEED", "1.5"),
        ("QR_MOCK_UNIFORM_MEAN", "high"),
        ("QR_MOCK_UNIFORM_MEAN", "0"),
        ("QR_MOCK_UNIFORM_MEAN", "255"),
        ("QR_MOCK_UNIFORM_MEAN", "nan"),
        ("QR_MOCK_UNIFORM_MEAN", "inf"),
    ],
)
def test_malformed_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as caught:
        MockUniformSource.from_environment()
    assert value in str(caught.value)
