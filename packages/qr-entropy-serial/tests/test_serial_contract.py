# SPDX-License-Identifier: Apache-2.0
"""The contract of sources, held against a simulator of each family over a pseudo-terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from qr_entropy_serial.simulators import Plug, SimulatedDevice, SimulatedOneRng, SimulatedTrueRng
from qr_entropy_serial.source import SerialSource
from qr_sampler.testing import EntropySourceContract

RATE = 2_000_000.0


class OverPty(EntropySourceContract):
    """Every fault here is an unplugged device, whose draw fails at once."""

    device = ""

    def simulator(self) -> SimulatedDevice:
        return SimulatedTrueRng(rate=RATE)

    @pytest.fixture
    def plug(self, plug_in: Callable[[SimulatedDevice], Plug]) -> Plug:
        return plug_in(self.simulator())

    @pytest.fixture
    def source(self, plug: Plug, build: Callable[..., SerialSource]) -> SerialSource:
        return build(plug.link, self.device)

    @pytest.fixture
    def fault(self, plug: Plug) -> Callable[[], None]:
        return plug.unplug


class TestTrueRng(OverPty):
    device = "truerng"


class TestStream(OverPty):
    device = "stream"


class TestOneRng(OverPty):
    """A OneRNG as its last user has left it: it gathers no noise until it is told to."""

    device = "onerng"

    def simulator(self) -> SimulatedDevice:
        return SimulatedOneRng(rate=RATE)

    @pytest.fixture
    def plug(self, plug_in: Callable[[SimulatedDevice], Plug]) -> Plug:
        plug = plug_in(self.simulator())
        plug.device.commanded(b"cmd4\ncmdw\n")
        plug.device.generated = 0
        return plug

    @pytest.fixture
    def generation_log(self, plug: Plug) -> Callable[[], int]:
        """What it has gathered, when it has obeyed all that it was told."""
        device: Any = plug.device

        def settled() -> int:
            due_s = time.monotonic() + 10.0
            while device.gathers and time.monotonic() < due_s:
                time.sleep(0.001)
            return int(device.generated)

        return settled
