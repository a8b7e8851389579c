# SPDX-License-Identifier: Apache-2.0
"""Figures of bytes: pinned to NIST's program, to ``ent`` and to SciPy."""

from __future__ import annotations

import hashlib
import math
import tracemalloc

import numpy as np
import pytest
from scipy import special, stats

from qr_sampler_cli.quality import pieces
from qr_sampler_cli.quality.byte_tests import autocorrelation, byte_tests
from qr_sampler_cli.quality.ent_figures import ent_figures
from qr_sampler_cli.quality.min_entropy import (
    PATH,
    MarkovChain,
    markov_chain_of,
    markov_min_entropy,
    most_common_value_min_entropy,
)
from qr_sampler_cli.quality.restarts import restart_tests
from qr_sampler_cli.quality.spectrum import largest_line
from qr_sampler_cli.quality.tails import (
    binomial_tail,
    chi_square_tail,
    holm,
    kolmogorov_tail,
    normal_tails,
)


@pytest.mark.parametrize("degrees", [1, 2, 8, 16, 255, 3_000])
def test_chi_square_tail_is_that_of_scipy(degrees: int) -> None:
    for share in (0.0, 1e-3, 0.1, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0):
        statistic = share * degrees
        expected = stats.chi2.sf(statistic, degrees)
        assert chi_square_tail(statistic, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_other_tails_are_those_of_scipy() -> None:
    for z in (-40.0, -3.0, 0.0, 0.5, 6.0):
        assert normal_tails(z) == pytest.approx(2.0 * stats.norm.sf(abs(z)), rel=1e-12, abs=0.0)
    for distance in (0.0, 0.1, 0.17, 0.18, 0.19, 0.5, 1.0, 2.0, 6.0):
        expected = special.kolmogorov(distance)
        assert kolmogorov_tail(distance) == pytest.approx(expected, rel=1e-9, abs=1e-14)
    for least, n, p in (
        (0, 5, 0.1),
        (1, 79, 1e-3),
        (7, 79, 1e-3),
        (20, 79, 0.5),
        (40, 79, 0.5),
        (79, 79, 0.5),
    ):
        expected = stats.binom.sf(least - 1, n, p)
        assert binomial_tail(least, n, p) == pytest.approx(expected, rel=1e-10)
    # Poisson in all but name: as many pairs as 2**28 bytes have of words of eight.
    pairs = 2**25 * (2**25 - 1) // 2
    for least in (1, 2, 3):
        expected = stats.poisson.sf(least - 1, pairs * 2.0**-64)
        assert binomial_tail(least, pairs, 2.0**-64) == pytest.approx(expected, rel=1e-9)
    assert binomial_tail(8_192, 10**9, 2.0**-64) == 0.0
    assert binomial_tail(100, 10**6, 0.5) == 1.0


def test_holm_is_that_of_r() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("mode", "total", "expected"),
    [
        # SP 800-90B, 6.3.1: 20 samples, eight of them equal.
        (8, 20, 0.5363),
        # NIST's SP800-90B_EntropyAssessment, cpp/selftest/refdata: data.pi, ringOsc-nist, and
        # rand8_short as bits and as bytes.
        (662_972, 1_165_666, 0.81114057970407438),
        (500_965, 1_000_000, 0.99351406876115855),
        (40_099, 80_000, 0.98338678465915019),
        (58, 10_000, 7.0104540377360411),
    ],
)
def test_most_common_value_is_that_of_nist(mode: int, total: int, expected: float) -> None:
    others = [mode] * ((total - mode) // mode)
    found = most_common_value_min_entropy([0, *others, mode, total - mode - sum(others)])
    assert found == pytest.approx(expected, rel=1e-12 if expected != 0.5363 else 2e-4)


@pytest.mark.parametrize(
    ("zero", "zero_zero", "one_zero", "expected"),
    [
        # From the same files: data.pi, ringOsc-nist and the bits of rand8_short.
        (0.43125046110978615, 0.48045928537042415, 0.39393879973633839, 0.72318078199004532),
        (0.50096499999999999, 0.83963917566930957, 0.16098269660444658, 0.2579793924501087),
        (0.5012375, 0.50078555574951988, 0.5016791979949875, 0.99772497672796534),
    ],
)
def test_markov_estimate_is_that_of_nist(
    zero: float, zero_zero: float, one_zero: float, expected: float
) -> None:
    chain = MarkovChain(zero=zero, zero_zero=zero_zero, one_zero=one_zero)
    assert markov_min_entropy(chain) == pytest.approx(expected, rel=1e-12)


def test_markov_estimate_is_close_to_that_of_the_most_probable_of_all_strings() -> None:
    """The six strings of the document leave out those that alternate and end otherwise: the last
    step can then be 1.62 times as probable, for which alternation is still the best way there."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        zero, zero_zero, one_zero = rng.random(3).tolist()
        steps = np.log2([[zero_zero, 1.0 - zero_zero], [one_zero, 1.0 - one_zero]])
        best = np.log2([zero, 1.0 - zero])
        for _ in range(PATH - 1):
            best = (best[:, None] + steps).max(axis=0)
        chain = MarkovChain(zero=zero, zero_zero=zero_zero, one_zero=one_zero)
        above = markov_min_entropy(chain) - min(1.0, -float(best.max()) / PATH)
        assert -1e-12 < above < np.log2(1.62) / PATH


def test_markov_chain_counts_pairs_of_bits() -> None:
    data = np.random.default_rng(6).integers(0, 200, 300, dtype=np.uint8)
    text = "".join(f"{byte:08b}" for byte in data.tolist())
    pairs = [text[index : index + 2] for index in range(len(text) - 1)]
    chain = markov_chain_of(data)
    assert chain.zero == pytest.approx(text.count("0") / len(text))
    zeros = sum(pair[0] == "0" for pair in pairs)
    assert chain.zero_zero == pytest.approx(pairs.count("00") / zeros)
    assert chain.one_zero == pytest.approx(pairs.count("10") / (len(pairs) - zeros))


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_constant_bytes_have_no_min_entropy(byte: int) -> None:
    data = np.full(100, byte, dtype=np.uint8)
    assert markov_min_entropy(markov_chain_of(data)) == 0.0
    assert most_common_value_min_entropy([800, 0]) == 0.0
    alternating = np.full(100, 0xAA, dtype=np.uint8)
    assert markov_min_entropy(markov_chain_of(alternating)) == pytest.approx(1 / 128)


HASHES = b"".join(hashlib.sha256(str(index).encode()).digest() for index in range(1_000))


@pytest.mark.parametrize(
    ("data", "printed"),
    [
        # ent -t of ent 1.2debian-3: entropy, chi-square, mean, pi, serial correlation.
        (HASHES, (7.994337, 251.904000, 127.262594, 3.140446, -0.006047)),
        (
            bytes(byte // 3 for byte in HASHES),
            (6.419091, 64045.792000, 42.087781, 4.000000, -0.005997),
        ),
        (bytes(range(256)) * 16, (8.0, 0.0, 127.5, 2.844575, 0.976654)),
    ],
)
def test_figures_are_those_of_ent(data: bytes, printed: tuple[float, ...]) -> None:
    found = ent_figures(np.frombuffer(data, dtype=np.uint8))
    figures = (found.entropy, found.chi_square, found.mean, found.pi, found.serial_correlation)
    assert figures == pytest.approx(printed, abs=5.1e-7)
    expected = stats.chi2.sf(found.chi_square, 255)
    assert found.chi_square_p == pytest.approx(expected, rel=1e-9)


def test_figures_of_constant_bytes_are_no_numbers_where_ent_has_none() -> None:
    found = ent_figures(np.zeros(5, dtype=np.uint8))
    assert (found.entropy, found.mean) == (0.0, 0.0)
    assert math.isnan(found.pi)
    assert math.isnan(found.serial_correlation)


def found_in(data: np.ndarray) -> dict[str, float]:
    """The corrected p-value of every test."""
    tests = byte_tests(data, ent_figures(data))
    adjusted = holm([test.p_value for test in tests])
    return {test.name: p for test, p in zip(tests, adjusted, strict=True)}


def test_p_values_of_good_bytes_are_uniform() -> None:
    """Of 400 samples with a fixed seed: nothing but the bytes is random, so it passes or fails for
    good, and the level would be 1e-4 with another seed."""
    rng = np.random.default_rng(20_261_130)
    samples = [rng.integers(0, 256, 8_192, dtype=np.uint8) for _ in range(400)]
    found = [byte_tests(data, ent_figures(data)) for data in samples]
    for number, test in enumerate(found[0]):
        p_values = [tests[number].p_value for tests in found]
        if test.name == "repeated words":
            assert p_values == [1.0] * 400
        else:
            assert stats.kstest(p_values, "uniform").pvalue > 1e-4, test.name
    adjusted = [min(holm([test.p_value for test in tests])) for tests in found]
    assert min(adjusted) > 1e-3 / 400


def sticky(rng: np.random.Generator, size: int) -> np.ndarray:
    """Bits that change with probability 0.48."""
    changes = rng.random(8 * size) < 0.48
    return np.packbits(np.cumsum(changes) % 2 == 1)


def hum(rng: np.random.Generator, size: int) -> np.ndarray:
    """Bytes with a sine of amplitude 6 and a period of 50.3 bytes on them, modulo 256."""
    wave = 6.0 * np.sin(2.0 * np.pi * np.arange(size) / 50.3)
    return np.clip(rng.integers(0, 256, size) + wave, 0, 255).astype(np.uint8)


def test_what_is_wrong_is_seen_by_the_test_that_is_for_it() -> None:
    rng = np.random.default_rng(8)
    size = 2**17
    good = rng.integers(0, 256, size, dtype=np.uint8)
    faults = {
        "byte histogram": np.where(good == 7, 8, good).astype(np.uint8),
        "byte mean": np.packbits(rng.random((size, 8)) < 0.51, axis=1).ravel(),
        "bit planes": np.where(rng.random(size) < 0.02, good | 1, good).astype(np.uint8),
        "bit changes": sticky(rng, size),
        "serial correlation": np.concatenate([good[:1], (good[:-1] // 8 + good[1:] // 8 * 7)]),
        "spectrum": hum(rng, size),
        "repeated words": np.concatenate([good[: size // 2], good[: size // 2]]),
    }
    assert min(found_in(good).values()) > 1e-3
    for name, data in faults.items():
        assert found_in(data.astype(np.uint8))[name] < 1e-6, name


def test_bytes_that_are_too_even_are_found() -> None:
    assert found_in(np.tile(np.arange(256, dtype=np.uint8), 64))["byte histogram"] < 1e-9


def test_correlation_is_that_of_the_definition() -> None:
    data = np.random.default_rng(9).integers(0, 256, 500, dtype=np.uint8)
    off = (data - 127.5) / math.sqrt((256**2 - 1) / 12)
    expected = np.correlate(off, off, mode="full")[500:504] / 500
    np.testing.assert_allclose(autocorrelation(data, 4), expected, rtol=1e-12)


def test_largest_line_is_the_planted_one() -> None:
    line = largest_line(hum(np.random.default_rng(1), 2**16))
    assert line.period == pytest.approx(50.3, rel=0.01)
    assert line.p_value < 1e-9
    assert largest_line(np.full(4_096, 127, dtype=np.uint8)).p_value == pytest.approx(1.0)


def test_restarts_that_begin_alike_or_vary_are_found() -> None:
    rng = np.random.default_rng(3)
    good = [rng.bytes(1_024) for _ in range(20)]
    assert min(test.p_value for test in restart_tests(good)) > 1e-3
    same, varied = restart_tests([good[0][:512] + each[512:] for each in good])
    assert same.p_value < 1e-9
    assert varied.p_value > 1e-3
    warming = [np.packbits(rng.random(8_192) < 0.4 + 0.01 * k).tobytes() for k in range(20)]
    same, varied = restart_tests(warming)
    assert same.p_value == 1.0
    assert varied.p_value < 1e-9
    assert restart_tests(good[:1]) == []
    constant = [bytes([k % 256]) * 8 + bytes(1_016) for k in range(3)]
    assert restart_tests([b"\0" * 1_024, b"\0" * 1_024])[1].p_value == 1.0
    assert restart_tests(constant)[0].p_value == 1.0


@pytest.mark.parametrize("size", [1, 5, 6, 7, 12, 13, 100])
def test_figures_in_pieces_are_those_of_the_whole(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    bits = np.unpackbits(data)
    whole = ent_figures(data)
    monkeypatch.setattr(pieces, "PIECE", 6)
    assert pieces.bit_counts(data) == pieces.BitCounts(
        bits=len(bits),
        ones=int(bits.sum()),
        changes=int((bits[:-1] != bits[1:]).sum()),
        one_after_one=int((bits[:-1] & bits[1:]).sum()),
    )
    assert repr(ent_figures(data)) == repr(whole)
    if size > 16:
        off = (data - 127.5) / math.sqrt(65_535 / 12)
        expected = [off[:-lag] @ off[lag:] / size for lag in range(1, 17)]
        assert autocorrelation(data, 16) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_figures_need_no_copies_of_a_large_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(1).integers(0, 256, 2_000_000, dtype=np.uint8)
    monkeypatch.setattr(pieces, "PIECE", 6_000)
    tracemalloc.start()
    try:
        ent_figures(data)
        markov_chain_of(data)
        autocorrelation(data, 16)
        assert tracemalloc.get_traced_memory()[1] < len(data)
    finally:
        tracemalloc.stop()
