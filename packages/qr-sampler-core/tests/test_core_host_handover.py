# SPDX-License-Identifier: Apache-2.0
"""Steps hand over what is to be recorded; it is written in order, in time and by somebody."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import BypassRecord, DiscardRecord, DroppedBytes, Record, Settings
from qr_sampler.host import EngineFacts, EngineStatus, SamplingSession, records_of
from qr_sampler.host.handover import LONGEST_WAIT_S, MOST_WAITING, Handover
from qr_sampler.records import lines as lines_module
from qr_sampler.records.line_kinds import TokenLine
from qr_sampler.testing import ConstantEntropySource, ToyHost


class Kept:
    """Stands for a journal: keeps the records, and does something else while it writes."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.meanwhile: Any = lambda: None

    def write(self, entries: Any) -> None:
        self.records += records_of(entries)
        self.meanwhile()


class Waiting:
    """A handover with a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.journal = Kept()
        self.dropped: deque[DroppedBytes] = deque()
        self.status = EngineStatus({}, {})
        self.handover = Handover(
            self.journal,  # type: ignore[arg-type]
            self.status,
            self.dropped,
            lambda: self.now_s,
        )

    def put(self, *numbers: int) -> None:
        self.handover.put([BypassRecord(request_key=None, wall_time_ns=one) for one in numbers])

    @property
    def written(self) -> list[int]:
        return [record.wall_time_ns for record in self.journal.records]  # type: ignore[attr-defined]


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_a_step_writes_nothing(waiting: Waiting) -> None:
    waiting.put(1, 2)
    waiting.put(3)
    assert waiting.written == []
    waiting.handover.write()
    waiting.handover.write()
    assert waiting.written == [1, 2, 3]
    assert waiting.status.as_dict(records_lost=0)["requests_left_to_engine"] == 3


def test_where_nobody_else_writes_a_step_does_in_time(waiting: Waiting) -> None:
    waiting.put(1)
    waiting.now_s = LONGEST_WAIT_S
    waiting.put(2)
    assert waiting.written == [1, 2]
    waiting.put(3)
    assert waiting.written == [1, 2]


def test_a_step_does_not_wait_for_whoever_is_writing(waiting: Waiting) -> None:
    def step() -> None:
        waiting.journal.meanwhile = lambda: None
        waiting.put(2)
        waiting.now_s += 2 * LONGEST_WAIT_S
        waiting.put(3)

    waiting.put(1)
    waiting.journal.meanwhile = step
    waiting.handover.write()
    assert waiting.written == [1]
    waiting.put(4)
    assert waiting.written == [1, 2, 3, 4]


def test_a_disk_that_is_too_slow_holds_the_steps_up(waiting: Waiting) -> None:
    waiting.put(*range(MOST_WAITING - 1))
    assert waiting.written == []
    waiting.put(MOST_WAITING - 1)
    assert waiting.written == list(range(MOST_WAITING))


def test_what_sources_have_dropped_comes_first(waiting: Waiting) -> None:
    waiting.put(1)
    waiting.dropped.append(DroppedBytes("device", 7, "late", 5))
    waiting.put(2)
    waiting.dropped.append(DroppedBytes("device", 7, "late", 6))
    waiting.handover.write()
    assert waiting.written == [1, 5, 2, 6]
    kinds = [isinstance(record, DiscardRecord) for record in waiting.journal.records]
    assert kinds == [False, True, False, True]


def test_nothing_is_lost_or_swapped_between_threads(waiting: Waiting) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            waiting.handover.write()

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(5_000):
        waiting.put(number)
    over.set()
    writer.join()
    waiting.handover.write()
    assert waiting.written == list(range(5_000))


def session_of(ledger_dir: Path | None) -> SamplingSession:
    settings = Settings.load(
        entropy_source_type="device", sample_count=4, max_ks_distance=1, ledger_dir=ledger_dir
    )
    source = ConstantEntropySource(name="device")
    return SamplingSession(
        EngineFacts(engine="toy", model="none"), settings, sources={"device": source}
    )


def test_what_nobody_reads_becomes_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[int] = []

    def counted(*fields: Any) -> Any:
        made.append(1)
        return TokenLine(*fields)

    monkeypatch.setattr(lines_module, "TokenLine", counted)
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
