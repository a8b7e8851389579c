# SPDX-License-Identifier: Apache-2.0
"""Steps hand over what is to be recorded; it is written in order, in time and by another thread."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import BypassRecord, DiscardRecord, DroppedBytes, EmissionRecord, Record, Settings
from qr_sampler.host import EngineFacts, EngineStatus, SamplingSession, records_of
from qr_sampler.host.handover import Handover
from qr_sampler.records.files import LedgerWriter
from qr_sampler.records.line_kinds import FiniteTokenLine
from qr_sampler.records.lines import token_run as lines_module
from qr_sampler.testing import ConstantEntropySource, ToyHost, chained_lines

PATIENCE_S = 60.0
AT_ONCE = 0.05


class Kept:
    """Stands for a journal: keeps what it is told, and stands still when a test says so."""

    run_id = "run"

    def __init__(self) -> None:
        self.records: list[Record | tuple[str, dict[str, int]]] = []
        self.threads: set[int] = set()
        self.goes = threading.Event()
        self.goes.set()
        self.stands = threading.Event()
        self.error: Exception | None = None
        self.refuses = False
        self.lost = 0
        self.closed = 0

    def write(self, entries: Any) -> None:
        self.threads.add(threading.get_ident())
        error, self.error = (self.error, None) if entries else (None, self.error)
        if error is not None:
            raise error
        if not self.goes.is_set():
            self.stands.set()
            assert self.goes.wait(PATIENCE_S)
        self.records += records_of(entries)

    def lose(self, reason: str, missing: Mapping[str, int], since_wall_ns: int = 0) -> None:
        self.records.append((reason, dict(missing)))
        self.lost += sum(missing.values())

    def close(self) -> None:
        self.closed += 1


class Waiting:
    """A handover of records with numbers."""

    def __init__(self, **options: Any) -> None:
        self.journal = Kept()
        self.dropped: deque[DroppedBytes] = deque()
        self.status = EngineStatus({}, {})
        self.handover = Handover(
            self.journal,  # type: ignore[arg-type]
            self.status,
            self.dropped,
            **options,
        )

    def put(self, *numbers: int) -> None:
        self.handover.put([BypassRecord(request_key=None, wall_time_ns=one) for one in numbers])

    def stand_still(self) -> None:
        """Has the disk stall, and the thread meet that."""
        self.journal.goes.clear()
        self.put(0)
        self.handover.flush(timeout_s=0)
        assert self.journal.stands.wait(PATIENCE_S)

    def counted(self) -> int:
        self.handover.count()
        said = self.status.as_dict(records_lost=0)["requests_left_to_engine"]
        assert isinstance(said, int)
        return said

    @property
    def written(self) -> list[Any]:
        return [getattr(one, "wall_time_ns", one) for one in self.journal.records]


@pytest.fixture
def make_waiting() -> Iterator[Callable[..., Waiting]]:
    made: list[Waiting] = []

    def make(**options: Any) -> Waiting:
        made.append(Waiting(**options))
        return made[-1]

    yield make
    for waiting in made:
        waiting.journal.goes.set()
        waiting.handover.close()


@pytest.fixture
def waiting(make_waiting: Callable[..., Waiting]) -> Waiting:
    return make_waiting()


def test_another_thread_writes_by_itself(waiting: Waiting) -> None:
    waiting.put(1, 2)
    waiting.put(3)
    deadline = time.monotonic() + PATIENCE_S
    while len(waiting.written) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waiting.written == [1, 2, 3]
    assert threading.get_ident() not in waiting.journal.threads
    assert waiting.counted() == 3


def test_flushing_waits_until_all_is_written(waiting: Waiting) -> None:
    for number in range(50):
        waiting.put(number)
        assert waiting.handover.flush()
        assert waiting.written == list(range(number + 1))


def test_flushing_without_a_thread_writes(waiting: Waiting) -> None:
    waiting.dropped.append(DroppedBytes("device", 7, "late", 5))
    assert waiting.handover.flush()
    assert waiting.written == [5]
    assert waiting.journal.threads == {threading.get_ident()}


def test_what_sources_have_dropped_comes_first(waiting: Waiting) -> None:
    waiting.stand_still()
    waiting.put(1)
    waiting.dropped.append(DroppedBytes("device", 7, "late", 5))
    waiting.put(2)
    waiting.dropped.append(DroppedBytes("device", 7, "late", 6))
    waiting.journal.goes.set()
    assert waiting.handover.flush()
    assert waiting.written == [0, 1, 5, 2, 6]
    kinds = [isinstance(record, DiscardRecord) for record in waiting.journal.records]
    assert kinds == [False, False, True, False, True]


def test_a_disk_that_stands_still_holds_no_step_up(waiting: Waiting) -> None:
    """The thread is in a write that does not come back, and every call comes back all the same."""
    waiting.stand_still()
    for number in range(1, 2_000):
        waiting.put(number)
    assert not waiting.handover.flush(timeout_s=AT_ONCE)
    assert waiting.counted() == 2_000, "what waits is counted, too"
    assert waiting.written == []
    waiting.journal.goes.set()
    assert waiting.handover.flush()
    assert waiting.written == list(range(2_000))
    assert waiting.counted() == 2_000


def test_what_the_queue_has_no_room_for_is_counted_by_kind(
    make_waiting: Callable[..., Waiting],
) -> None:
    waiting = make_waiting(capacity=10)
    waiting.stand_still()
    waiting.put(*range(1, 13))
    emission = EmissionRecord(
        request_key="r",
        sequence="s",
        position=0,
        token_id=1,
        emitted=True,
        reason="",
        wall_time_ns=0,
    )
    waiting.handover.put([emission])
    waiting.put(13)
    assert waiting.handover.lost == 5
    waiting.journal.goes.set()
    assert waiting.handover.flush()
    waiting.put(14)
    assert waiting.handover.flush()
    gap = ("overflow", {"bypass": 4, "emission": 1})
    assert waiting.written == [*range(10), gap, 14]
    assert waiting.handover.lost == 5
    assert waiting.counted() == 15, "the engine has emitted them all the same"


def test_memory_is_bounded_while_the_disk_stands_still(
    make_waiting: Callable[..., Waiting],
) -> None:
    waiting = make_waiting(capacity=100)
    waiting.stand_still()
    before = len(gc.get_objects())
    for number in range(20_000):
        waiting.put(number)
    assert len(gc.get_objects()) - before < 2_000
    waiting.journal.goes.set()
    assert waiting.handover.flush()
    assert len(waiting.written) == 101


def test_losses_stand_where_they_are(make_waiting: Callable[..., Waiting]) -> None:
    """Also when there is room again in between: the order of what is written is that of steps."""
    waiting = make_waiting(capacity=50)
    over = threading.Event()

    def stop_and_go() -> None:
        while not over.is_set():
            waiting.journal.goes.clear()
            time.sleep(0.002)
            waiting.journal.goes.set()
            time.sleep(0.001)

    other = threading.Thread(target=stop_and_go)
    other.start()
    for number in range(0, 30_000, 3):
        waiting.put(number, number + 1, number + 2)
    over.set()
    other.join()
    assert waiting.handover.flush()
    expected = 0
    for one in waiting.written:
        if isinstance(one, tuple):
            expected += one[1]["bypass"]
        else:
            assert one == expected
            expected += 1
    assert expected == 30_000


@pytest.mark.parametrize("crowd", [40, 50, 100])
def test_required_records_are_refused_before_they_are_lost(
    make_waiting: Callable[..., Waiting], crowd: int
) -> None:
    waiting = make_waiting(capacity=100, required=True)
    usual = make_waiting(capacity=100)
    for one in (waiting, usual):
        one.stand_still()
        one.put(*range(1, crowd))
    assert waiting.handover.refuses == (crowd >= 50)
    assert not usual.handover.refuses
    waiting.journal.goes.set()
    assert waiting.handover.flush()
    assert not waiting.handover.refuses
    assert waiting.handover.lost == 0
    waiting.journal.refuses = True
    assert waiting.handover.flush()
    assert waiting.handover.refuses, "noticed without anything to write"
    waiting.journal.refuses = False
    assert waiting.handover.flush()
    assert not waiting.handover.refuses


def test_nothing_is_lost_or_swapped_between_threads(waiting: Waiting) -> None:
    over = threading.Event()

    def flush() -> None:
        while not over.is_set():
            waiting.handover.flush()
            waiting.handover.count()

    waiting.put(0)
    flushing = [threading.Thread(target=flush) for _ in range(3)]
    for thread in flushing:
        thread.start()
    for number in range(1, 5_000):
        waiting.put(number)
    over.set()
    for thread in flushing:
        thread.join()
    assert waiting.handover.flush()
    assert waiting.written == list(range(5_000))
    assert waiting.counted() == 5_000
    assert len(waiting.journal.threads) == 1


def test_the_thread_ends_with_the_ledger_and_starts_again(waiting: Waiting) -> None:
    for number in range(3):
        waiting.put(number)
        waiting.handover.close()
        assert waiting.journal.closed == number + 1
        assert waiting.written == list(range(number + 1))
    names = [thread.name for thread in threading.enumerate()]
    assert "qr-sampler-writer" not in names or len(waiting.journal.threads) == 3


def test_closing_a_disk_that_stands_still_comes_back(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    waiting.stand_still()
    waiting.put(1, 2)
    waiting.handover.close(timeout_s=AT_ONCE)
    assert "3 records" in caplog.text
    waiting.journal.goes.set()
    waiting.handover.close()
    assert waiting.written == [0, 1, 2]
    assert waiting.journal.closed


def test_a_session_that_is_forgotten_is_written_and_ended(tmp_path: Path) -> None:
    session = session_of(tmp_path)
    host = ToyHost(session)
    host.add(5)
    host.step()
    host.write_overdue()
    threads = {thread for thread in threading.enumerate() if thread.name == "qr-sampler-writer"}
    del session, host
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE_S)
    (file,) = tmp_path.iterdir()
    assert chained_lines(file)[-1]["kind"] == "close"


def test_an_error_costs_the_records_at_hand_and_not_the_thread(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    waiting.journal.error = ArithmeticError("broken")
    with caplog.at_level(logging.ERROR, logger="qr_sampler"):
        waiting.put(1, 2)
        assert waiting.handover.flush()
    waiting.put(3)
    assert waiting.handover.flush()
    assert waiting.written == [("invalid", {"bypass": 2}), 3]
    assert "ArithmeticError: broken" in caplog.text


@pytest.mark.parametrize("broken", ["observe", "lose", "close"])
def test_an_error_anywhere_is_reported_and_writing_goes_on(
    make_waiting: Callable[..., Waiting],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    def fail(*_: Any) -> None:
        raise ArithmeticError("broken")

    waiting = make_waiting(capacity=10)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, logger="qr_sampler"):
        patch.setattr(waiting.status if broken == "observe" else waiting.journal, broken, fail)
        waiting.stand_still()
        waiting.put(*range(1, 13))
        waiting.journal.goes.set()
        assert waiting.handover.flush()
        waiting.handover.close()
        assert "ArithmeticError: broken" in caplog.text
        assert waiting.handover.lost == 3
    waiting.put(13)
    assert waiting.handover.flush()
    assert [one for one in waiting.written if isinstance(one, int)] == [*range(10), 13]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("then", ["put", "flush", "close"])
def test_another_thread_follows_one_that_has_died(waiting: Waiting, then: str) -> None:
    class Death(BaseException):
        pass

    def die(entries: Any) -> None:
        dying.append(threading.current_thread())
        raise Death

    dying: list[threading.Thread] = []
    waiting.journal.write, write = die, waiting.journal.write  # type: ignore[method-assign]
    waiting.put(1)
    deadline = time.monotonic() + PATIENCE_S
    while not dying and time.monotonic() < deadline:
        time.sleep(0.01)
    dying[0].join(PATIENCE_S)
    waiting.journal.write = write  # type: ignore[method-assign]
    waiting.dropped.append(DroppedBytes("device", 7, "late", 5))
    if then == "put":
        waiting.put(6)
        assert waiting.handover.flush()
        assert waiting.written == [5, 6]
        assert threading.get_ident() not in waiting.journal.threads
    else:
        getattr(waiting.handover, then)()
        assert waiting.written == [5]
        assert waiting.journal.closed == (then == "close")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_counts_though_its_parent_was_counting(waiting: Waiting) -> None:
    waiting.status._lock.acquire()
    child = os.fork()
    if not child:
        waiting.put(1)
        os._exit(not waiting.handover.flush(timeout_s=5))
    waiting.status._lock.release()
    assert os.waitpid(child, 0)[1] == 0


def test_a_pipe_that_nobody_reads_holds_no_step_up(tmp_path: Path) -> None:
    """The operating system itself does not come back from a write, as with a disk that hangs."""
    path = tmp_path / "pipe"
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(path)
    waiting = Waiting(capacity=5_000)
    writer = LedgerWriter(path)
    waiting.journal.write = lambda entries: writer.write(  # type: ignore[method-assign]
        [(record.kind, record) for record in records_of(entries)]
    )
    waiting.journal.lose = writer.lose  # type: ignore[method-assign]
    for number in range(20_000):
        waiting.put(number)
    assert not waiting.handover.flush(timeout_s=AT_ONCE)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    found = bytearray()
    deadline = time.monotonic() + PATIENCE_S
    while not waiting.handover.flush(timeout_s=0.01) and time.monotonic() < deadline:
        with suppress(BlockingIOError):
            found += os.read(reader, 2**20)
    with suppress(BlockingIOError):
        while chunk := os.read(reader, 2**20):
            found += chunk
    os.close(reader)
    waiting.handover.close()
    writer.release()
    copy = tmp_path / "copy"
    copy.write_bytes(found)
    lines = chained_lines(copy)
    missing: Counter[str] = sum((Counter(line.get("missing", {})) for line in lines), Counter())
    numbers = [line["wall_time_ns"] for line in lines if line["kind"] == "bypass"]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + missing["bypass"] == 20_000
    assert missing["bypass"] >= 20_000 - 5_000 - 1_000


def session_of(ledger_dir: Path | None, **settings: Any) -> SamplingSession:
    checked = Settings.load(
        entropy_source_type="device",
        sample_count=4,
        max_ks_distance=1,
        ledger_dir=ledger_dir,
        **settings,
    )
    source = ConstantEntropySource(name="device")
    return SamplingSession(
        EngineFacts(engine="toy", model="none"), checked, sources={"device": source}
    )


def test_what_nobody_reads_becomes_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[int] = []

    def counted(*fields: Any) -> Any:
        made.append(1)
        return FiniteTokenLine(*fields)

    monkeypatch.setattr(lines_module, "FiniteTokenLine", counted)
    for folder in (None, tmp_path):
        session = session_of(folder)
        host = ToyHost(session)
        requests = [host.add(5) for _ in range(3)]
        for _ in range(5):
            host.step()
        emitted = sum(len(request.output) for request in requests)
        (tokens,) = session.status()["tokens"]
        session.close()
        assert tokens["count"] == emitted > 0
        assert len(made) == (emitted if folder else 0)
