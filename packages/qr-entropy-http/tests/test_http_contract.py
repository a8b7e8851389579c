# SPDX-License-Identifier: Apache-2.0
"""The source keeps the contract of all sources, whichever service it asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from qr_entropy_http.presets import preset_names
from qr_entropy_http.simulators import PROTOCOLS, Simulator
from qr_entropy_http.source import HttpSource
from qr_sampler import ENTROPY_SOURCES, EntropyUnavailableError
from qr_sampler.entropy import GuardedSource
from qr_sampler.testing import EntropySourceContract


class _OverASimulator(EntropySourceContract):
    preset = ""

    @pytest.fixture
    def simulator(self, serve: Callable[..., Simulator]) -> Simulator:
        return serve(self.preset)

    @pytest.fixture
    def source(self, simulator: Simulator, ask: Callable[..., HttpSource]) -> HttpSource:
        return ask(simulator, self.preset)

    @pytest.fixture
    def generation_log(self, simulator: Simulator) -> Callable[[], int]:
        return lambda: simulator.spent_bytes

    @pytest.fixture
    def fault(self, simulator: Simulator) -> Callable[[], None]:
        return lambda: setattr(simulator, "fault", "503")


class TestBlocksOfSeveralBytes(_OverASimulator):
    preset = "anu"


class TestPostedRequests(_OverASimulator):
    preset = "outshift"


class TestRawAnswers(_OverASimulator):
    preset = "quantis_appliance"


def test_every_preset_has_a_simulator() -> None:
    assert set(preset_names()) == set(PROTOCOLS)


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("n", [7, 1001, 10_240])
def test_bytes_are_those_that_the_service_has_made(
    preset: str, n: int, serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    """In their order: the simulator writes them as the service does, the source reads them."""
    simulator = serve(preset)
    draw = ask(simulator, preset).draw(n)
    made = b"".join(delivery.data for delivery in simulator.deliveries)
    assert draw.data == made[:n]
    assert draw.dropped_bytes == len(made) - n
    assert draw.requests == simulator.requests == simulator.connections
    assert all(made.made_ns >= draw.requested_ns for made in simulator.deliveries)


def test_it_goes_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_HTTP_PRESET", "lfd")
    source = ENTROPY_SOURCES.load("http").from_environment()
    assert isinstance(source, HttpSource)
    assert source.name == "http"


def test_threads_share_no_connection(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("lfd")
    source = ask(simulator, "lfd")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(source.get_random_bytes, [512] * 32))
    made = {delivery.data for delivery in simulator.deliveries}
    assert len(set(answers)) == 32
    assert set(answers) == made
    assert simulator.connections == 32


def test_a_child_of_a_used_source_draws_bytes_of_its_own(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("lfd")
    source = ask(simulator, "lfd")
    source.get_random_bytes(64)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens here, the tests go on in the parent alone.
        try:
            os.write(writer, source.get_random_bytes(64))
        finally:
            os._exit(0)
    os.close(writer)
    theirs = os.read(reader, 65)
    os.close(reader)
    os.waitpid(child, 0)
    ours = source.get_random_bytes(64)
    assert len({theirs, ours}) == 2
    assert {theirs, ours} <= {delivery.data for delivery in simulator.deliveries}


def test_a_guarded_source_names_what_was_left_over(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    dropped = []
    source = GuardedSource(ask(serve("anu"), "anu"), 10_000, dropped.append)
    assert len(source.draw(64).data) == 64
    assert [each.count for each in dropped] == [16]


def test_a_failed_draw_counts_what_had_arrived(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("qrandom")
    simulator.fault, simulator.fault_after = "503", 2
    with pytest.raises(EntropyUnavailableError) as caught:
        ask(simulator, "qrandom").draw(2500)
    assert caught.value.dropped_bytes == 2000
