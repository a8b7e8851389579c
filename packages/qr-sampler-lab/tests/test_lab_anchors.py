# SPDX-License-Identifier: Apache-2.0
"""Ledgers that grow are stamped by a real authority, told of real rounds, and kept elsewhere."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler import Settings
from qr_sampler.errors import ConfigError
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.chain import head_of, line_of
from qr_sampler.testing import ToyHost
from qr_sampler_cli.audit.anchors.drand import CHAIN
from qr_sampler_cli.audit.anchors.files import AnchorFile, anchor_files
from qr_sampler_cli.audit.anchors.timestamps import TimeStampAuthorities
from qr_sampler_cli.main import app
from qr_sampler_cli.testing.time_stamping import LocalAuthority, has_openssl
from qr_sampler_lab.anchors.anchoring import Anchoring
from qr_sampler_lab.anchors.drand import latest_round, round_after, round_of
from qr_sampler_lab.anchors.fetching import LARGEST_ANSWER, AnchorError, Fetcher
from qr_sampler_lab.anchors.heads import GrowingFile

needs_openssl = pytest.mark.skipif(not has_openssl(), reason="this machine has no openssl")

# What api.drand.sh/52db9ba7…/public/N answers.
ROUNDS = {
    1000: (
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125"
        "e342b73a8dd2bacbe47e4b6b63ed5e39"
    ),
    1001: (
        "b33bf3667cbd5a82de3a24b4e0e9fe5513cc1a0e840368c6e31f5fcfa79bea03"
        "f73896b25883abf2853d10337fb8fa41"
    ),
}

Answer = tuple[int, dict[str, str], bytes]
Answers = Callable[[str, bytes], Answer]


@pytest.fixture
def web() -> Iterator[Callable[[Answers], str]]:
    """Starts servers that answer what a function of path and content says."""
    with ExitStack() as running:

        def start(answers: Answers) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    content = self.rfile.read(int(self.headers.get("content-length", 0)))
                    status, headers, body = answers(self.path, content)
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                do_POST = do_GET  # noqa: N815 - the name is that of the method

                def log_message(self, *_arguments: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            running.callback(server.server_close)
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


def ok(body: bytes) -> Answer:
    return 200, {}, body


def drand(path: str, _content: bytes) -> Answer:
    """Answers as a server of drand that knows two rounds."""
    *_, chain, public, which = path.split("/")
    number = max(ROUNDS) if which == "latest" else int(which)
    if (chain, public) != (CHAIN, "public") or number not in ROUNDS:
        return 404, {}, b"{}"
    return ok(json.dumps({"round": number, "signature": ROUNDS[number]}).encode())


class Growing:
    """A ledger that a test writes line by line."""

    def __init__(self, path: Path) -> None:
        self.path, self.n, self.head = path, 0, "0" * 64
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def add(self, kind: str = "note", **fields: Any) -> bytes:
        line = line_of(kind, self.n, self.head, {"at": time.time(), **fields})
        self.n, self.head = self.n + 1, head_of(line)
        with self.path.open("ab") as file:
            file.write(line + b"\n")
        return line


@pytest.fixture
def ledger(tmp_path: Path) -> Growing:
    growing = Growing(tmp_path / "ledgers" / "run.jsonl")
    growing.add("genesis")
    return growing


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tsa(web: Any, authority: LocalAuthority) -> str:
    """The address of the authority."""
    return str(web(lambda path, content: ok(authority.reply(content))))


def stamps_of(path: Path) -> list[AnchorFile]:
    found = list(anchor_files(path.with_suffix(".anchors")))
    assert all(isinstance(each, AnchorFile) for each in found)
    return [each for each in found if isinstance(each, AnchorFile)]


@needs_openssl
def test_every_new_head_is_stamped_once(
    ledger: Growing, tsa: str, authority: LocalAuthority
) -> None:
    anchoring = Anchoring([ledger.path], tsa=tsa)
    heads = []
    for _ in range(3):
        ledger.add(text="\u2028 and more")
        heads.append(ledger.head)
        assert anchoring.once()
        assert anchoring.once()
    anchoring.close()
    found = stamps_of(ledger.path)
    assert [each.head for each in found] == heads
    assert [each.n for each in found] == [1, 2, 3]
    trusted = TimeStampAuthorities(authority.root)
    for each in found:
        stamp = trusted.verify(each.token.read_bytes(), each.head)
        assert abs(stamp.not_after_ns - time.time_ns()) < 600 * 10**9
        assert stat.S_IMODE(each.path.stat().st_mode) == 0o600
    told = json.loads(found[0].path.read_text())
    assert (told["kind"], told["ledger"], told["lines"]) == ("tsa", "run.jsonl", 2)


@needs_openssl
def test_files_of_a_directory_and_those_that_continue_one(
    ledger: Growing, tsa: str, tmp_path: Path
) -> None:
    folder = ledger.path.parent
    ledger.path.with_name("run.prompts.jsonl").write_text('{"kind":"salt"}\n')
    by_folder, by_name = Anchoring([folder], tsa=tsa), Anchoring([ledger.path], tsa=tsa)
    for anchoring in (by_folder, by_name):
        assert anchoring.once()
    Growing(folder / "run_0002.jsonl").add("genesis")
    Growing(folder / "other.jsonl").add("genesis")
    assert by_folder.once()
    assert by_folder.stamps == 3
    assert by_name.once()
    assert by_name.stamps == 2
    assert not (folder / "run.prompts.anchors").exists()


def test_heads_are_those_of_whole_lines(ledger: Growing) -> None:
    file = GrowingFile(ledger.path)
    for _ in range(5):
        line = ledger.add()
        head = file.head()
        assert head is not None
        assert (head.n, head.digest, head.line) == (ledger.n - 1, ledger.head, line)
        assert not head.closes
    with ledger.path.open("ab") as out:
        out.write(b'{"kind":"not')
        out.flush()
        assert file.head() == head
        # What a write cut short has left is no line.
        out.write(b"\n")
        out.flush()
        assert file.head() == head
    ledger.add("close")
    last = file.head()
    assert last is not None
    assert (last.digest, last.closes) == (ledger.head, True)


def test_a_file_that_was_replaced_is_read_anew(
    ledger: Growing, caplog: pytest.LogCaptureFixture
) -> None:
    file = GrowingFile(ledger.path)
    ledger.add()
    file.head()
    ledger.path.write_bytes(ledger.path.read_bytes().split(b"\n")[0] + b"\n")
    head = file.head()
    assert head is not None
    assert head.n == 0
    assert "was replaced or cut short" in caplog.text


def test_files_that_are_no_ledgers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GrowingFile(tmp_path / "none").head()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        GrowingFile(tmp_path / "pipe").head()
    (tmp_path / "long").write_bytes(b"x" * (2**23 + 2**20))
    with pytest.raises(ValueError, match="a line of more than"):
        GrowingFile(tmp_path / "long").head()
    (tmp_path / "noise").write_bytes(b"\xff\n[]\n{}\n")
    assert GrowingFile(tmp_path / "noise").head() is None


def test_rounds_are_verified(web: Any, tmp_path: Path) -> None:
    url = web(drand)
    assert latest_round(url).round == 1001
    assert round_of(1000, url).signature == ROUNDS[1000]
    file = tmp_path / "round.json"
    file.write_text(json.dumps(round_of(1000, url).as_dict()))
    assert latest_round(file=file) == round_of(1000, url)
    assert round_after(latest_round(file=file).time_ns) == 1001
    with pytest.raises(AnchorError, match="the status 404"):
        round_of(7, url)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (b"", "does not answer with JSON"),
        (b"[" * 50_000, "does not answer with JSON"),
        (b"[]", "no round of the beacon"),
        (json.dumps({"round": 1000, "signature": ROUNDS[1001]}).encode(), "this signature"),
        (b"x" * (LARGEST_ANSWER + 1), "more than 65536 bytes"),
    ],
)
def test_what_is_no_round_is_refused(web: Any, tmp_path: Path, told: bytes, words: str) -> None:
    url = web(lambda path, content: ok(told))
    with pytest.raises(AnchorError, match=words):
        latest_round(url)
    file = tmp_path / "round.json"
    file.write_bytes(told)
    with pytest.raises(AnchorError):
        latest_round(file=file)


def test_another_round_than_was_asked_for_is_refused(web: Any, tmp_path: Path) -> None:
    url = web(lambda path, content: drand(f"/{CHAIN}/public/1000", content))
    with pytest.raises(AnchorError, match="tells of round 1000 instead of 1001"):
        round_of(1001, url)
    with pytest.raises(AnchorError, match="cannot be read"):
        latest_round(file=tmp_path / "none")


def test_redirections_keep_their_scheme(web: Any) -> None:
    def answers(path: str, content: bytes) -> Answer:
        if path == "/there":
            return ok(b"here")
        if path == "/around":
            return 302, {"location": "/around"}, b""
        return 302, {"location": "/there" if path == "/go" else "https://127.0.0.1:1/"}, b""

    url, fetcher = web(answers), Fetcher(5.0)
    assert fetcher.get(f"{url}/go") == b"here"
    with pytest.raises(AnchorError, match="redirects to https, which is refused"):
        fetcher.get(f"{url}/away")
    with pytest.raises(AnchorError, match="more than 3 times"):
        fetcher.get(f"{url}/around")
    for address in ("file:///etc/passwd", "api.drand.sh", "ftp://x", "http://", "https://[::"):
        with pytest.raises(ConfigError, match="is no address"):
            fetcher.checked("--tsa", address)
    fetcher.close()


def test_an_answer_that_does_not_come_is_not_waited_for(web: Any) -> None:
    held = threading.Event()

    def answers(path: str, content: bytes) -> Answer:
        held.wait(60)
        return ok(b"")

    fetcher = Fetcher(0.2)
    with pytest.raises(AnchorError, match="cannot be asked"):
        fetcher.get(web(answers))
    held.set()


def test_the_writer_of_a_ledger_is_told_of_the_beacon(ledger: Growing, web: Any) -> None:
    anchoring = Anchoring([ledger.path], drand=web(drand))
    assert anchoring.once()
    assert Anchoring([ledger.path.parent], drand=web(drand)).once()
    beacon = ledger.path.with_suffix(".anchors") / "beacon.json"
    told = json.loads(beacon.read_text())
    assert (told["kind"], told["round"], told["chain"]) == ("drand", 1001, CHAIN)
    beacon.unlink()
    ledger.add("close")
    assert anchoring.once()
    assert anchoring.once()
    # Nobody writes it any more.
    assert list(beacon.parent.iterdir()) == []


@needs_openssl
def test_a_stamp_of_something_else_is_not_kept(
    ledger: Growing, web: Any, authority: LocalAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    old = authority.stamp(ledger.head)
    for answer, words in (
        (authority.stamp("00" * 32), "has stamped something else"),
        (old, "its nonce is another one"),
        (old[:200], "cannot be read"),
        (b"", "cannot be read"),
    ):
        anchoring = Anchoring([ledger.path], tsa=web(lambda path, content, told=answer: ok(told)))
        assert not anchoring.once()
        assert words in caplog.text
        caplog.clear()
        assert stamps_of(ledger.path) == []


@needs_openssl
def test_an_authority_with_certificates_out_of_order_is_asked_for_none(
    ledger: Growing, web: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    talkative = LocalAuthority(tmp_path / "talkative", names_chain=True)
    anchoring = Anchoring(
        [ledger.path], tsa=web(lambda path, content: ok(talkative.reply(content)))
    )
    assert anchoring.once()
    assert "not in the order that DER asks for" in caplog.text
    (found,) = stamps_of(ledger.path)
    both = tmp_path / "both.pem"
    both.write_bytes(talkative.root.read_bytes() + talkative.signer.read_bytes())
    assert TimeStampAuthorities(both).verify(found.token.read_bytes(), found.head)


@needs_openssl
def test_passwords_in_addresses_are_told_nobody(
    ledger: Growing, tsa: str, web: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    secret = tsa.replace("://", "://me:hunter2@")
    assert Anchoring([ledger.path], tsa=secret).once()
    (found,) = stamps_of(ledger.path)
    assert json.loads(found.path.read_text())["url"] == tsa
    ledger.add()
    nobody = "http://me:hunter2@127.0.0.1:1"
    broken = web(lambda path, content: ok(b"{}")).replace("://", "://me:hunter2@")
    for place in ({"tsa": nobody}, {"drand": broken}, {"deposit": f"{nobody}/x.git"}):
        anchoring = Anchoring([ledger.path], **place)
        assert not anchoring.once()
        anchoring.close()
    with pytest.raises(ConfigError) as caught:
        Anchoring([ledger.path], drand="ftp://me:hunter2@example.org")
    assert caplog.text.count("no outside witness for now") == 3
    assert "hunter2" not in caplog.text + str(caught.value)


def test_without_a_network_it_warns_once_and_goes_on(
    ledger: Growing, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = "http://127.0.0.1:1"
    anchoring = Anchoring([ledger.path], tsa=nobody, drand=nobody)
    for _ in range(3):
        ledger.add()
        assert not anchoring.once()
    warnings = [record.getMessage() for record in caplog.records]
    assert len([text for text in warnings if "no outside witness for now" in text]) == 2


@needs_openssl
def test_a_trouble_that_is_over_is_told(
    ledger: Growing, web: Any, authority: LocalAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True]
    url = web(lambda path, content: (503, {}, b"") if broken[0] else ok(authority.reply(content)))
    anchoring = Anchoring([ledger.path], tsa=url)
    assert not anchoring.once()
    broken[0] = False
    assert anchoring.once()
    assert "the time stamps: works again" in caplog.text


@needs_openssl
def test_a_deposit_in_a_directory(ledger: Growing, tsa: str, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "deposit"
    anchoring = Anchoring([ledger.path], tsa=tsa, deposit=str(place))
    assert anchoring.once()
    assert not (place / "run.jsonl").exists()
    ledger.add("close")
    assert anchoring.once()
    anchoring.close()
    assert (place / "run.jsonl").read_bytes() == ledger.path.read_bytes()
    here, there = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (ledger.path.with_suffix(".anchors"), place / "run.anchors")
    )
    assert here == there
    assert len(there) == 4
    # A ledger has token ids, which are their owner's.
    assert stat.S_IMODE((place / "run.jsonl").stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place / "run.anchors").iterdir()} == {
        0o600
    }
    # What has been deposited is not changed afterwards.
    ledger.path.write_bytes(b"")
    again = Anchoring([ledger.path], deposit=str(place))
    assert again.once()
    assert (place / "run.jsonl").stat().st_size > 0


@needs_openssl
@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform != "linux",
    reason="root may do anything",
)
def test_a_deposit_that_refuses_stops_nothing(
    ledger: Growing, tsa: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "deposit"
    anchoring = Anchoring([ledger.path], tsa=tsa, deposit=str(place))
    # A file stands where the directory of the anchors has to be.
    (place / "run.anchors").write_bytes(b"")
    for _ in range(2):
        ledger.add()
        assert not anchoring.once()
    assert anchoring.stamps == 2
    assert caplog.text.count("the deposit: no outside witness for now") == 1
    with pytest.raises(ConfigError, match="--deposit="):
        Anchoring([ledger.path], deposit=str(place / "run.anchors" / "below"))


def git(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["git", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@needs_openssl
def test_a_deposit_in_a_git_repository(ledger: Growing, tsa: str, tmp_path: Path) -> None:
    remote = tmp_path / "deposit.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", remote)
    first, second = (Anchoring([ledger.path], tsa=tsa, deposit=str(remote)) for _ in range(2))
    assert first.once()
    ledger.add()
    # Two laboratories may use one repository.
    assert second.once()
    ledger.add("close")
    assert first.once()
    for anchoring in (first, second):
        anchoring.close()
    copy = tmp_path / "copy"
    git("clone", "--quiet", remote, copy)
    assert (copy / "run.jsonl").read_bytes() == ledger.path.read_bytes()
    assert len(list((copy / "run.anchors").glob("*.tsr"))) == 3
    assert len(git("-C", copy, "log", "--format=%s").splitlines()) == 3


@needs_openssl
def test_a_git_repository_that_refuses_is_asked_again(
    ledger: Growing, tsa: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = tmp_path / "late.git"
    anchoring = Anchoring([ledger.path], tsa=tsa, deposit=str(remote))
    assert not anchoring.once()
    assert "git says:" in caplog.text
    git("init", "--quiet", "--bare", "--initial-branch=main", remote)
    assert anchoring.once()
    anchoring.close()
    assert git("-C", remote, "ls-tree", "-r", "--name-only", "main").count(".tsr") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nobody is named who could witness"),
        ({"drand": "https://x", "every_s": 0.5}, "once a second at most"),
        ({"drand": "https://x", "every_s": float("nan")}, "once a second at most"),
        ({"drand": "x"}, "is no address"),
        ({"tsa": "x"}, "is no address"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Anchoring([tmp_path], **arguments)


def test_nothing_to_anchor_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to anchor"):
        Anchoring([], drand="https://x")


@needs_openssl
def test_in_a_thread_it_ends_with_a_last_stamp(ledger: Growing, tsa: str) -> None:
    with Anchoring([ledger.path], tsa=tsa, every_s=3600.0) as anchoring:
        deadline = time.monotonic() + 60
        while not anchoring.stamps and time.monotonic() < deadline:
            time.sleep(0.01)
        ledger.add("close")
    assert [each.n for each in stamps_of(ledger.path)] == [0, 1]


@needs_openssl
def test_the_command(ledger: Growing, tsa: str, web: Any) -> None:
    result = CliRunner().invoke(
        app, ["anchor", str(ledger.path), "--tsa", tsa, "--drand", web(drand), "--once"]
    )
    assert result.exit_code == 0, result.output
    assert "1 time stamps" in result.output
    assert len(stamps_of(ledger.path)) == 1
    result = CliRunner().invoke(
        app, ["anchor", str(ledger.path), "--tsa", "http://127.0.0.1:1", "--once"]
    )
    assert result.exit_code == 2


@needs_openssl
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_in_order(
    ledger: Growing, tsa: str, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "qr_sampler_cli", "anchor", str(ledger.path), "--tsa", tsa]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not stamps_of(ledger.path) and time.monotonic() < deadline:
            time.sleep(0.02)
        ledger.add("close")
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "2 time stamps\n")
    assert [each.n for each in stamps_of(ledger.path)] == [0, 1]
    assert hashlib.sha256(ledger.path.read_bytes().split(b"\n")[1]).hexdigest() == ledger.head


def test_nothing_is_logged_of_what_works(
    ledger: Growing, web: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Anchoring([ledger.path], drand=web(drand)).once()
    assert caplog.records == []


@needs_openssl
def test_a_deposit_that_is_full_is_tried_again(
    ledger: Growing, tsa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "deposit"
    anchoring = Anchoring([ledger.path], tsa=tsa, deposit=str(place))
    copyfile, room = shutil.copyfile, [100]

    def nearly_full(source: Path, target: Path) -> Path:
        copyfile(source, target)
        if target.stat().st_size > room[0]:
            os.truncate(target, room[0])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return target

    monkeypatch.setattr(shutil, "copyfile", nearly_full)
    assert not anchoring.once()
    # Nothing that is not whole is left there.
    assert [path for path in place.rglob("*") if path.is_file()] == []
    room[0] = 10**9
    assert anchoring.once()
    assert len(list(place.rglob("*.tsr"))) == 1


@needs_openssl
def test_a_real_ledger_is_bracketed_by_others(
    tmp_path: Path, tsa: str, web: Any, authority: LocalAuthority
) -> None:
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(entropy_source_type="system", ledger_dir=tmp_path / "ledgers"),
    )
    anchoring = Anchoring([tmp_path / "ledgers"], tsa=tsa, drand=web(drand))
    assert anchoring.once()
    host = ToyHost(session)
    host.add(30)
    for _ in range(20):
        host.step()
    host.flush()
    assert anchoring.once()
    while host.running:
        host.step()
    session.close()
    assert anchoring.once()
    arguments = ["audit", str(tmp_path / "ledgers"), "--json"]
    arguments += ["--tsa-certificates", str(authority.root)]
    told = json.loads(CliRunner().invoke(app, arguments).stdout)
    (run,) = told["runs"]
    assert [rung["failures"] for rung in run["rungs"]] == [[]] * 6
    rung = run["rungs"][4]
    first, *later = rung["notes"]
    assert "after a time that nothing tells" in first
    # Round 1001 is three seconds after round 1000.
    assert len(later) == 2
    assert "were written after 2023-08-23 15:59:27 UTC and before 20" in later[1]
    unsaid = [each["what"] for each in rung["cannot_be_said"]]
    assert "after when the first lines were written: no round of a beacon is before them" in unsaid
    assert not any("before when" in what for what in unsaid)
