# SPDX-License-Identifier: Apache-2.0
"""Whatever a source does, a guarded draw ends in time: with the bytes or with one kind of error."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import pytest

from qr_sampler import (
    DroppedBytes,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    GuardedSource,
    SourceStatus,
)
from qr_sampler.testing import ConstantEntropySource

SOON_MS = 30.0
"""A deadline that a test waits for."""
NEVER_MS = 60_000.0
"""A deadline that no test reaches."""


class ScriptedSource(EntropySource):
    """Does with every draw what its script says next; its bytes are the number of the draw."""

    name = "scripted"

    def __init__(self, *script: Any, blocks: bool = True) -> None:
        self.blocks = blocks  # type: ignore[misc]
        self.script = list(script)
        self.release = threading.Event()
        self.entered = threading.Event()
        self.calls = 0
        self.closed = False

    def get_random_bytes(self, n: int) -> bytes:
        raise NotImplementedError

    def draw(self, n: int) -> Any:
        self.calls += 1
        number = self.calls
        step = self.script.pop(0) if self.script else "answer"
        if step == "hang":
            self.entered.set()
            assert self.release.wait(timeout=30)
        elif isinstance(step, BaseException):
            raise step
        elif step != "answer":
            return step
        return answer(bytes([number]) * n)

    def close(self) -> None:
        self.closed = True


def answer(data: Any) -> EntropyDraw:
    return EntropyDraw(data=data, source="scripted", requested_ns=1, received_ns=2, wall_time_ns=3)


class Dropped:
    """Collects what was dropped, from any thread."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, str]] = []
        self.told = threading.Event()

    def __call__(self, dropped: DroppedBytes) -> None:
        self.found.append((dropped.source, dropped.count, dropped.reason))
        self.told.set()


@pytest.mark.parametrize("blocks", [True, False])
def test_a_good_answer_passes_as_it_is(blocks: bool) -> None:
    guarded = GuardedSource(ScriptedSource(blocks=blocks), NEVER_MS)
    assert [guarded.draw(2).data for _ in range(3)] == [b"\1\1", b"\2\2", b"\3\3"]
    assert guarded.get_random_bytes(1) == b"\4"
    assert guarded.name == "scripted"


def test_a_source_that_does_not_block_is_called_directly() -> None:
    threads = []

    class Where(ConstantEntropySource):
        def draw(self, n: int) -> EntropyDraw:
            threads.append(threading.current_thread())
            return super().draw(n)

    GuardedSource(Where(), NEVER_MS).draw(1)
    assert threads == [threading.current_thread()]


def test_a_hanging_source_fails_in_time_and_its_late_answer_serves_nobody() -> None:
    source, dropped = ScriptedSource("hang"), Dropped()
    guarded = GuardedSource(source, SOON_MS, dropped)
    with pytest.raises(EntropyUnavailableError, match="no answer within 30 ms"):
        guarded.draw(5)
    assert source.entered.is_set()
    with pytest.raises(EntropyUnavailableError, match="still busy"):
        guarded.draw(5)
    assert source.calls == 1, "a source that hangs must not be asked again"
    assert not guarded.status().available
    assert "still busy" in guarded.status().reason
    source.release.set()
    assert dropped.told.wait(timeout=30)
    assert dropped.found == [("scripted", 5, "late")]
    assert guarded.status().available
    assert guarded.draw(3).data == b"\2\2\2"


def test_a_source_that_fails_late_is_used_again() -> None:
    class FailsLate(ScriptedSource):
        def draw(self, n: int) -> Any:
            if self.calls == 0:
                super().draw(n)
                raise EntropyUnavailableError(self.name, "unplugged")
            return super().draw(n)

    source, dropped = FailsLate("hang"), Dropped()
    guarded = GuardedSource(source, SOON_MS, dropped)
    with pytest.raises(EntropyUnavailableError, match="no answer"):
        guarded.draw(1)
    source.release.set()
    for _ in range(1000):
        try:
            assert guarded.draw(1).data == b"\2"
            break
        except EntropyUnavailableError:
            threading.Event().wait(0.01)
    else:
        raise AssertionError("never used again")
    assert dropped.found == []


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize(
    ("step", "reason", "lost"),
    [
        (answer(b"\1"), "asked for 4 bytes, received 1", [("scripted", 1, "wrong length")]),
        (answer(b"\1" * 9), "asked for 4 bytes, received 9", [("scripted", 9, "wrong length")]),
        (answer(b""), "received 0", []),
        (answer("text"), "instead of bytes", []),
        (b"\1\2\3\4", "answered with bytes", []),
        (None, "answered with NoneType", []),
        (OSError("device gone"), "OSError: device gone", []),
        (TypeError("defect"), "TypeError: defect", []),
        (EntropyUnavailableError("scripted", "unplugged"), "unplugged", []),
        (EntropyUnavailableError("scripted", "half", 3), "half", [("scripted", 3, "failed")]),
    ],
)
def test_every_other_failure_is_of_one_kind_and_over_with_the_next_draw(
    step: Any, reason: str, lost: list[Any], blocks: bool
) -> None:
    dropped = Dropped()
    guarded = GuardedSource(ScriptedSource(step, blocks=blocks), NEVER_MS, dropped)
    with pytest.raises(EntropyUnavailableError, match=reason):
        guarded.draw(4)
    assert dropped.found == lost
    assert guarded.draw(4).data == b"\2" * 4


def test_a_defect_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    guarded = GuardedSource(ScriptedSource(*[TypeError("defect")] * 3, KeyError("x")), NEVER_MS)
    with caplog.at_level(logging.ERROR, logger="qr_sampler"):
        for _ in range(4):
            with pytest.raises(EntropyUnavailableError):
                guarded.draw(1)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        TypeError,
        KeyError,
    ]


def test_an_interrupt_is_nobodys_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        GuardedSource(ScriptedSource(KeyboardInterrupt(), blocks=False), NEVER_MS).draw(1)


def test_a_negative_length_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="n=-1"):
        GuardedSource(ScriptedSource(), NEVER_MS).draw(-1)


def test_many_threads_never_share_bytes() -> None:
    guarded = GuardedSource(ScriptedSource(), NEVER_MS)
    found: list[bytes] = []

    def work() -> None:
        found.extend(guarded.draw(2).data for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(found) == [bytes([number]) * 2 for number in range(1, 121)]


def test_closing_does_not_wait_for_a_source_that_hangs() -> None:
    source = ScriptedSource("hang")
    guarded = GuardedSource(source, SOON_MS)
    with pytest.raises(EntropyUnavailableError):
        guarded.draw(1)
    guarded.close()
    assert not source.closed
    source.release.set()
    working = ScriptedSource()
    guarded = GuardedSource(working, NEVER_MS)
    guarded.draw(1)
    guarded.close()
    guarded.close()
    assert working.closed


def test_a_probe_spends_a_byte_and_says_what_happened() -> None:
    source = ScriptedSource(OSError("gone"))
    guarded = GuardedSource(source, NEVER_MS)
    assert guarded.probe() == SourceStatus(available=False, reason="OSError: gone")
    assert guarded.probe() == SourceStatus(available=True)
    assert source.calls == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_draws_with_a_thread_of_its_own() -> None:
    guarded = GuardedSource(ScriptedSource(), NEVER_MS)
    guarded.draw(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, guarded.draw(4).data)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 4) == b"\2" * 4
    for end in (reader, writer):
        os.close(end)


def test_pieces_of_a_failed_draw_are_accounted_for() -> None:
    class ThreePieces(ConstantEntropySource):
        def get_random_bytes(self, n: int) -> bytes:
            if len(self.requests) == 2:
                self.fail_with = "unplugged"
            return super().get_random_bytes(n)

    dropped = Dropped()
    guarded = GuardedSource(ThreePieces(max_bytes_per_request=4), NEVER_MS, dropped)
    with pytest.raises(EntropyUnavailableError, match="unplugged") as failure:
        guarded.draw(10)
    assert failure.value.dropped_bytes == 8
    assert dropped.found == [("constant", 8, "failed")]
