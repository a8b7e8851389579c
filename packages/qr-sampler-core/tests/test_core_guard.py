# SPDX-License-Identifier: Apache-2.0
"""Whatever a source does, a guarded draw ends in time: with the bytes or with one kind of error."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import (
    DroppedBytes,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    GuardedSource,
    SourceStatus,
)
from qr_sampler.entropy.caller_thread import CallerThread, TimedCall
from qr_sampler.testing import ConstantEntropySource

SOON_MS = 200.0
"""A deadline that a test waits for."""
NEVER_MS = 60_000.0
"""A deadline that no test reaches."""
PATIENCE_S = 30.0
"""How long a test waits for what has to happen."""


class ScriptedSource(EntropySource):
    """Does with every draw what its script says next; its bytes are the number of the draw.

    A draw that hangs does what the script says then, when it is released.
    """

    name = "scripted"

    def __init__(self, *script: Any, blocks: bool = True) -> None:
        self.blocks = blocks  # type: ignore[misc]
        self.script = list(script)
        self.release = threading.Event()
        self.entered = threading.Event()
        self.calls = 0
        self.closed = threading.Event()

    def get_random_bytes(self, n: int) -> bytes:
        raise NotImplementedError

    def draw(self, n: int) -> Any:
        self.calls += 1
        number = self.calls
        step = self.script.pop(0) if self.script else "answer"
        if step == "hang":
            self.entered.set()
            assert self.release.wait(timeout=PATIENCE_S)
            self.release.clear()
            step = self.script.pop(0) if self.script else "answer"
        if isinstance(step, BaseException):
            raise step
        if step != "answer":
            return step
        return answer(bytes([number]) * n)

    def close(self) -> None:
        self.closed.set()


def answer(data: Any) -> EntropyDraw:
    return EntropyDraw(data=data, source="scripted", requested_ns=1, received_ns=2, wall_time_ns=3)


class MuteError(Exception):
    """Cannot even say what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


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


def test_only_a_source_of_this_project_is_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    class Where(ConstantEntropySource):
        def draw(self, n: int) -> EntropyDraw:
            threads.append(threading.current_thread())
            return super().draw(n)

    GuardedSource(Where(), NEVER_MS).draw(1)
    monkeypatch.setattr(Where, "__module__", ConstantEntropySource.__module__)
    GuardedSource(Where(), NEVER_MS).draw(1)
    foreign, ours = threads
    assert foreign is not threading.current_thread()
    assert ours is threading.current_thread()


def test_a_source_that_denies_to_block_and_hangs_fails_in_time() -> None:
    source = ScriptedSource("hang", blocks=False)
    given_up_on(source)
    source.release.set()


def given_up_on(source: ScriptedSource, dropped: Dropped | None = None) -> GuardedSource:
    """Returns a guarded source that hangs in its first draw."""
    guarded = GuardedSource(source, SOON_MS, dropped)
    with pytest.raises(EntropyUnavailableError, match="no answer within 200 ms"):
        guarded.draw(5)
    # What comes next is expected to succeed, on a busy machine too.
    guarded._calls.get()._timeout_s = NEVER_MS / 1000
    return guarded


def patiently(draw: Callable[[], EntropyDraw]) -> EntropyDraw:
    """Returns the first draw that succeeds."""
    for _ in range(1000):
        try:
            return draw()
        except EntropyUnavailableError:
            threading.Event().wait(PATIENCE_S / 1000)
    raise AssertionError("never used again")


def test_a_hanging_source_fails_in_time_and_its_late_answer_serves_nobody() -> None:
    source, dropped = ScriptedSource("hang"), Dropped()
    guarded = given_up_on(source, dropped)
    assert source.entered.wait(timeout=PATIENCE_S)
    with pytest.raises(EntropyUnavailableError, match="still busy"):
        guarded.draw(5)
    assert source.calls == 1, "a source that hangs must not be asked again"
    assert not guarded.status().available
    assert "still busy" in guarded.status().reason
    source.release.set()
    assert dropped.told.wait(timeout=PATIENCE_S)
    assert dropped.found == [("scripted", 5, "late")]
    assert guarded.status().available
    assert guarded.draw(3).data == b"\2\2\2"


@pytest.mark.parametrize(
    ("step", "lost"),
    [
        (EntropyUnavailableError("scripted", "unplugged"), []),
        (EntropyUnavailableError("s", "half", dropped_bytes=3), [("scripted", 3, "late")]),
        (OSError("gone"), []),
        (SystemExit(3), []),
    ],
)
def test_a_source_that_fails_late_is_used_again(step: Any, lost: list[Any]) -> None:
    source, dropped = ScriptedSource("hang", step), Dropped()
    guarded = given_up_on(source, dropped)
    source.release.set()
    assert patiently(lambda: guarded.draw(1)).data == b"\2"
    assert dropped.found == lost


@pytest.mark.parametrize("step", [answer(b"\1\1"), answer(bytes(9)), answer("text"), b"\1", None])
def test_a_late_answer_of_any_kind_is_dropped(step: Any) -> None:
    source, dropped = ScriptedSource("hang", step), Dropped()
    guarded = given_up_on(source, dropped)
    source.release.set()
    assert patiently(lambda: guarded.draw(1)).data == b"\2"
    lost = [len(step.data)] if isinstance(getattr(step, "data", None), bytes) else []
    assert dropped.found == [("scripted", count, "late") for count in lost]


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize(
    ("step", "reason", "lost"),
    [
        (answer(b"\1"), "asked for 4 bytes, received 1", [("scripted", 1, "short")]),
        (answer(b"\1" * 9), "asked for 4 bytes, received 9", [("scripted", 9, "long")]),
        (answer(b""), "received 0", []),
        (answer("text"), "answered with str instead of bytes", []),
        (answer([1, 2, 3, 4]), "answered with list instead of bytes", []),
        (b"\1\2\3\4", "answered with bytes", []),
        (None, "answered with NoneType", []),
        (OSError("device gone"), "OSError: device gone", []),
        (TypeError("defect"), "TypeError: defect", []),
        (EntropyUnavailableError("scripted", "unplugged"), "unplugged", []),
        (
            EntropyUnavailableError("scripted", "half", dropped_bytes=3),
            "half",
            [("scripted", 3, "failed")],
        ),
        (MuteError(), "MuteError: its text is not available", []),
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
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith("TypeError: defect\n")
    assert second.endswith("KeyError: 'x'\n")
    assert "in draw" in first, "the lines of the source are named"


class OwnEndError(BaseException):
    """Ends whoever does not know it."""


ENDS = [
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    OwnEndError,
]
"""What ends a program, a thread or a task."""


@pytest.mark.parametrize("kind", ENDS)
def test_what_ends_a_program_is_a_failed_draw(kind: type[BaseException]) -> None:
    guarded = GuardedSource(ScriptedSource(kind("enough")), NEVER_MS)
    with pytest.raises(EntropyUnavailableError, match=f"{kind.__name__}: enough"):
        guarded.draw(1)
    assert guarded.draw(1).data == b"\2"


@pytest.mark.parametrize("kind", ENDS)
def test_it_ends_nothing_where_the_source_is_called_directly(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedSource, "__module__", ConstantEntropySource.__module__)
    # Python's own handler leaves no trace, so that an interrupt may always be the operator's.
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    guarded = GuardedSource(ScriptedSource(kind("enough"), blocks=False), NEVER_MS)
    with pytest.raises(EntropyUnavailableError, match=f"{kind.__name__}: enough"):
        guarded.draw(1)


@pytest.fixture
def handle_interrupts() -> Iterator[Callable[[Any], None]]:
    """Returns what sets the handler of SIGINT, which a shell may have left ignored."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def stop(number: int, frame: object) -> None:
    raise SystemExit(f"signal {number}")


@pytest.mark.parametrize(
    ("handler", "kind"), [(signal.default_int_handler, KeyboardInterrupt), (stop, SystemExit)]
)
def test_a_signal_passes_a_source_that_is_called_directly(
    handler: Any,
    kind: type[BaseException],
    handle_interrupts: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(ConstantEntropySource):
        def get_random_bytes(self, n: int) -> bytes:
            signal.raise_signal(signal.SIGINT)
            return super().get_random_bytes(n)

    monkeypatch.setattr(Interrupted, "__module__", ConstantEntropySource.__module__)
    handle_interrupts(handler)
    with pytest.raises(kind):
        GuardedSource(Interrupted(), NEVER_MS).draw(1)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals between threads here")
def test_an_interrupt_while_waiting_drops_the_answer(
    handle_interrupts: Callable[[Any], None],
) -> None:
    handle_interrupts(signal.default_int_handler)
    source, dropped = ScriptedSource("hang"), Dropped()
    guarded = GuardedSource(source, NEVER_MS, dropped)
    waiting = threading.main_thread().ident
    assert waiting is not None

    heard: list[int] = []

    def first_one_interrupts(number: int, _frame: object) -> None:
        heard.append(number)
        if len(heard) == 1:
            raise KeyboardInterrupt

    def interrupt() -> None:
        assert source.entered.wait(timeout=PATIENCE_S)
        # Python notices a signal that comes just before a wait begins only when the wait ends.
        for _ in range(200):
            if heard or source.release.wait(timeout=0.05):
                return
            signal.pthread_kill(waiting, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, first_one_interrupts)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            guarded.draw(4)
    finally:
        thread.join(timeout=PATIENCE_S)
        signal.signal(signal.SIGINT, previous)
    with pytest.raises(EntropyUnavailableError, match="still busy"):
        guarded.draw(4)
    source.release.set()
    assert dropped.told.wait(timeout=PATIENCE_S)
    assert dropped.found == [("scripted", 4, "late")]
    assert guarded.draw(1).data == b"\2"


@pytest.mark.parametrize("timeout_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_the_deadline_is_a_positive_number(timeout_ms: float) -> None:
    with pytest.raises(ValueError, match="timeout_ms="):
        GuardedSource(ScriptedSource(), timeout_ms)


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
        thread.join(timeout=PATIENCE_S)
    assert sorted(found) == [bytes([number]) * 2 for number in range(1, 121)]


def test_the_deadline_covers_the_wait_for_ones_turn() -> None:
    entered, release, asked = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert release.wait(timeout=PATIENCE_S)

    caller = CallerThread("test", lambda call: None)
    thread = threading.Thread(target=caller.make, args=(hang, PATIENCE_S))
    thread.start()
    assert entered.wait(timeout=PATIENCE_S)
    with pytest.raises(TimeoutError, match="busy with the draws of others for 200 ms"):
        caller.make(asked.set, SOON_MS / 1000)
    assert thread.is_alive(), "it has waited for longer than it may"
    assert caller.overdue() is None, "whoever made the call still waits for it"
    release.set()
    thread.join(timeout=PATIENCE_S)
    assert not asked.is_set(), "what nobody waits for must not be asked"
    caller.stop()


def test_a_call_is_handed_over_or_given_up_but_never_both() -> None:
    handed_over, given_up = TimedCall(int).run(), TimedCall(int).run()
    assert handed_over.hand_over()
    assert not handed_over.give_up()
    assert handed_over.wait(PATIENCE_S)
    assert given_up.give_up()
    assert not given_up.hand_over()
    assert not given_up.wait(0)


def test_what_was_given_up_before_it_began_is_not_asked_for() -> None:
    release, asked = threading.Event(), threading.Event()
    late: list[Any] = []
    caller = CallerThread("test", late.append)
    with pytest.raises(TimeoutError, match="no answer"):
        caller.make(lambda: release.wait(timeout=PATIENCE_S), SOON_MS / 1000)
    given_up = TimedCall(asked.set)
    assert given_up.give_up()
    caller._calls.put(given_up)
    caller.stop()
    release.set()
    assert caller._thread is not None
    caller._thread.join(timeout=PATIENCE_S)
    assert (asked.is_set(), len(late), given_up.finished) == (False, 1, True)


def test_closing_closes_the_source_any_number_of_times() -> None:
    for blocks in (True, False):
        source = ScriptedSource(blocks=blocks)
        guarded = GuardedSource(source, NEVER_MS)
        guarded.draw(1)
        guarded.close()
        assert source.closed.is_set()
        guarded.close()
        assert guarded.draw(1).data == b"\2", "what follows is for the source to decide"


def test_closing_does_not_wait_for_a_draw_that_hangs() -> None:
    source, dropped = ScriptedSource("hang"), Dropped()
    guarded = given_up_on(source, dropped)
    guarded.close()
    assert not source.closed.is_set()
    source.release.set()
    assert source.closed.wait(timeout=PATIENCE_S), "closed when it returns"
    assert dropped.found == [("scripted", 5, "late")]


def test_closing_does_not_wait_for_a_close_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    class Clings(ScriptedSource):
        def close(self) -> None:
            assert self.release.wait(timeout=PATIENCE_S)
            super().close()

    source = Clings()
    with caplog.at_level(logging.WARNING, logger="qr_sampler"):
        GuardedSource(source, SOON_MS).close()
    assert "does not close: no answer within 200 ms" in caplog.text
    source.release.set()
    assert source.closed.wait(timeout=PATIENCE_S)


def test_what_goes_wrong_in_closing_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(ScriptedSource):
        def close(self) -> None:
            super().close()
            raise OSError("stuck")

    for blocks in (True, False):
        with pytest.raises(OSError, match="stuck"):
            GuardedSource(Breaks(blocks=blocks), NEVER_MS).close()
    source = Breaks("hang")
    guarded = given_up_on(source)
    thread = guarded._calls.get()._drawing._thread
    guarded.close()
    source.release.set()
    assert thread is not None
    thread.join(timeout=PATIENCE_S)
    assert source.closed.is_set()
    assert "stuck" in caplog.text


def test_a_probe_says_what_happened() -> None:
    class Probed(ScriptedSource):
        def probe(self) -> Any:
            return self.draw(1)

    states = [SourceStatus(available=True, reason="warm"), OSError("gone"), None]
    for blocks in (True, False):
        guarded = GuardedSource(Probed(*states, blocks=blocks), NEVER_MS)
        assert guarded.probe() == SourceStatus(available=True, reason="warm")
        assert guarded.probe() == SourceStatus(available=False, reason="OSError: gone")
        assert not guarded.probe().available


def test_a_probe_that_hangs_fails_in_time() -> None:
    source = ScriptedSource("hang")
    guarded = GuardedSource(source, SOON_MS)
    assert guarded.probe() == SourceStatus(available=False, reason="no answer within 200 ms")
    source.release.set()


def test_a_close_that_was_given_up_before_it_began_is_made_all_the_same() -> None:
    caller = CallerThread("test", lambda call: None)
    begun, release, closed = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(PATIENCE_S)

    drawing = threading.Thread(target=caller.make, args=(hang, PATIENCE_S))
    drawing.start()
    assert begun.wait(PATIENCE_S)
    with pytest.raises(TimeoutError, match="no answer within 10 ms"):
        caller.make_last(closed.set, 0.01)
    assert not closed.is_set()
    release.set()
    assert closed.wait(PATIENCE_S)
    drawing.join(PATIENCE_S)


OUTCOMES: dict[str, Callable[[int], Any]] = {
    "short": lambda number: answer(bytes([number]) * 2),
    "long": lambda number: answer(bytes([number]) * 9),
    "text": lambda number: "text",
    "error": lambda number: OSError("gone"),
    "half": lambda number: EntropyUnavailableError("s", "half", dropped_bytes=3),
}


class CountingSource(ScriptedSource):
    """A scripted source that knows how many bytes it has delivered."""

    delivered = 0

    def draw(self, n: int) -> Any:
        try:
            found = super().draw(n)
        except EntropyUnavailableError as error:
            self.delivered += error.dropped_bytes
            raise
        self.delivered += len(found.data) if isinstance(found, EntropyDraw) else 0
        return found


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.sampled_from(["answer", "hang", *OUTCOMES]), max_size=8))
def test_every_byte_serves_one_draw_or_is_dropped(names: list[str]) -> None:
    """Whatever a source does, in whatever order, and however late."""
    script = [
        OUTCOMES[name](100 + place) if name in OUTCOMES else name
        for place, name in enumerate(names)
    ]
    source, dropped, served = CountingSource(*script), Dropped(), []
    guarded = GuardedSource(source, 5.0, dropped)
    while source.script:
        try:
            served.append(guarded.draw(4).data)
        except EntropyUnavailableError as error:
            if "no answer" in error.reason:
                source.release.set()
    source.release.set()
    guarded.close()
    # The thread that closes the source is the one that has reported what came before.
    assert source.closed.wait(timeout=PATIENCE_S)
    lost = sum(count for _, count, _ in dropped.found)
    assert sum(map(len, served)) + lost == source.delivered
    assert len(set(served)) == len(served), "two draws share bytes"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_draws_with_a_thread_of_its_own() -> None:
    guarded = GuardedSource(ScriptedSource(), NEVER_MS)
    guarded.draw(1)
    assert in_a_child(lambda: guarded.draw(4).data) == b"\2" * 4
    assert guarded.draw(1).data == b"\2"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_a_draw_does_not_wait_for_it() -> None:
    source = ScriptedSource("hang")
    guarded = GuardedSource(source, NEVER_MS)
    thread = threading.Thread(target=guarded.draw, args=(1,))
    thread.start()
    assert source.entered.wait(timeout=PATIENCE_S)
    assert in_a_child(lambda: guarded.draw(4).data) == b"\2" * 4
    source.release.set()
    thread.join(timeout=PATIENCE_S)


def in_a_child(work: Callable[[], bytes]) -> bytes:
    """Returns what *work* returns in a forked process, nothing if it fails or hangs there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE_S))
        try:
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as file:
        return file.read()


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


def test_a_status_that_hangs_fails_in_time_and_holds_up_no_draw() -> None:
    class Pensive(ScriptedSource):
        thinking = True

        def status(self) -> SourceStatus:
            if self.thinking:
                assert self.release.wait(timeout=PATIENCE_S)
            return SourceStatus(available=True, reason="thought about it")

    source = Pensive()
    guarded = GuardedSource(source, SOON_MS)
    first, second = guarded.status(), guarded.status()
    assert first.reason == "its status is not available: no answer within 200 ms"
    assert second.reason.startswith("its status is not available: still busy with a status that")
    assert not first.available
    assert not second.available
    guarded._calls.get()._timeout_s = NEVER_MS / 1000
    assert guarded.draw(1).data == b"\1"
    source.thinking = False
    source.release.set()
    for _ in range(1000):
        if guarded.status().available:
            break
        threading.Event().wait(PATIENCE_S / 1000)
    assert guarded.status() == SourceStatus(available=True, reason="thought about it")
    guarded.close()
    assert source.closed.is_set()


def test_a_close_that_ends_the_program_is_an_error() -> None:
    class Quits(ScriptedSource):
        def close(self) -> None:
            raise SystemExit("bye")

    with pytest.raises(RuntimeError, match="'scripted': SystemExit: bye"):
        GuardedSource(Quits(), NEVER_MS).close()
