# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker and the adaptive deadline of the direct source."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.direct.frame import encode_answer
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.testing.patience import PATIENCE_S, PATIENT_MS, eventually
from qr_sampler_grpc.testing.scripted_direct import (
    DirectBehaviour,
    ScriptedDirectServer,
    hang,
    right,
    sends,
)

Sources = Callable[..., DirectSource]


@pytest.fixture
def server(
    scripted_direct: Callable[[DirectBehaviour], ScriptedDirectServer],
) -> ScriptedDirectServer:
    return scripted_direct(right)


@pytest.fixture
def make(direct_source: Sources) -> Sources:
    return lambda **breaker: direct_source(breaker=BreakerOptions.checked(**breaker))


def refuses(status: Status) -> DirectBehaviour:
    return sends(lambda request: encode_answer(request.number, status, words="said so"))


def deadline_ms(source: DirectSource) -> float:
    return source._links.get()._patience._deadline.milliseconds(8)


def fail(source: DirectSource) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(8)
    # Of an open circuit the status says for how long, too; that changes while it is asked.
    assert source.status().reason.startswith(caught.value.reason.partition("; not tried again")[0])
    assert not source.status().available
    return caught.value.reason


def test_an_open_circuit_refuses_at_once_with_the_reason(
    server: ScriptedDirectServer, make: Sources
) -> None:
    source = make(max_consecutive_failures=2, recovery_window_s=3600)
    server.behaviour = refuses(Status.UNAVAILABLE)
    assert "said so" in fail(source)
    assert "said so" in fail(source)
    server.behaviour = right
    reason = fail(source)
    assert "said so" in reason
    assert "; not tried again for " in reason
    assert len(server.requests) == 2


def test_a_missing_server_opens_the_circuit(make: Sources) -> None:
    source = make(max_consecutive_failures=1, recovery_window_s=3600)
    assert fail(source).startswith("there is no socket at ")
    assert "not tried again" in fail(source)


def test_the_deadline_is_learnt_and_told_to_the_server(
    server: ScriptedDirectServer, make: Sources
) -> None:
    source = make(min_samples=3, min_timeout_ms=1000, max_consecutive_failures=1)
    for _ in range(3):
        source.draw(8)
    assert all(30e6 < request.timeout_us <= 60e6 for request in server.requests)
    learnt_ms = deadline_ms(source)
    assert 1000 <= learnt_ms < PATIENT_MS
    server.behaviour = hang
    started_s = time.monotonic()
    assert "no answer from" in fail(source)
    assert learnt_ms / 1000 <= time.monotonic() - started_s < PATIENCE_S
    assert eventually(lambda: len(server.requests) == 4)
    assert 0 < server.requests[-1].timeout_us <= 1000 * learnt_ms + 1


@pytest.mark.parametrize(("has_fallback", "shortest_ms"), [(True, 7.0), (False, 40_000.0)])
def test_it_is_more_patient_where_nothing_takes_over(
    server: ScriptedDirectServer, make: Sources, has_fallback: bool, shortest_ms: float
) -> None:
    source = make(min_samples=1, min_timeout_ms=7, min_timeout_ms_without_fallback=40_000)
    source.has_fallback = has_fallback
    source.draw(8)
    # A busy machine may have answered so slowly that the multiple of that is more.
    assert shortest_ms <= deadline_ms(source)
    assert has_fallback is (deadline_ms(source) < 40_000.0)


@pytest.mark.parametrize(
    ("behaviour", "grows"),
    [(hang, True), (refuses(Status.TOO_LATE), True), (refuses(Status.UNAVAILABLE), False)],
)
def test_only_a_draw_that_was_given_up_lengthens_the_deadline(
    server: ScriptedDirectServer, make: Sources, behaviour: DirectBehaviour, grows: bool
) -> None:
    source = make(min_samples=1, min_timeout_ms=50)
    source.draw(8)
    before_ms = deadline_ms(source)
    server.behaviour = behaviour
    fail(source)
    assert (deadline_ms(source) > 1.49 * before_ms) is grows


def test_nothing_is_asked_for_no_bytes(server: ScriptedDirectServer, make: Sources) -> None:
    source = make(max_consecutive_failures=1, recovery_window_s=3600)
    server.behaviour = refuses(Status.UNAVAILABLE)
    fail(source)
    assert source.draw(0).data == b""
    assert not source.status().available


def test_the_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_CB_MAX_CONSECUTIVE_FAILURES", "7")
    source = DirectSource.from_environment()
    assert source._breaker_options.max_consecutive_failures == 7
