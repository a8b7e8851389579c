# SPDX-License-Identifier: Apache-2.0
"""Where records go, also when the disk refuses."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from qr_sampler import DiscardRecord, GenesisRecord, JsonLinesSink, MemorySink
from qr_sampler.testing import chained_lines, check_files


def record(position: int = 0, reason: str = "aborted") -> DiscardRecord:
    return DiscardRecord(
        request_key="r",
        sequence="s",
        position=position,
        reason=reason,
        source="device",
        fallback=False,
        block_bytes=4,
        u=0.25,
        t_logits_ns=1,
        t_request_ns=2,
        t_received_ns=3,
        wall_time_ns=4,
    )


GENESIS = GenesisRecord(
    run_id="run",
    engine="none",
    model="none",
    versions={},
    settings={},
    pid=1,
    monotonic_ns=1,
    wall_time_ns=1,
)


def positions(path: Path) -> list[int]:
    return [line["position"] for line in chained_lines(path)]


def outline(path: Path) -> list[object]:
    """What a file holds: kinds of lines, of discards the position, of gaps what they say."""
    of_kind = {
        "discard": lambda line: line["position"],
        "gap": lambda line: (line["reason"], sum(line["missing"].values())),
    }
    return [
        of_kind.get(line["kind"], lambda line: line["kind"])(line) for line in chained_lines(path)
    ]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR]


def test_memory_keeps_everything_in_order() -> None:
    sink = MemorySink()
    sink.write([record(0), record(1)])
    sink.write(record(position) for position in (2, 3))
    sink.close()
    assert [kept.as_dict()["position"] for kept in sink.records] == [0, 1, 2, 3]


def test_lines_are_on_disk_after_every_batch(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "ledger.jsonl"
    sink = JsonLinesSink(path)
    assert not path.parent.exists(), "nothing is created before there is something to write"
    sink.write([])
    assert not path.exists()
    sink.write([record(0), record(1, reason='line\nbreak "quote" \u2028 é')])
    assert positions(path) == [0, 1]
    sink.write(record(position) for position in (2,))
    assert positions(path) == [0, 1, 2]
    sink.close()
    assert path.read_bytes().endswith(b"}\n")
    expected = record(1, reason='line\nbreak "quote" \u2028 é').as_dict()
    assert chained_lines(path)[1].items() >= expected.items()
    assert sink.lost == 0


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = os.umask(0)
    try:
        sink = JsonLinesSink(path)
        sink.write([record()])
        sink.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_existing_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for position in range(3):
        sink = JsonLinesSink(path)
        sink.write([record(position)])
        sink.close()
        sink.close()
    assert positions(path) == [0, 1, 2]


def test_a_closed_sink_opens_again(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "ledger.jsonl")
    sink.write([record(0)])
    sink.close()
    sink.write([record(1)])
    sink.close()
    assert positions(sink.path) == [0, 1]


def test_one_sink_goes_on_where_another_has_ended(tmp_path: Path) -> None:
    for position in range(0, 10, 2):
        sink = JsonLinesSink(tmp_path / "ledger.jsonl")
        sink.write([record(position)])
        sink.write([record(position + 1)])
        sink.close()
    assert positions(sink.path) == list(range(10))


def test_closing_an_unused_sink_is_harmless(tmp_path: Path) -> None:
    JsonLinesSink(tmp_path / "ledger.jsonl").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("obstacle", ["directory", "file as parent"])
def test_an_impossible_path_costs_records_but_never_raises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    if obstacle == "directory":
        path = tmp_path
    else:
        (tmp_path / "file").write_text("", "utf-8")
        path = tmp_path / "file" / "ledger.jsonl"
    sink = JsonLinesSink(path)
    sink.write([record(0), record(1)])
    sink.write([record(2)])
    sink.close()
    assert sink.lost == 3
    (message,) = errors(caplog)
    assert str(path) in message
    assert "sampling continues without them" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = JsonLinesSink(Path("/dev/full"))
    for position in range(5):
        sink.write([record(position)] * 2)
    sink.close()
    assert sink.lost == 10
    (message,) = errors(caplog)
    assert "No space left on device" in message


def test_writing_resumes_when_the_disk_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "blocked" / "ledger.jsonl"
    path.parent.write_text("in the way", "utf-8")
    sink = JsonLinesSink(path)
    sink.write([record(0)])
    path.parent.unlink()
    sink.write([record(1)])
    sink.close()
    assert outline(path) == [("refused", 1), 1]
    assert sink.lost == 1
    assert len(errors(caplog)) == 1


def remove(path: Path) -> None:
    path.unlink()


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def move(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def replace(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_text('{"kind": "somebody else"}\n', "utf-8")
    other.replace(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("happens", "reason", "lost"),
    [
        (remove, "removed", 3),
        (remove_directory, "removed", 3),
        (move, "moved", 0),
        (replace, "removed", 3),
        (empty, "cut", 3),
    ],
)
@pytest.mark.parametrize("closed", [False, True])
def test_a_file_that_goes_is_begun_anew_and_says_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    happens: Callable[[Path], None],
    reason: str,
    lost: int,
    closed: bool,
) -> None:
    path = tmp_path / "ledger" / "run.jsonl"
    sink = JsonLinesSink(path, header=[GENESIS])
    sink.begin()
    sink.write([record(0), record(1)])
    if closed:
        # Then it cannot be told any more whether a file was moved or removed.
        sink.close()
        reason, lost = {"moved": "removed"}.get(reason, reason), 3
    before = path.read_bytes()
    happens(path)
    left = path.read_bytes() if path.exists() else None
    sink.write([])
    gap = (reason, 3)
    fresh = path.with_name("run_0002.jsonl")
    assert sink.path == fresh
    assert outline(fresh) == ["genesis", gap], "noticed without anything to write"
    sink.write([record(2)])
    sink.write([record(3)])
    sink.close()
    assert outline(fresh) == ["genesis", gap, 2, 3]
    assert sink.lost == lost
    (message,) = errors(caplog)
    assert str(path) in message
    assert (path.read_bytes() if path.exists() else None) == left, "what is there is left alone"
    head = hashlib.sha256(before.splitlines()[-1]).hexdigest()
    assert chained_lines(fresh)[0]["prev"] == head
    if happens is move:
        assert outline(path.with_suffix(".old")) == ["genesis", 0, 1]
        check_files([path.with_suffix(".old"), fresh])


def test_a_file_can_go_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    sink = JsonLinesSink(path, header=[GENESIS])
    for position in range(5):
        sink.write([record(position)])
        sink.path.unlink()
    sink.write([])
    sink.close()
    assert outline(sink.path) == ["genesis", ("removed", 3)]
    assert sink.lost == 2 + 4 * 3


def test_what_a_disk_refuses_is_told_where_it_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "blocked" / "run.jsonl"
    path.parent.write_text("in the way", "utf-8")
    sink = JsonLinesSink(path, header=[GENESIS])
    sink.begin()
    assert sink.lost == 1, "known before the first token"
    sink.write([record(0), record(1)])
    path.parent.unlink()
    sink.write([record(2)])
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way again", "utf-8")
    sink.write([record(3)])
    path.parent.unlink()
    sink.write([record(4)])
    sink.close()
    assert outline(sink.path) == ["genesis", ("removed", 3), ("refused", 1), 4]
    assert sink.lost == 2 + 3 + 1


TORN = """
    import resource, signal, sys
    from pathlib import Path
    from qr_sampler import JsonLinesSink, MemorySink
    sys.path.insert(0, {tests!r})
    from test_core_ledger import record

    # The file may grow to 1000 bytes, as on a disk that is nearly full: a write then tears a line.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    path = Path({path!r})
    sink = JsonLinesSink(path)
    for position in range(20):
        sink.write([record(position)])
    assert 0 < sink.lost < 20, sink.lost
    torn = path.stat().st_size
    assert torn == 1000, torn
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for position in range(100, 105):
        sink.write([record(position)])
    sink.close()
    print(sink.lost)
"""


def test_a_line_left_unfinished_by_a_crash_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    sink = JsonLinesSink(path)
    sink.write([record(0)])
    sink.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"tok')
    sink = JsonLinesSink(path)
    sink.write([record(1), record(2)])
    sink.close()
    assert outline(path) == [0, ("torn", 0), 1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_line_that_a_full_disk_has_cut_short_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    script = TORN.format(tests=str(Path(__file__).parent), path=str(path))
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    lost = int(run.stdout)
    assert outline(path) == [*range(20 - lost), ("refused", lost), 100, 101, 102, 103, 104]
