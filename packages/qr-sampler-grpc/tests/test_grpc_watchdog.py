# SPDX-License-Identifier: Apache-2.0
"""The watchdog: which deadlines pass, in which order, and that nothing is left of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from qr_sampler_grpc.transports.watchdog import Watchdog

PATIENCE_S = 30.0
"""How long a test waits for what should happen at once; only a failure takes as long."""


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "qr-sampler-grpc-watchdog"]


def in_s(seconds: float) -> float:
    return time.monotonic() + seconds


class Passed:
    """Notes which deadlines have passed; the last one ends the wait."""

    def __init__(self) -> None:
        self.names: list[object] = []
        self.done = threading.Event()

    def note(self, name: object) -> Callable[[], object]:
        return lambda: self.names.append(name)

    def wait(self, watchdog: Watchdog, deadline_s: float) -> list[object]:
        watchdog.watch(deadline_s, self.done.set)
        assert self.done.wait(PATIENCE_S)
        return self.names


def test_deadlines_pass_in_their_order(watchdog: Watchdog) -> None:
    passed, now = Passed(), time.monotonic()
    # None passes before all are watched, however slow the machine is.
    with watchdog._changed:
        for hundredths in (5, 1, 4, 2, 3):
            watchdog.watch(now + hundredths / 100, passed.note(hundredths))
    assert passed.wait(watchdog, now + 0.06) == [1, 2, 3, 4, 5]


def test_deadlines_that_are_found_together_pass_in_their_order(watchdog: Watchdog) -> None:
    passed, now = Passed(), time.monotonic()
    with watchdog._changed:
        for ago in (1, 5, 2, 4, 3):
            watchdog.watch(now - ago, passed.note(ago))
    assert passed.wait(watchdog, now) == [5, 4, 3, 2, 1]


def test_no_deadline_passes_early(watchdog: Watchdog) -> None:
    when: list[float] = []
    passed, due = Passed(), in_s(0.05)
    watchdog.watch(due, lambda: when.append(time.monotonic()))
    passed.wait(watchdog, due + 0.001)
    assert when[0] >= due


def test_lifted_ones_do_not_pass(watchdog: Watchdog) -> None:
    passed, now = Passed(), time.monotonic()
    with watchdog._changed:
        tickets = [watchdog.watch(now + 0.05, passed.note(name)) for name in range(10)]
        for ticket in tickets[::2]:
            watchdog.lift(ticket)
            watchdog.lift(ticket)
    assert passed.wait(watchdog, now + 0.06) == [1, 3, 5, 7, 9]


def test_lifting_what_has_passed_or_never_was_does_nothing(watchdog: Watchdog) -> None:
    passed = Passed()
    ticket = watchdog.watch(in_s(0.0), passed.note("it"))
    assert passed.wait(watchdog, in_s(0.01)) == ["it"]
    watchdog.lift(ticket)
    watchdog.lift(object())


def test_each_passes_once(watchdog: Watchdog) -> None:
    first, second = Passed(), Passed()
    watchdog.watch(in_s(0.0), first.note("it"))
    first.wait(watchdog, in_s(0.01))
    second.wait(watchdog, in_s(0.02))
    assert first.names == ["it"]


def test_one_that_an_earlier_action_lifts_does_not_pass(watchdog: Watchdog) -> None:
    passed, now = Passed(), time.monotonic()
    with watchdog._changed:
        later = watchdog.watch(now - 1, passed.note("later"))
        watchdog.watch(now - 2, lambda: watchdog.lift(later))
    assert passed.wait(watchdog, now) == []


def test_an_earlier_deadline_wakes_it(watchdog: Watchdog) -> None:
    far, near = Passed(), Passed()
    watchdog.watch(in_s(3600.0), far.note("far"))
    while watchdog._wakes_at < time.monotonic() + 3000:
        time.sleep(0.001)
    assert near.wait(watchdog, in_s(0.0)) == []
    assert far.names == []


def test_close_ends_the_thread_and_drops_what_is_left(watchdog: Watchdog) -> None:
    before, passed = len(threads()), Passed()
    watchdog.close()
    watchdog.watch(in_s(3600.0), passed.note("dropped"))
    assert len(threads()) == before + 1
    watchdog.close()
    watchdog.close()
    assert len(threads()) == before
    assert not watchdog._deadlines
    Passed().wait(watchdog, in_s(0.0))
    assert passed.names == []
    assert len(threads()) == before + 1


def test_an_action_may_close_it(watchdog: Watchdog) -> None:
    closed = threading.Event()

    def close() -> None:
        watchdog.close()
        closed.set()

    watchdog.watch(in_s(0.0), close)
    (thread,) = threads()
    assert closed.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_thread_that_cannot_start_is_tried_again(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError):
            watchdog.watch(in_s(0.0), lambda: None)
    Passed().wait(watchdog, in_s(0.0))


def test_ten_thousand_deadlines_leave_one_thread_and_no_entry(watchdog: Watchdog) -> None:
    before, passed = len(threads()), Passed()
    for _ in range(10_000):
        watchdog.lift(watchdog.watch(in_s(3600.0), passed.note("never")))
    assert len(threads()) == before + 1
    assert not watchdog._deadlines
    passed.wait(watchdog, in_s(0.0))
    assert not watchdog._deadlines
    assert passed.names == []


def test_threads_share_it(watchdog: Watchdog) -> None:
    before = len(threads())
    passed: list[list[int]] = [[] for _ in range(8)]

    def use(names: list[int]) -> None:
        for name in range(500):
            ticket = watchdog.watch(
                in_s(0.0 if name % 2 else 3600.0), lambda n=name: names.append(n)
            )
            if not name % 2:
                watchdog.lift(ticket)

    users = [threading.Thread(target=use, args=(names,)) for names in passed]
    for user in users:
        user.start()
    for user in users:
        user.join(PATIENCE_S)
    assert len(threads()) == before + 1
    Passed().wait(watchdog, in_s(0.01))
    assert all(sorted(names) == list(range(1, 500, 2)) for names in passed)
    assert not watchdog._deadlines
