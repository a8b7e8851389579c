# SPDX-License-Identifier: Apache-2.0
"""The contract of sources over a pseudo-terminal, and no byte that the device had ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from qr_entropy_cryptalabs.simulators import SimulatedQCicada
from qr_entropy_cryptalabs.source import CryptaLabsSource
from qr_entropy_serial.simulators import Plug
from qr_sampler import JitClass
from qr_sampler.testing import EntropySourceContract, StampedWriter

Build = Callable[..., CryptaLabsSource]

PILE_BYTES: Final = 9_000


class OverPty(EntropySourceContract):
    @pytest.fixture
    def generation_log(self, device: SimulatedQCicada) -> Callable[[], int]:
        return lambda: device.generated

    @pytest.fixture
    def fault(self, plug: Plug) -> Callable[[], None]:
        return plug.unplug


class TestSigned(OverPty):
    @pytest.fixture
    def source(self, build: Build) -> CryptaLabsSource:
        return build()


class TestUnsigned(OverPty):
    @pytest.fixture
    def source(self, build: Build) -> CryptaLabsSource:
        return build(signed=False)


class TestStaleBytes:
    """The device makes bytes all the time, and keeps up to 64 KiB of them ready."""

    @pytest.fixture
    def device(self) -> SimulatedQCicada:
        return SimulatedQCicada(rate=0.0)

    @pytest.fixture
    def writer(self, plug: Plug) -> Iterator[StampedWriter]:
        writer = StampedWriter(plug.device.feed, piece_bytes=200)
        yield writer
        writer.stop()

    @pytest.mark.parametrize("signed", [True, False])
    def test_no_byte_is_older_than_its_draw(
        self, signed: bool, writer: StampedWriter, build: Build
    ) -> None:
        source = build(signed=signed)
        for _ in range(3):
            draw = source.draw(1_024)
            assert writer.stale_bytes(draw.data, draw.requested_ns) == 0
            writer.await_bytes(PILE_BYTES)

    def test_a_source_that_discards_nothing_is_noticed(
        self, writer: StampedWriter, build: Build
    ) -> None:
        """What the other test would find, and the source makes no claim."""
        source = build(flush=False)
        assert source.jit_class is JitClass.UNKNOWN
        source.draw(64)
        writer.await_bytes(PILE_BYTES)
        requested_ns = time.monotonic_ns()
        draw = source.draw(1_024)
        assert writer.stale_bytes(draw.data, requested_ns) == 1_024


def test_large_draws_are_split_and_have_no_signature(build: Build) -> None:
    source = build()
    draw = source.draw(20_480)
    assert (len(draw.data), draw.requests, draw.signature) == (20_480, 2, b"")


def test_what_it_claims_follows_from_what_it_does(build: Build) -> None:
    assert build().jit_class is JitClass.ATTESTED
    assert build(signed=False).jit_class is JitClass.FLUSHED
