# SPDX-License-Identifier: Apache-2.0
"""No byte that a draw returns was made before the draw, wherever it may have waited.

A writer keeps making bytes between draws, so that old ones pile up in the memory of the device, in
the driver and in the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from qr_entropy_serial.devices.onerng import OneRng
from qr_entropy_serial.simulators import Plug, SimulatedDevice, SimulatedOneRng, SimulatedTrueRng
from qr_entropy_serial.source import SerialSource
from qr_sampler.testing import StampedWriter

PILE_BYTES: Final = 9_000
"""Made between two draws: more than twice what a terminal queues."""
DRAW_BYTES: Final = 1_024

DEVICES: Final[dict[str, Callable[[], SimulatedDevice]]] = {
    "truerng": lambda: SimulatedTrueRng(rate=0.0),
    "truerng_pro": lambda: SimulatedTrueRng(pro=True, rate=0.0),
    "stream": lambda: SimulatedTrueRng(rate=0.0),
    "onerng": lambda: SimulatedOneRng(rate=0.0),
}


@pytest.fixture(params=DEVICES)
def plug(request: pytest.FixtureRequest, plug_in: Callable[[SimulatedDevice], Plug]) -> Plug:
    return plug_in(DEVICES[request.param]())


@pytest.fixture
def writer(plug: Plug) -> Iterator[StampedWriter]:
    """Makes the bytes of the device, some hundred in a millisecond."""
    writer = StampedWriter(plug.device.feed, piece_bytes=200)
    yield writer
    writer.stop()


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["plug"])


def test_no_byte_is_older_than_its_draw(
    plug: Plug, writer: StampedWriter, device: str, build: Callable[..., SerialSource]
) -> None:
    source = build(plug.link, device)
    for _ in range(3):
        draw = source.draw(DRAW_BYTES)
        assert writer.stale_bytes(draw.data, draw.requested_ns) == 0
        writer.await_bytes(PILE_BYTES)


class SlowLine:
    """A OneRNG that obeys after 3 ms, and its port, in a time of their own.

    Every byte is the number of the millisecond in which it was made. The device makes more than
    fits into a frame, so that its pool is full.
    """

    def __init__(self) -> None:
        self.device = SimulatedOneRng(rate=0.0, obeys_after_s=0.003)
        self.now_ms = 0
        self._waiting = b""

    def settle(self, quiet_s: float, deadline_ns: int) -> None:
        silent_ms = 0
        while silent_ms < 1000 * quiet_s:
            self._pass_millisecond()
            silent_ms = 0 if self._waiting else silent_ms + 1
            self._waiting = b""

    def drop_input(self) -> None:
        self._waiting = b""

    def write(self, data: bytes, deadline_ns: int) -> None:
        self.device.commanded(data)

    def read(self, n: int) -> bytes:
        while len(self._waiting) < n:
            self._pass_millisecond()
        data, self._waiting = self._waiting[:n], self._waiting[n:]
        return data

    def _pass_millisecond(self) -> None:
        self.now_ms += 1
        self.device.pass_time(0.001)
        self.device.feed(bytes((self.now_ms,)) * 3_000)
        sent = self.device.outgoing()
        self.device.sent(len(sent))
        self._waiting += sent


def test_a_onerng_that_goes_on_sending_for_a_while_sends_nothing_old() -> None:
    """One draw right after another, and a full pool: it has not been told to rest for long."""
    line: Any = SlowLine()
    for _ in range(5):
        asked_ms = line.now_ms
        OneRng().begin(line, 0)
        line.read(OneRng.usual_flush_bytes)
        assert min(line.read(4_096)) > asked_ms
        OneRng().end(line, 0)
    assert line.now_ms < 256


@pytest.mark.parametrize("plug", ["truerng", "stream"], indirect=True)
def test_a_source_that_discards_too_little_is_noticed(
    plug: Plug, writer: StampedWriter, device: str, build: Callable[..., SerialSource]
) -> None:
    """What the other test would find: what the device itself holds comes first."""
    source = build(plug.link, device, flush_bytes=0)
    assert source.jit_class.value == "U"
    source.draw(DRAW_BYTES)
    stale = 0
    for _ in range(20):
        writer.await_bytes(3 * PILE_BYTES)
        time.sleep(0.01)
        draw = source.draw(DRAW_BYTES)
        stale = max(stale, writer.stale_bytes(draw.data, draw.requested_ns))
        if stale:
            break
    assert stale > 0
