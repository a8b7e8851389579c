# SPDX-License-Identifier: Apache-2.0
"""A ledger that a process of its own writes is the same, whoever is killed."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.chain import BLINDED_KINDS, ZERO_HEAD, line_of
from qr_sampler.records.files import LedgerWriter
from qr_sampler.records.line_kinds import TokenLine
from qr_sampler.records.lines import TokenRun, expanded
from qr_sampler.records.lines.token_run import packed
from qr_sampler.records.process import OutsideWriter, Start, outside_writer
from qr_sampler.records.process.child import serve
from qr_sampler.records.process.messages import (
    READY,
    End,
    Lose,
    MadeLine,
    Prepare,
    Reply,
    Request,
    Write,
    items_of,
    receive,
    send,
)
from qr_sampler.records.process.outside_writer import _made
from qr_sampler.records.process.pipe import ProcessEndedError, WriterProcess
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import ToyHost, chained_lines, check_ledger, play_script

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a thread writes here")

PATIENCE_S = 60.0


class SeededBytes(EntropySource):
    """Hands out the bytes of a generator."""

    name = "device"
    blocks = False

    def __init__(self, seed: int) -> None:
        self._script = Random(seed)
        self.drawn = 0

    def get_random_bytes(self, n: int) -> bytes:
        self.drawn += n
        return self._script.randbytes(n)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[WriterProcess]:
    """Every process that is started."""
    found: list[WriterProcess] = []

    class Noted(WriterProcess):
        def __init__(self) -> None:
            super().__init__()
            found.append(self)

    monkeypatch.setattr(outside_writer, "WriterProcess", Noted)
    return found


def session_of(source: EntropySource, folder: Path, **settings: Any) -> SamplingSession:
    return SamplingSession(
        EngineFacts(engine="toy 1.0", model="none", busy=True),
        Settings.load(entropy_source_type="device", sample_count=16, ledger_dir=folder, **settings),
        sources={"device": source},
    )


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def writer_in(folder: Path, **options: Any) -> OutsideWriter:
    """Returns a writer whose process is ready."""
    path = folder / "run.jsonl"
    ways: dict[str, Any] = {"seal": ZERO_HEAD, "max_bytes": 0, "held": 0, "sync_s": 0.0, **options}
    genesis = {"run_id": "run", "schema_version": 2}
    start = Start(
        os.fsencode(path), msgspec.json.encode(genesis), blinded=sorted(BLINDED_KINDS), **ways
    )
    local = LedgerWriter(
        path,
        lambda continues: [("genesis", {**genesis, "continues": None, "seal": None})],
        blinded=BLINDED_KINDS,
        **ways,
    )
    writer = OutsideWriter(local, start, lambda: None)
    writer.begin()

    def written_outside() -> bool:
        writer.prepare()
        return writer.pid is not None

    wait_until(written_outside)
    return writer


def notes(first: int, count: int) -> list[tuple[str, dict[str, int]]]:
    return [("note", {"number": number}) for number in range(first, first + count)]


def numbers_in(folder: Path) -> list[int]:
    return [
        line["number"]
        for file in sorted(folder.glob("*.jsonl"))
        for line in chained_lines(file)
        if line["kind"] == "note"
    ]


def run_of(tokens: int, **columns: Any) -> TokenRun:
    whole, real = np.arange(tokens), np.linspace(0.1, 0.9, tokens)
    numbers = [whole if code == "q" else real for code in "qqqqdddddqdqdd"]
    for at, values in columns.items():
        numbers[int(at.removeprefix("column_"))] = np.asarray(values)
    names = [f"sequence {row}" for row in range(tokens)]
    return TokenRun(
        7,
        names,
        list(range(tokens)),
        list(range(tokens)),
        packed(numbers, None),
        [""] * tokens,
        [""] * tokens,
        [True] * tokens,
        [None] * tokens,
    )


@pytest.mark.parametrize("waits", [True, False])
def test_the_ledger_of_any_script_is_what_was_emitted(
    waits: bool, tmp_path: Path, started: list[WriterProcess]
) -> None:
    source = SeededBytes(0)
    session = session_of(source, tmp_path)
    (process,) = started
    host = ToyHost(session, seed=0, overlapping=waits)
    host.add(5)
    host.step()
    host.flush()
    while waits and outside(session).pid is None:
        # Whenever it is ready, it goes on with what a thread has begun.
        session.write()
        time.sleep(0.01)
    play_script(host, seed=0, steps=40)
    session.close()
    assert not is_there(process.pid)
    (file,) = tmp_path.glob("*.jsonl")
    assert chained_lines(file)[-1]["kind"] == "close"
    texts = [one.text() for one in host.requests if one.sequence is not None]
    check_ledger(read_ledger(file), texts, bytes_drawn=source.drawn)


def outside(session: SamplingSession) -> OutsideWriter:
    writer: Any = session._journal._file
    assert isinstance(writer, OutsideWriter)
    return writer


def test_what_a_killed_process_has_not_written_a_thread_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = writer_in(tmp_path)
    writer.write(notes(0, 50))
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.write(notes(50, 50))
    assert writer.pid is None
    assert "a thread of the engine goes on" in caplog.text
    writer.write(notes(100, 50))
    writer.end()
    assert numbers_in(tmp_path) == list(range(150))
    assert writer.lost == 0
    assert {file.name for file in tmp_path.iterdir()} == {"run.jsonl"}


@pytest.mark.heavy
@pytest.mark.parametrize(("whole", "torn"), [(10, b""), (3, b'{"kind":"note","n":')])
def test_lines_that_it_has_written_before_its_end_are_not_written_again(
    whole: int, torn: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_in(tmp_path)
    writer.write(notes(0, 5))
    process = writer._process
    assert process is not None
    call = process.call

    def dies_at_work(request: Request) -> Any:
        if isinstance(request, Write):
            call(Write(request.items[:whole]))
            with (tmp_path / "run.jsonl").open("ab") as file:
                file.write(torn)
            os.kill(process.pid, signal.SIGKILL)
        return call(request)

    monkeypatch.setattr(process, "call", dies_at_work)
    writer.write(notes(5, 10))
    writer.end()
    assert numbers_in(tmp_path) == list(range(15))
    gaps = [line for line in chained_lines(tmp_path / "run.jsonl") if line["kind"] == "gap"]
    assert [gap["torn_bytes"] for gap in gaps] == ([len(torn)] if torn else [])


@pytest.mark.heavy
def test_what_waited_for_the_disk_in_a_killed_process_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_in(tmp_path, held=10)
    writer.write(notes(0, 2))
    writer._stands.waiting["note"] = 3
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.prepare()
    writer.write(notes(2, 2))
    writer.end()
    lines = chained_lines(tmp_path / "run.jsonl")
    (gap,) = [line for line in lines if line["kind"] == "gap"]
    assert (gap["reason"], gap["missing"]) == ("refused", {"note": 3})
    assert lines[-1]["lost"] == 3


@pytest.mark.heavy
def test_signals_to_end_are_for_the_engine(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    pid = writer.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert os.getsid(pid) != os.getsid(0)
    writer.write(notes(0, 5))
    assert writer.pid == pid
    writer.end()
    assert numbers_in(tmp_path) == list(range(5))


@pytest.mark.heavy
def test_another_file_is_begun_where_necessary_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Path] = []
    writer = writer_in(tmp_path, max_bytes=400)
    writer._begun = lambda: told.append(writer.path)
    writer.write(notes(0, 5))
    writer.prepare()
    writer.write(notes(5, 5))
    assert told == [tmp_path / "run_0002.jsonl"]
    writer.path.unlink()
    writer.prepare()
    writer.write(notes(10, 5))
    assert told == [tmp_path / "run_0002.jsonl", tmp_path / "run_0003.jsonl"]
    # The process has said so, in the log of the engine.
    assert "was removed while it was being written" in caplog.text
    writer.end()
    assert numbers_in(tmp_path) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


@pytest.mark.heavy
def test_more_after_the_end_goes_into_another_file(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.write(notes(0, 3))
    writer.end()
    assert writer.pid is None
    writer.end()
    assert len(list(tmp_path.iterdir())) == 1
    writer.prepare()
    writer.write(notes(3, 3))
    writer.end()
    assert numbers_in(tmp_path) == list(range(6))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.heavy
def test_a_disk_that_refuses_is_noticed_by_the_engine(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    writer = writer_in(folder)
    writer.write(notes(0, 3))
    folder.rename(tmp_path / "away")
    # What is in its place takes no file.
    folder.write_text("in the way", "utf-8")
    writer.prepare()
    writer.write(notes(3, 3))
    assert writer.refuses
    assert writer.lost >= 3
    folder.unlink()
    writer.prepare()
    writer.write(notes(6, 3))
    assert not writer.refuses
    writer.end()
    assert numbers_in(folder) == [6, 7, 8]


@pytest.mark.heavy
def test_what_json_cannot_hold_is_missed(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.write([*notes(0, 1), ("note", {"number": float("nan")}), *notes(1, 1)])
    writer.write([("token", run_of(4, column_4=[0.1, np.inf, 0.3, 0.4]))])
    writer.end()
    lines = chained_lines(tmp_path / "run.jsonl")
    missing = sum((Counter(line["missing"]) for line in lines if line["kind"] == "gap"), Counter())
    assert missing == {"note": 1, "token": 1}
    assert Counter(line["kind"] for line in lines)["token"] == 3


def test_runs_become_the_lines_of_their_tokens() -> None:
    run = run_of(3, column_12=[np.nan, 0.5, np.nan])
    told = [msgspec.to_builtins(line) for _, line in expanded([("token", run)])]
    assert [line["sequence"] for line in told] == ["sequence 0", "sequence 1", "sequence 2"]
    assert [line.get("running_entropy_nats") for line in told] == [None, 0.5, None]
    assert [line["candidates"] for line in told] == [0, 1, 2]
    assert [line["u"] for line in told] == [0.1, 0.5, 0.9]
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(run), type=TokenRun)
    assert list(again.lines()) == list(run.lines())


AWKWARD = [0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1, -1e-17, 1e16, 2.5]
COLUMNS = (
    "offset",
    "block_bytes",
    "block_sum",
    "block_ones",
    "u",
    "statistic",
    "temperature",
    "entropy_nats",
    "varentropy_nats2",
    "rank",
    "probability",
    "candidates",
    "running_entropy_nats",
    "lattice_step",
)


@pytest.mark.parametrize("seed", range(30))
def test_lines_are_the_same_bytes_whoever_makes_them(seed: int) -> None:
    script = Random(seed)
    tokens = script.randint(1, 40)
    dtypes = [np.int64, np.int32] if seed % 2 else [np.int64, np.uint8]
    reals = [np.float64, np.float32]
    values: list[Any] = []
    for code in "qqqqdddddqdqdd":
        if code == "q":
            whole = [script.randrange(200) for _ in range(tokens)]
            values.append(np.array(whole, script.choice(dtypes)))
        else:
            kind = script.choice(reals)
            awkward = AWKWARD if kind is np.float64 else AWKWARD[:1] + AWKWARD[4:]
            unknown = [np.nan] * (len(values) > 11)
            values.append(np.array(script.choices([*awkward, *unknown], k=tokens), kind))
    if seed % 5 == 0:
        values[4][0] = script.choice([np.nan, np.inf, -np.inf])
    run = run_of(tokens, **{f"column_{at}": column for at, column in enumerate(values)})
    run = msgspec.structs.replace(
        run,
        emitted=script.choices([True, None], k=tokens),
        outcomes=script.choices([None, "left"], k=tokens),
        baselines=script.choices(["", "ab" * 32], k=tokens),
    )
    items, _ = _made([("token", run), ("note", {"nothing": None, "text": "\u2028é"})])
    request = msgspec.msgpack.decode(msgspec.msgpack.encode(Write(items)), type=Request)
    assert isinstance(request, Write)
    outside = [made_line(*item) for item in items_of(request.items)]
    listed = [column.tolist() for column in values]
    alike: list[bytes | None] = []
    for at, numbers in enumerate(zip(*listed, strict=True)):
        fields = dict(zip(COLUMNS, numbers, strict=True))
        for name in COLUMNS[-2:]:
            fields[name] = None if np.isnan(fields[name]) else fields[name]
        ids = {"sequence": run.sequences[at], "position": at, "token_id": at, "draw": 7}
        rest = {"baseline": run.baselines[at], "emitted": run.emitted[at]}
        line = TokenLine(**ids, **fields, **rest, outcome=run.outcomes[at])  # type: ignore[arg-type]
        alike.append(made_line("token", line))
    alike.append(made_line("note", {"nothing": None, "text": "\u2028é"}))
    assert outside == alike
    assert outside.count(None) == (seed % 5 == 0)


def made_line(kind: str, fields: object) -> bytes | None:
    try:
        return line_of(kind, 3, ZERO_HEAD, fields)
    except ValueError:
        return None


@pytest.mark.parametrize("program", ["/nowhere", sys.executable])
def test_where_no_process_starts_a_thread_writes(
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr("qr_sampler.records.process.pipe._PROGRAM", "raise SystemExit(3)")
    source = SeededBytes(0)
    session = session_of(source, tmp_path)
    host = ToyHost(session)
    host.add(20)

    def warned() -> bool:
        host.step()
        host.flush()
        return "as no process starts" in caplog.text

    wait_until(warned)
    host.close()
    (file,) = tmp_path.iterdir()
    check_ledger(read_ledger(file), [one.text() for one in host.requests], bytes_drawn=source.drawn)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_leaves_it_alone(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.write(notes(0, 3))
    child = os.fork()
    if not child:
        writer.prepare()
        writer.write(notes(100, 3))
        os._exit(int(writer.pid is not None))
    assert os.waitpid(child, 0)[1] == 0
    writer.write(notes(3, 3))
    assert writer.pid is not None
    writer.end()
    assert len(list(tmp_path.glob(f"*-fork{child}_*.jsonl"))) == 1
    assert numbers_in(tmp_path) == [*range(100, 103), *range(6)]


ENGINE = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_core_outside_writer import notes, writer_in

    writer = writer_in(Path(sys.argv[1]))
    print(writer.pid, flush=True)
    number = 0
    while True:
        writer.write(notes(number, 10))
        number += 10
"""


@pytest.mark.heavy
def test_a_killed_engine_leaves_a_chain_and_no_process(tmp_path: Path) -> None:
    program = textwrap.dedent(ENGINE).format(tests=str(Path(__file__).parent))
    engine = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert engine.stdout is not None
    pid = int(engine.stdout.readline())
    wait_until(lambda: (tmp_path / "run.jsonl").stat().st_size > 10_000)
    engine.kill()
    engine.wait()
    engine.stdout.close()
    wait_until(lambda: not is_there(pid))
    found = numbers_in(tmp_path)
    assert len(found) > 20
    assert found == list(range(len(found)))


@pytest.fixture
def served() -> Iterator[tuple[FileIO, FileIO]]:
    """The engine's ends of the pipes to something that serves in this process."""
    requests, replies = os.pipe(), os.pipe()
    ends = [FileIO(requests[0], "rb"), FileIO(replies[1], "wb")]
    thread = threading.Thread(target=serve, args=ends)
    thread.start()
    ours = FileIO(requests[1], "wb"), FileIO(replies[0], "rb")
    assert receive(ours[1]) == READY
    yield ours
    ours[0].close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    for end in (ours[1], *ends):
        end.close()


def test_every_request_has_a_reply(
    tmp_path: Path, served: tuple[FileIO, FileIO], caplog: pytest.LogCaptureFixture
) -> None:
    def ask(request: Request) -> Reply:
        send(served[0], msgspec.msgpack.encode(request))
        answer = receive(served[1])
        assert answer is not None
        return msgspec.msgpack.decode(answer, type=Reply)

    path = tmp_path / "run.jsonl"
    genesis = b'{"run_id":"run","seal":null}'
    assert ask(Start(os.fsencode(path), genesis, ZERO_HEAD, ["token"], 0, 0, 0.0)).said == []
    ask(Prepare())
    standing = ask(Write([MadeLine("note", b'{"number":1}'), run_of(2)])).standing
    assert standing.totals == {"genesis": 1, "clock": 1, "note": 1, "token": 2}
    assert standing.lines == 5
    path.unlink()
    reply = ask(Prepare())
    assert (reply.standing.files, len(reply.said)) == (1, 1)
    assert reply.said[0][:2] == ("qr_sampler.records.ledger", logging.ERROR)
    ask(Lose("overflow", {"token": 2}, 5))
    assert ask(End()).standing.lost == 7
    lines = chained_lines(tmp_path / "run_0002.jsonl")
    assert [line["kind"] for line in lines] == ["genesis", "clock", "gap", "gap", "close"]
    # Whoever is told nothing more writes nothing more.
    assert lines[-1]["head"] == lines[-1]["prev"]


@pytest.mark.heavy
@pytest.mark.parametrize(("fate", "cut"), [("removed", False), ("cut", True)])
def test_what_was_done_to_the_file_of_a_killed_process_is_missed(
    fate: str, cut: bool, tmp_path: Path
) -> None:
    writer = writer_in(tmp_path)
    writer.write(notes(0, 5))
    path = tmp_path / "run.jsonl"
    head = writer._stands.head
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    if cut:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    else:
        path.unlink()
    writer.prepare()
    writer.write(notes(5, 2))
    assert writer.lost == 6
    writer.end()
    lines = chained_lines(tmp_path / "run_0002.jsonl")
    assert lines[0]["prev"] == head
    (gap,) = [line for line in lines if line["kind"] == "gap"]
    assert (gap["reason"], gap["missing"]) == (fate, {"genesis": 1, "note": 5})


@pytest.mark.heavy
def test_a_name_is_never_used_again_whoever_writes(tmp_path: Path) -> None:
    writer = writer_in(tmp_path, max_bytes=1)
    for number in range(3):
        writer.prepare()
        writer.write(notes(number, 1))
    last = writer.path
    assert writer.pid is not None
    assert last.name > "run_0002.jsonl"
    os.kill(writer.pid, signal.SIGKILL)
    # The owner has put away what is complete.
    for file in tmp_path.iterdir():
        if file != last:
            file.unlink()
    writer.prepare()
    writer.write(notes(3, 1))
    writer.prepare()
    writer.write(notes(4, 1))
    writer.end()
    assert min(file.name for file in tmp_path.iterdir()) == last.name


@pytest.mark.heavy
def test_what_gaps_say_that_wait_for_the_disk_outlives_their_process(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    told: list[int] = []
    writer = writer_in(folder, held=2)
    writer._begun = lambda: told.append(1)
    # Nothing of this is handed to the disk before the process ends.
    writer.lose("overflow", {"token": 500}, 7)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.prepare()
    assert (writer.lost, told) == (500, [])
    writer.write(notes(0, 2))
    writer.end()
    lines = chained_lines(folder / "run.jsonl")
    (gap,) = [line for line in lines if line["kind"] == "gap"]
    assert (gap["reason"], gap["missing"]) == ("overflow", {"token": 500})
    assert gap["since_wall_ns"] == 7
    assert lines[-1]["lost"] == 500


@pytest.mark.heavy
def test_a_file_that_nothing_was_written_to_is_no_link_of_the_chain(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    writer = writer_in(folder)
    writer.write(notes(0, 3))
    head = writer._stands.head
    folder.rename(tmp_path / "away")
    folder.write_text("in the way", "utf-8")
    writer.prepare()
    writer.write(notes(3, 3))
    assert (writer.path.name, writer._stands.lines) == ("run_0002.jsonl", 0)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.prepare()
    folder.unlink()
    writer.prepare()
    writer.write(notes(6, 3))
    writer.end()
    (file,) = folder.iterdir()
    first = chained_lines(file)[0]
    assert (first["kind"], first["prev"]) == ("genesis", head)
    continues = writer._writer.continues
    assert continues is not None
    assert (continues.file, continues.lines) == ("run.jsonl", 4)


@pytest.mark.heavy
def test_a_file_that_cannot_be_read_after_its_process_gets_no_line_out_of_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_in(tmp_path, held=10)
    writer.write(notes(0, 3))
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    with monkeypatch.context() as patched:
        patched.setattr("qr_sampler.records.files.writer.standing_of", no_more_descriptors)
        writer.prepare()
        writer.write(notes(3, 3))
        assert writer.refuses
    writer.prepare()
    writer.write(notes(6, 3))
    writer.end()
    assert (writer.lost, numbers_in(tmp_path)) == (0, list(range(9)))


def no_more_descriptors(path: Path) -> None:
    raise OSError(24, "Too many open files")


@pytest.mark.heavy
def test_nobody_at_its_start_can_speak_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("print('hello, world')", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])
    writer = writer_in(tmp_path)
    writer.write(notes(0, 3))
    assert writer.pid is not None
    writer.end()
    assert numbers_in(tmp_path) == list(range(3))


@pytest.mark.parametrize(("executable", "frozen"), [("", False), (sys.executable, True)])
def test_a_program_without_an_interpreter_is_not_started_again(
    executable: str, frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    with pytest.raises(ProcessEndedError, match="no interpreter of its own"):
        WriterProcess()


def test_what_is_no_message_is_not_waited_for() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"no message")
    os.close(theirs)
    with FileIO(ours, "rb") as pipe, pytest.raises(OSError, match="was announced"):
        receive(pipe)


@pytest.mark.heavy
def test_descriptors_of_the_engine_stay_with_it(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not tell of descriptors")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        os.set_inheritable(listening.fileno(), True)
        writer = writer_in(tmp_path)
        links = [str(each.readlink()) for each in Path(f"/proc/{writer.pid}/fd").iterdir()]
        writer.end()
    assert not [link for link in links if link.startswith("socket:")]
    assert sum(link.startswith("pipe:") for link in links[3:]) <= 1


@pytest.mark.heavy
def test_engines_go_on_while_their_process_is_stopped(tmp_path: Path) -> None:
    source = SeededBytes(0)
    session = session_of(source, tmp_path, ledger_queue=1024, ledger_required=True)
    host = ToyHost(session)
    while outside(session).pid is None:
        session.write()
        time.sleep(0.01)
    pid = outside(session).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    for _ in range(4):
        host.add(100_000)

    def refused() -> bool:
        host.step()
        return not host.running

    # Nothing but the ledger ends a request of this length.
    wait_until(refused)
    assert not session._handover.flush(0.1)
    os.kill(pid, signal.SIGCONT)
    host.close()
    (file,) = tmp_path.glob("*.jsonl")
    lines = chained_lines(file)
    assert {line["reason"] for line in lines if line["kind"] == "forced"} == {"ledger"}
    assert lines[-1]["kind"] == "close"
    assert not [line for line in lines if line["kind"] == "gap"]
