# SPDX-License-Identifier: Apache-2.0
"""How long a source is waited for and when it is left alone, with a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from qr_sampler import ConfigError
from qr_sampler.entropy.breaker import BreakerState, CircuitOpenError
from qr_sampler.entropy.breaker_settings import BreakerOptions, BreakerSettings
from qr_sampler.entropy.patience import AttemptFailure, Patience
from qr_sampler.testing.paced_source import PacedSource, wait_s

SIZE = 1024


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> PacedSource:
    return PacedSource(monkeypatch, SIZE)


def patient(timeout_ms: float = 5000.0, *, has_fallback: bool = True, **options: Any) -> Patience:
    return Patience(BreakerOptions.checked(**options), timeout_ms, has_fallback=has_fallback)


def test_patience_doubles_with_each_probe_that_fails(source: PacedSource) -> None:
    patience = patient()
    for _ in range(100):
        source.draw(patience)
    source.latency_ms = 60.0
    usual = 5.0 + 20 / 1024
    source.allowed_ms.clear()
    for _ in range(3):
        with pytest.raises(AttemptFailure):
            source.draw(patience)
    for _ in range(4):
        wait_s(patience, 60.0)
        try:
            source.draw(patience)
        except AttemptFailure:
            continue
        break
    assert source.allowed_ms[0] == pytest.approx(usual)
    growth = [later / usual for later in source.allowed_ms[3:]]
    # The time-outs raise the P99 as well, hence at least the power of two.
    assert all(grown >= 2**n * 0.99 for n, grown in enumerate(growth, start=1)), growth
    assert patience.state is BreakerState.CLOSED


def test_no_patience_exceeds_the_timeout(source: PacedSource) -> None:
    patience = patient(timeout_ms=50.0)
    source.latency_ms = 1e9
    for _ in range(20):
        wait_s(patience, 60.0)
        with pytest.raises(AttemptFailure):
            source.draw(patience, 50.0)
    assert set(source.allowed_ms) == {50.0}


def test_a_disabled_breaker_never_opens_and_allows_the_whole_timeout(source: PacedSource) -> None:
    patience = patient(enabled=False)
    for _ in range(300):
        source.draw(patience)
    source.failure = AttemptFailure("it broke")
    for _ in range(1000):
        with pytest.raises(AttemptFailure):
            source.draw(patience)
    assert patience.state is BreakerState.CLOSED
    assert source.fetches == 1300
    assert set(source.allowed_ms) == {5000.0}


def test_it_learns_from_its_timeouts(source: PacedSource) -> None:
    patience = patient(max_consecutive_failures=1000)
    for _ in range(100):
        source.draw(patience)
    source.latency_ms = 20.0
    answered = 0
    for _ in range(100):
        try:
            source.draw(patience)
        except AttemptFailure:
            continue
        answered += 1
    assert answered > 85


def test_a_wait_that_was_cut_short_does_not_pass_for_a_fast_answer(source: PacedSource) -> None:
    patience = patient(max_consecutive_failures=1000)
    for _ in range(100):
        source.latency_ms = 40.0
        source.draw(patience)
    for _ in range(100):
        with pytest.raises(AttemptFailure):
            source.draw(patience, timeout_ms=0.001)
    source.latency_ms = 40.0
    assert source.draw(patience) == "bytes"


def test_failures_that_are_no_timeouts_teach_no_latency(source: PacedSource) -> None:
    patience = patient(max_consecutive_failures=1000)
    source.failure = AttemptFailure("refused")
    for _ in range(200):
        with pytest.raises(AttemptFailure):
            source.draw(patience)
    assert set(source.allowed_ms) == {5000.0}


def test_an_interrupted_probe_does_not_block_the_circuit(source: PacedSource) -> None:
    patience = patient(max_consecutive_failures=1)

    def interrupted(_: int) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patience.draw(SIZE, source.now_ns + 10**9, interrupted)
    assert patience.state is BreakerState.OPEN
    with pytest.raises(CircuitOpenError, match="the draw was interrupted"):
        source.draw(patience)
    wait_s(patience, 1.0)
    assert source.draw(patience) == "bytes"


def test_what_is_not_admitted_is_not_asked_and_says_nothing(source: PacedSource) -> None:
    patience = patient(max_consecutive_failures=1)
    source.failure = AttemptFailure("it broke")
    with pytest.raises(AttemptFailure):
        source.draw(patience)
    wait_s(patience, 1.0)

    def refuse() -> None:
        raise LookupError("a quota")

    for _ in range(3):
        with pytest.raises(LookupError):
            patience.draw(SIZE, source.now_ns + 10**9, source.fetch, refuse)
    assert source.fetches == 1
    assert patience.refusal() == "it broke; the next draw tries it"


@pytest.mark.parametrize(
    ("has_fallback", "options", "allowed_ms"),
    [
        (True, {}, 5.0 + 20 / 1024),
        (False, {}, 1000.0 + 20 / 1024),
        (False, {"min_timeout_ms_without_fallback": 80.0}, 80.0 + 20 / 1024),
        (False, {"min_timeout_ms_without_fallback": 0.0}, 5.0 + 20 / 1024),
        (False, {"min_timeout_ms": 2000.0}, 2000.0 + 20 / 1024),
        (False, {"min_timeout_ms_without_fallback": 9000.0}, 5000.0),
        (True, {"min_timeout_ms_without_fallback": 9000.0}, 5.0 + 20 / 1024),
    ],
)
def test_who_has_nobody_to_take_over_waits_longer(
    has_fallback: bool, options: dict[str, float], allowed_ms: float, source: PacedSource
) -> None:
    patience = patient(has_fallback=has_fallback, **options)
    for _ in range(50):
        source.draw(patience)
    assert source.allowed_ms[0] == 5000.0
    assert source.allowed_ms[-1] == pytest.approx(allowed_ms)


def test_options_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("QR_CB_MIN_TIMEOUT_MS_WITHOUT_FALLBACK", "250")
    options = BreakerOptions.from_environment()
    assert type(options) is BreakerOptions
    assert options.min_timeout_ms_without_fallback == 250.0
    monkeypatch.setenv("QR_CB_ENABLED", "perhaps")
    with pytest.raises(ConfigError, match="QR_CB_ENABLED='perhaps'"):
        BreakerSettings.load()
