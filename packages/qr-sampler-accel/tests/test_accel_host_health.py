# SPDX-License-Identifier: Apache-2.0
"""The compiled pass over a draw measures what the reference in NumPy does, however it is split."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

from qr_sampler.health import HealthMonitor, HealthPolicy, HealthState
from qr_sampler.health.measures import DrawMeasures
from qr_sampler.testing.health_streams import STREAM_KINDS, draws_of, streams_judged_otherwise
from qr_sampler_accel import health_monitor

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel.host import health_pass
from qr_sampler_accel.host.health_pass import CompiledMeasures


def test_streams_are_judged_as_byte_by_byte() -> None:
    assert streams_judged_otherwise(range(200), CompiledMeasures) == []


def test_long_draws_overflow_nothing() -> None:
    """Of so many bytes that sums of words inside of words would, were they not taken apart."""
    noise = np.random.default_rng(2).bytes(200_003)
    for data in (bytes([255]) * 200_001, noise, noise[:30_000] + bytes(3_000) + noise[30_000:]):
        assert CompiledMeasures(9).of(data) == DrawMeasures(9).of(data)
    # So often that what is counted in bytes comes out at zero, or at one.
    for zeros in range(1_020, 1_029):
        data = bytes(zeros) + noise[:600]
        assert CompiledMeasures(9).of(data) == DrawMeasures(9).of(data)


def test_the_loops_are_right_without_a_compiler_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for info in pkgutil.iter_modules(health_pass.__path__, health_pass.__name__ + "."):
        module = importlib.import_module(info.name)
        for name, function in list(vars(module).items()):
            if hasattr(function, "py_func"):
                monkeypatch.setattr(module, name, function.py_func)
    rng = np.random.default_rng(3)
    compiled, reference = CompiledMeasures(9), DrawMeasures(9)
    with np.errstate(over="ignore"):
        for kind in STREAM_KINDS.values():
            for n in (5, 600):
                data = kind(rng, n)
                assert compiled.of(data) == reference.of(data)
        again = rng.bytes(1024)
        for _ in range(2):
            assert compiled.of(again) == reference.of(again)


def test_runs_are_found_wherever_they_begin_and_end() -> None:
    """At the ends of words, of the pieces that are read at once, and of the draw."""
    noise = np.random.default_rng(5).integers(0, 255, 2_100, dtype=np.uint8)
    for begin in (0, 1, 6, 7, 8, 1015, 1021, 1022, 1023, 1024, 1025, 2039, 2046, 2047, 2048, 2088):
        for length in (2, 3, 5, 12, 700):
            data = noise.copy()
            data[begin : begin + length] = 255
            for most in (3, 9, 301):
                measured = CompiledMeasures(most).of(data.tobytes())
                assert measured == DrawMeasures(most).of(data.tobytes())


def test_monitors_come_to_the_same_verdicts() -> None:
    policy = HealthPolicy(min_entropy=6.0)
    compiled, reference = health_monitor(policy), HealthMonitor(policy)
    draws = [draw for number in range(60) for draw in draws_of(number)]
    seen = set()
    for number, data in enumerate(draws):
        alarm = compiled.observe(data)
        assert alarm == reference.observe(data)
        assert compiled.state is reference.state
        seen.add(alarm and alarm.test)
        if compiled.state is HealthState.FAILED and number % 3 == 0:
            compiled.restart()
            reference.restart()
    assert seen >= {None, "repetition_count", "adaptive_proportion", "repeated_windows"}
