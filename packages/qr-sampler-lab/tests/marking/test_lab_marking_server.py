# SPDX-License-Identifier: Apache-2.0
"""Marks over real sockets: what is written, what is shown, and within which bounds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.files.locking import locked
from qr_sampler_lab.experiments.marking.bounds import RateLimit
from qr_sampler_lab.experiments.marking.page import MOST_BUTTONS, page_with
from qr_sampler_lab.experiments.marking.server import MOST_CONNECTIONS

MakeSite = Callable[..., Any]

HOSTILE = "</button><script>alert('1 & \"2\"')</script>"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a journal, whose chain is checked by hand."""
    lines = path.read_bytes().splitlines()
    values = [json.loads(line) for line in lines]
    for before, after in zip(lines, values[1:], strict=False):
        assert after["prev"] == hashlib.sha256(before).hexdigest()
    return values


def test_a_mark_is_a_line_of_the_journal_with_both_clocks(make_site: MakeSite) -> None:
    site = make_site()
    before = time.time_ns(), time.monotonic_ns()
    first = site.ask("POST", body="  the door opened, 21.5 °C\n")
    second = site.ask(
        "POST", body=b'{"text": "HI\\n\\u00e9"}', headers={"Content-Type": "application/json"}
    )
    after = time.time_ns(), time.monotonic_ns()
    assert (first.status, second.status) == (201, 201)
    lines = lines_of(site.journal)
    assert [line.get("text") for line in lines] == [None, "the door opened, 21.5 °C", "HI\né"]
    for line in lines[1:]:
        assert line["kind"] == "mark"
        assert before[0] <= line["wall_time_ns"] <= after[0]
        assert before[1] <= line["monotonic_ns"] <= after[1]
    head = hashlib.sha256(site.journal.read_bytes().splitlines()[-1]).hexdigest()
    assert json.loads(second.text) == {"n": 2, "head": head}
    assert site.told == [
        f"127.0.0.1: mark {line['n']}, head {told['head']}"
        for line, told in zip(lines[1:], map(json.loads, (first.text, second.text)), strict=True)
    ]


def test_curl_marks_too(make_site: MakeSite) -> None:
    site = make_site()
    command = ["curl", "-sS", "--fail", "-H", "Content-Type: text/plain", "-d", "by curl"]
    told = subprocess.run(
        [*command, f"http://localhost:{site.port}/mark"], capture_output=True, check=True
    )
    assert json.loads(told.stdout)["n"] == 1
    assert site.marks() == ["by curl"]


class Elements(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.attributes += attrs
        self.found.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[self._open][-1] += data


def test_the_page_loads_nothing_and_its_policy_knows_it(make_site: MakeSite) -> None:
    page = make_site(buttons=("heating on", HOSTILE)).ask("GET", "/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    elements = Elements(page.text)
    assert elements.found["button"] == ["heating on", HOSTILE, "Mark"]
    policy = dict(
        part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    for tag in ("script", "style"):
        (content,) = elements.found[tag]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    names = {name for name, _ in elements.attributes}
    assert not names & {"src", "href", "style", "action"}
    assert not any(name.startswith("on") for name in names)
    assert not re.search("https?://|innerHTML|eval|Storage|cookie|document.write", page.text)


@pytest.mark.parametrize("key", [None, "0123456789abcdef"])
def test_the_page_asks_for_a_key_if_there_is_one(make_site: MakeSite, key: str | None) -> None:
    page = make_site(key=key).ask("GET", "/").text
    assert ('<div id="key-field" hidden>' in page) == (key is None)
    assert "0123456789abcdef" not in page
    head = make_site(key=key).ask("HEAD", "/")
    assert (head.status, head.text, head.headers["Content-Length"]) == (200, "", str(len(page)))


def test_labels_are_few_printable_texts() -> None:
    for labels in (["ok"] * (MOST_BUTTONS + 1), [" "], ["x" * 201], ["a\x1b[2J"]):
        with pytest.raises(ConfigError, match="button"):
            page_with(labels, with_key=False)


def test_two_marks_at_once_while_another_process_appends(make_site: MakeSite) -> None:
    site = make_site()
    with ThreadPoolExecutor(2) as both:
        with locked(site.journal, create=False):
            answers = [both.submit(site.ask, "POST", body=text) for text in ("left", "right")]
            time.sleep(0.2)
            assert not any(answer.done() for answer in answers)
        assert [answer.result().status for answer in answers] == [201, 201]
    assert sorted(site.marks()) == ["left", "right"]
    assert [line["n"] for line in lines_of(site.journal)] == [0, 1, 2]


def test_marks_and_the_lines_of_a_run_take_turns(make_site: MakeSite) -> None:
    site = make_site(rate=RateLimit(1000))
    run = Journal(site.journal)
    run.ordered("secret", commitment="")
    run.begun()
    with ThreadPoolExecutor(4) as several:
        answers = [several.submit(site.ask, "POST", body=f"mark {n}") for n in range(12)]
        for session in range(6):
            run.session_begun(session)
            run.session_ended(session, requests={}, tokens={})
        assert {answer.result().status for answer in answers} == {201}
    assert sorted(site.marks()) == sorted(f"mark {n}" for n in range(12))
    assert len(lines_of(site.journal)) == 3 + 12 + 12


def test_a_journal_that_is_held_is_waited_for_only_so_long(make_site: MakeSite) -> None:
    site = make_site(wait_s=0.1)
    with locked(site.journal, create=False):
        answer = site.ask("POST", body="late")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert str(site.journal) not in answer.text
    assert str(site.journal) in site.told[0]
    assert site.marks() == []
    assert site.ask("POST", body="now").status == 201


def test_a_journal_that_was_changed_takes_no_marks(make_site: MakeSite) -> None:
    site = make_site()
    assert site.ask("POST", body="one").status == 201
    site.journal.write_bytes(site.journal.read_bytes().replace(b"one", b"two"))
    answer = site.ask("POST", body="three")
    assert answer.status == 503
    assert str(site.journal) not in answer.text
    assert b"three" not in site.journal.read_bytes()


def test_a_study_that_is_over_takes_no_marks(make_site: MakeSite) -> None:
    site = make_site()
    Journal(site.journal).aborted("the effect was clear")
    answer = site.ask("POST", body="late")
    assert (answer.status, answer.text) == (
        409,
        "the study is aborted; nothing more happens to it.\n",
    )
    assert "the effect" not in answer.text
    # An operator, who sees more, can say what happened afterwards.
    Journal(site.journal).mark("swept up")
    assert site.marks() == ["swept up"]


def test_ten_marks_a_second_are_the_most(make_site: MakeSite) -> None:
    now = [0.0]
    limit = RateLimit(10, clock=lambda: now[0])
    site = make_site(rate=limit)
    told = [site.ask("POST", body=f"mark {n}") for n in range(12)]
    assert [answer.status for answer in told] == [201] * 10 + [429] * 2
    assert told[-1].headers["Retry-After"] == "1"
    now[0] = 0.999
    assert site.ask("POST", body="still").status == 429
    now[0] = 1.0
    assert site.ask("POST", body="again").status == 201
    assert len(site.marks()) == 11


def test_the_rate_holds_in_every_second() -> None:
    now = [0.0]
    limit = RateLimit(3, clock=lambda: now[0])
    times = []
    for step in range(400):
        now[0] = step / 100
        if limit.admits():
            times.append(now[0])
    assert all(later - earlier >= 1.0 for earlier, later in zip(times, times[3:], strict=False))
    assert len(times) == 12


def test_who_sends_slowly_is_cut_off(make_site: MakeSite) -> None:
    site = make_site(request_timeout_s=0.3)
    with site.connect() as slow:
        slow.settimeout(0.05)
        cut_off = False
        for byte in b"POST /mark HTTP/1.1\r\nX: " + b"y" * 400:
            try:
                slow.sendall(bytes([byte]))
                cut_off = not slow.recv(1)
            except TimeoutError:
                continue
            except OSError:
                cut_off = True
            if cut_off:
                break
        # Each pause was far shorter than the limit, and all of them together much longer.
        assert cut_off
    with site.connect() as silent:
        silent.sendall(b"POST /mark HTTP/1.1\r\n")
        silent.settimeout(10)
        assert site.received(silent) == b""
    assert site.ask("GET", "/").status == 200


def test_a_few_connections_at_once(make_site: MakeSite) -> None:
    site = make_site()
    with ExitStack() as idle:
        connections = [idle.enter_context(site.connect()) for _ in range(MOST_CONNECTIONS)]
        with site.connect() as one_more:
            assert site.received(one_more) == b""
        connections.pop().close()
        for _ in range(100):
            if answered := site.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                break
            time.sleep(0.05)
        assert answered.startswith(b"HTTP/1.1 200 ")


def test_whatever_comes_the_server_goes_on(
    make_site: MakeSite, capfd: pytest.CaptureFixture[str]
) -> None:
    site = make_site()
    for data, status in {
        b"": b"",
        b"\x00\xff\xfe\r\n\r\n": b"HTTP/1.1 400 ",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 500: b"HTTP/1.1 400 ",
        b"GET / HTTP/9.9\r\n\r\n": b"HTTP/1.1 505 ",
        b"GET /\r\n\r\n": b"HTTP/1.1 400 ",
        b"G" * 70_000: b"HTTP/1.1 431 ",
        b"GET / HTTP/1.1\r\nCookie: " + b"c" * 40_000 + b"\r\n\r\n": b"HTTP/1.1 431 ",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n": b"HTTP/1.1 431 ",
        b"PUT /mark HTTP/1.1\r\nHost: localhost\r\n\r\n": b"HTTP/1.1 501 ",
        b"OPTIONS /mark HTTP/1.1\r\nHost: localhost\r\n\r\n": b"HTTP/1.1 501 ",
        b"POST /mark HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n4": b"HTTP/1.1 400 ",
    }.items():
        assert site.send(data)[: len(status)] == status, data[:40]
    with site.connect() as rude:
        # Closing ends with a reset.
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        rude.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert site.ask("POST", body="still here").status == 201
    assert site.marks() == ["still here"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_body_that_is_too_large_is_told_so(make_site: MakeSite) -> None:
    site = make_site()
    assert site.ask("POST", body="x" * 4096).status == 201
    assert site.ask("POST", body="x" * 4097).status == 413
    assert site.ask("POST", body="x" * 20_000).status == 413
    with site.connect() as eager:
        eager.sendall(b"POST /mark HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n")
        assert eager.recv(12) == b"HTTP/1.1 413"
        # It has not noticed the answer, and can send on.
        for _ in range(5):
            eager.sendall(b"x" * 1000)
            time.sleep(0.01)
        eager.shutdown(socket.SHUT_WR)
        assert site.received(eager).endswith(b"bytes are the most.\n")


def test_marks_under_way_are_written_before_the_end(make_site: MakeSite, journal: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="is about POSIX")
    site = make_site()
    with ThreadPoolExecutor(1) as client, locked(journal, create=False) as descriptor:
        answer = client.submit(site.ask, "POST", body="just in time")
        while not site.server._open:
            time.sleep(0.01)
        time.sleep(0.2)
        silent = site.connect()
        stopping = threading.Thread(target=site.server.stop)
        stopping.start()
        assert site.received(silent) == b""
        silent.close()
        stopping.join(0.3)
        assert stopping.is_alive()
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        assert answer.result().status == 201
        stopping.join(20)
        assert not stopping.is_alive()
    assert site.marks() == ["just in time"]
    with pytest.raises(OSError, match=r"[Rr]efused"):
        site.connect()
