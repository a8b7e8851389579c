# SPDX-License-Identifier: Apache-2.0
"""The sanity checks of a probe: their bounds, their power, and what they let pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qr_sampler_grpc.probe.sanity import (
    SanityCheck,
    _chi_square_survival_255,
    _divergence,
    check_bytes,
    check_numbers,
)

RNG_SEED = 20_251
ANSWERS = 40
ANSWER_BYTES = 2048


def uniform_answers(seed: int = RNG_SEED) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(ANSWER_BYTES) for _ in range(ANSWERS)]


def failed(checks: list[SanityCheck]) -> set[str]:
    return {check.name for check in checks if check.passed is False}


def encoded(numbers: list[float]) -> list[bytes]:
    return [int(u * 2.0**64).to_bytes(8, "big") for u in numbers]


@pytest.mark.parametrize("statistic", [0.0, 1.0, 100.0, 192.7, 255.0, 400.0, 460.0, 900.0, 1e5])
def test_survival_function_is_scipys(statistic: float) -> None:
    expected = stats.chi2.sf(statistic, 255)
    assert _chi_square_survival_255(statistic) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_chernoff_bounds_the_binomial() -> None:
    for count in (60, 80, 120):
        exact = stats.binom.sf(count - 1, 4096, 1 / 256)
        assert exact <= np.exp(-4096 * _divergence(count / 4096, 1 / 256))


def test_uniform_bytes_pass_whatever_their_number() -> None:
    for seed in range(20):
        assert failed(check_bytes(uniform_answers(seed))) == set()
    data = uniform_answers()[0]
    for n in (64, 100, 1000):
        assert failed(check_bytes([data[:n]])) == set()


def test_too_few_bytes_are_not_judged() -> None:
    (check,) = check_bytes([b"\0" * 63])
    assert check.passed is None
    assert "63 bytes are too few" in check.words
    assert check_bytes([bytes(range(64))])[0].passed is None


def test_constant_bytes_fail_everywhere() -> None:
    assert len(failed(check_bytes([bytes(ANSWER_BYTES)] * ANSWERS))) == 5


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        # One answer is sent twice.
        (lambda answers: [*answers, answers[3]], "repetition"),
        # A stretch of an answer comes again at another place in a later one.
        (lambda answers: [*answers, b"abc" + answers[3][101:133]], "repetition"),
        # Bit 5 is one in 55 % of the bytes.
        (lambda answers: [_biased(answer) for answer in answers], "ones at each bit"),
        # The value 0 is twice as frequent.
        (lambda answers: [_doubled(answer) for answer in answers], "most frequent byte"),
        # A counter is as even as nothing random is.
        (lambda _answers: [bytes(range(256)) * 64], "byte frequencies"),
        # The device sticks for a moment.
        (lambda answers: [*answers, b"\x55" * 16], "longest run"),
        # Values above 250 never come.
        (lambda answers: [answer.translate(_CLIPPED) for answer in answers], "byte frequencies"),
    ],
)
def test_a_fault_is_found(spoil: object, check: str) -> None:
    assert callable(spoil)
    assert check in failed(check_bytes(spoil(uniform_answers())))


_CLIPPED = bytes(min(value, 250) for value in range(256))


def _biased(answer: bytes) -> bytes:
    rng = np.random.default_rng(len(answer))
    flips = (rng.random(len(answer)) < 0.1).astype(np.uint8) << 5
    return (np.frombuffer(answer, np.uint8) | flips).tobytes()


def _doubled(answer: bytes) -> bytes:
    return answer.translate(bytes(0 if value == 77 else value for value in range(256)))


def test_uniform_numbers_pass_and_others_do_not() -> None:
    rng = np.random.default_rng(RNG_SEED)
    numbers = rng.random(60).tolist()
    assert failed(check_numbers(encoded(numbers))) == set()
    assert failed(check_numbers(encoded([u / 3 for u in numbers]))) == {"uniform numbers"}
    assert "repetition" in failed(check_numbers(encoded([0.25, 0.75] * 30)))
    assert check_numbers(encoded(numbers[:5]))[1].passed is None


def test_the_distance_is_kolmogorovs() -> None:
    numbers = np.random.default_rng(RNG_SEED).random(60)
    statistic = stats.kstest(numbers, "uniform").statistic
    assert f"{statistic:.3f} away" in check_numbers(encoded(numbers.tolist()))[0].words
