# SPDX-License-Identifier: Apache-2.0
"""The stand-in for a generator: what it calls old is old, and nothing else is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from qr_sampler.testing import StampedWriter, stamped_writer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(reader: int, n: int) -> bytes:
    data = b""
    while len(data) < n:
        data += os.read(reader, n - len(data))
    return data


def test_old_and_new_bytes_of_one_read_are_told_apart(pipe: tuple[int, int]) -> None:
    generator = StampedWriter(lambda piece: os.write(pipe[1], piece), piece_bytes=10)
    generator.await_bytes(100)
    began_ns = time.monotonic_ns()
    generator.await_bytes(100)
    generator.stop()
    data = os.read(pipe[0], 65_536)
    old = generator.stale_bytes(data, began_ns)
    # One more piece may have been made, but not noted, at either end.
    assert 100 <= old <= len(data) - 90
    assert generator.stale_bytes(data[old:], began_ns) == 0
    assert generator.stale_bytes(data[: old - 1], began_ns) == old - 1


def test_what_does_not_fit_is_lost(pipe: tuple[int, int]) -> None:
    generator = StampedWriter(lambda piece: os.write(pipe[1], piece), piece_bytes=4096)
    generator.await_bytes(200_000)
    kept = read(pipe[0], 65_536)
    assert generator.stale_bytes(kept, time.monotonic_ns()) == 65_536
    generator.await_bytes(20_000)
    assert generator.stale_bytes(read(pipe[0], 100), time.monotonic_ns()) == 100
    generator.stop()


def test_foreign_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamped_writer, "_PATIENCE_S", 0.0)
    generator = StampedWriter(len)
    with pytest.raises(AssertionError, match="never written"):
        generator.stale_bytes(bytes(100), 0)
    generator.stop()
