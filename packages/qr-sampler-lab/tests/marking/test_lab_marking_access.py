# SPDX-License-Identifier: Apache-2.0
"""Who may write marks, from where, and in which form."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.marking.bounds import RateLimit
from qr_sampler_lab.experiments.marking.key import MarkKey
from qr_sampler_lab.experiments.marking.page import page_with
from qr_sampler_lab.experiments.marking.place import Place, check_exposure, tls_context
from qr_sampler_lab.experiments.marking.server import MarkServer
from qr_sampler_lab.experiments.marking.writer import MarkWriter

MakeSite = Callable[..., Any]
Pair = tuple[Path, Path]

KEY = "a-key-of-nobody-else"
PLAIN = "Content-Type: text/plain"
JSON = "Content-Type: application/json"

REFUSED: dict[str, tuple[list[str], bytes, int]] = {
    "a name that resolves to here": (["Host: evil.example", PLAIN], b"x", 421),
    "that name with our port": (["Host: evil.example:8765", PLAIN], b"x", 421),
    "a name like ours": (["Host: localhost.evil.example", PLAIN], b"x", 421),
    "another machine": (["Host: 192.0.2.7", PLAIN], b"x", 421),
    "no host": ([PLAIN], b"x", 400),
    "an empty host": (["Host:", PLAIN], b"x", 400),
    "a host with more": (["Host: localhost/evil", PLAIN], b"x", 400),
    "two hosts": (["Host: localhost", "Host: evil.example", PLAIN], b"x", 400),
    "a page of another site": (
        ["Host: localhost", "Origin: http://evil.example", PLAIN],
        b"x",
        403,
    ),
    "a page without a site": (["Host: localhost", "Origin: null", PLAIN], b"x", 403),
    "another port": (["Host: localhost:1", "Origin: http://localhost:2", PLAIN], b"x", 403),
    "another scheme": (["Host: localhost", "Origin: https://localhost", PLAIN], b"x", 403),
    "another site": (["Host: localhost", "Sec-Fetch-Site: cross-site", PLAIN], b"x", 403),
    "a sibling": (["Host: localhost", "Sec-Fetch-Site: same-site", PLAIN], b"x", 403),
    "two origins": (["Host: localhost", "Origin: null", "Origin: http://localhost"], b"x", 400),
    "a form": (["Host: localhost", "Content-Type: application/x-www-form-urlencoded"], b"x", 415),
    "no type": (["Host: localhost"], b"x", 415),
    "another alphabet": (["Host: localhost", f"{PLAIN}; charset=utf-16"], b"x", 415),
    "two types": (["Host: localhost", PLAIN, JSON], b"x", 400),
    "no text": (["Host: localhost", PLAIN], b"", 400),
    "space": (["Host: localhost", PLAIN], b" \n\t", 400),
    "no UTF-8": (["Host: localhost", PLAIN], b"\xff", 400),
    "no JSON": (["Host: localhost", JSON], b"text", 400),
    "too deep": (["Host: localhost", JSON], b"[" * 4096, 400),
    "a list": (["Host: localhost", JSON], b'["text"]', 400),
    "another key": (["Host: localhost", JSON], b'{"text": "x", "n": 7}', 400),
    "a number": (["Host: localhost", JSON], b'{"text": 7}', 400),
    "half a character": (["Host: localhost", JSON], b'{"text": "\\ud800"}', 400),
}


def post(headers: list[str], body: bytes, path: str = "/mark") -> bytes:
    """Returns a request as it travels."""
    lines = [f"POST {path} HTTP/1.1", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_what_is_refused_is_not_in_the_journal(make_site: MakeSite) -> None:
    site = make_site(rate=RateLimit(len(REFUSED)))
    before = site.journal.read_bytes()
    found = {name: status(site.send(post(*said[:2]))) for name, said in REFUSED.items()}
    assert found == {name: said[2] for name, said in REFUSED.items()}
    for path in ("/", "/marks", "/mark?x", "http://localhost/mark"):
        assert status(site.send(post(["Host: localhost", PLAIN], b"x", path))) == 404
    for more in (
        [],
        ["Transfer-Encoding: chunked", "Content-Length: 1"],
        ["Content-Length: 1_0"],
        ["Content-Length: -1"],
        ["Content-Length: 1", "Content-Length: 2"],
    ):
        lines = ["POST /mark HTTP/1.1", "Host: localhost", PLAIN, *more, "", "x"]
        assert status(site.send("\r\n".join(lines).encode())) in (400, 411), more
    assert site.journal.read_bytes() == before


@pytest.mark.parametrize(
    "headers",
    [
        ["Host: localhost"],
        ["Host: LOCALHOST:9000"],
        ["Host: 127.0.0.1:8765", "Origin: http://127.0.0.1:8765", "Sec-Fetch-Site: same-origin"],
        ["Host: [::1]:8765", "Origin: http://[::1]:8765"],
        ["Host: 127.8.8.8", "Sec-Fetch-Site: none"],
    ],
)
def test_this_machine_may_mark_by_any_of_its_names(make_site: MakeSite, headers: list[str]) -> None:
    site = make_site()
    assert status(site.send(post([*headers, f"{PLAIN}; charset=UTF-8"], b"x"))) == 201
    assert site.marks() == ["x"]


def test_the_page_is_shown_to_this_machine_only(make_site: MakeSite) -> None:
    site = make_site()
    assert status(site.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")) == 421
    assert status(site.send(b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 404


def test_a_key_is_needed_if_there_is_one(make_site: MakeSite) -> None:
    site = make_site(key=KEY)
    plain = {"Content-Type": "text/plain"}
    for wrong in (
        "",
        KEY,
        "Bearer",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Basic {KEY}",
        "Bearer é",
    ):
        answer = site.ask(
            "POST", body="x", headers={**plain, "Authorization": wrong.encode("latin-1")}
        )
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert KEY not in answer.text
    assert site.ask("POST", body="x").status == 401
    twice = ["Host: localhost", PLAIN, f"Authorization: Bearer {KEY}", "Authorization: Bearer no"]
    assert status(site.send(post(twice, b"x"))) == 400
    assert site.marks() == []
    answer = site.ask("POST", body="x", headers={**plain, "Authorization": f"bearer {KEY}"})
    assert (answer.status, site.marks()) == (201, ["x"])
    assert KEY not in repr(vars(site.server.key))


def test_encrypted_marks(make_site: MakeSite, pair: Pair) -> None:
    site = make_site(key=KEY, pair=pair)
    trust = ssl.create_default_context(cafile=str(pair[0]))
    # Who never shakes hands, and who does not know how, keep nobody else waiting.
    with site.connect(), site.connect() as plain:
        plain.sendall(b"POST /mark HTTP/1.1\r\n\r\n")
        assert b"HTTP/1.1 " not in site.received(plain)
        headers = {"Content-Type": "text/plain", "Authorization": f"Bearer {KEY}"}
        origin = {"Origin": f"https://127.0.0.1:{site.port}"}
        assert site.ask("POST", body="x", headers={**headers, **origin}, tls=trust).status == 201
        assert site.ask("POST", body="y", tls=trust).status == 401
        origin = {"Origin": f"http://127.0.0.1:{site.port}"}
        assert site.ask("POST", body="z", headers={**headers, **origin}, tls=trust).status == 403
        assert site.ask("POST", body="z" * 5000, headers=headers, tls=trust).status == 413
        assert site.ask("GET", "/", tls=trust).status == 200
    assert site.server.tls.minimum_version >= ssl.TLSVersion.TLSv1_2
    command = ["curl", "-sS", "--fail", "--cacert", str(pair[0]), "-H", PLAIN, "-d", "by curl"]
    url = f"https://127.0.0.1:{site.port}/mark"
    subprocess.run([*command, "-H", f"Authorization: Bearer {KEY}", url], check=True)
    assert subprocess.run([*command, url], capture_output=True).returncode == 22
    assert site.marks() == ["x", "by curl"]
    assert site.server.url == f"https://127.0.0.1:{site.port}/"


def test_other_machines_need_encryption_and_a_key(journal: Path, pair: Pair) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "lab.example", "::ffff:192.0.2.7"):
        for encrypted, has_key, missing in (
            (False, False, "nothing would be encrypted and everybody could write marks"),
            (True, False, "everybody could write marks"),
            (False, True, "nothing would be encrypted"),
        ):
            with pytest.raises(ConfigError, match=f"and {missing}; give a certificate"):
                check_exposure(Place(host, 0), encrypted=encrypted, has_key=has_key)
    with pytest.raises(ConfigError, match="reached from other machines"):
        MarkServer(Place("0.0.0.0", 0), MarkWriter(journal), page_with([], with_key=False))
    everywhere = MarkServer(
        Place("0.0.0.0", 0),
        MarkWriter(journal),
        page_with([], with_key=True),
        key=MarkKey(KEY.encode()),
        tls=tls_context(*pair),
    )
    everywhere.server_close()
    assert everywhere.url.startswith("https://")
    assert "0.0.0.0" not in everywhere.url


def test_an_address_that_is_taken(make_site: MakeSite, journal: Path) -> None:
    site = make_site()
    with pytest.raises(ConfigError, match=r"cannot listen at 127\.0\.0\.1:"):
        MarkServer(
            Place("127.0.0.1", site.port), MarkWriter(journal), page_with([], with_key=False)
        )


def test_addresses() -> None:
    assert Place.parse("localhost:8765") == Place("127.0.0.1", 8765)
    assert str(Place.parse("[::1]:0")) == "[::1]:0"
    assert Place.parse("[::1]:0").is_local
    for text in ("", "8765", ":8765", "127.0.0.1", "::1:8765", "127.0.0.1:70000", "a b:1", "h:-1"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            Place.parse(text)


def test_keys_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "marks.key"
    with pytest.raises(ConfigError, match="cannot be read"):
        MarkKey.read(path)
    for data in (
        b"",
        b"brief",
        b"two of\nthese-are-no-key",
        "sécret-of-sixteen".encode(),
        b"x" * 5000,
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            MarkKey.read(path)
        assert str(path) in str(caught.value)
        assert "brief" not in str(caught.value)
    path.write_text(f"  {KEY}\r\n")
    assert MarkKey.read(path).is_in(f"Bearer {KEY}")


def test_pairs_that_are_none(tmp_path: Path, pair: Pair) -> None:
    certificate, key = pair
    assert tls_context(None, None) is None
    for half in ((certificate, None), (None, key)):
        with pytest.raises(ConfigError, match="neither"):
            tls_context(*half)
    with pytest.raises(ConfigError, match="No such file"):
        tls_context(certificate, tmp_path / "none")
    locked = tmp_path / "locked.key"
    command = [
        "openssl",
        "ec",
        "-aes256",
        "-passout",
        "pass:1234",
        "-in",
        str(key),
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True, capture_output=True)
    for wrong in ((key, certificate), (certificate, certificate), (certificate, locked)):
        with pytest.raises(ConfigError, match="no certificate and its unencrypted private key"):
            tls_context(*wrong)


def test_the_journal_says_whether_the_study_must_be_open(journal: Path) -> None:
    Journal(journal).mark("open", while_open=True)
    Journal(journal).aborted("over")
    Journal(journal).mark("afterwards")
    with pytest.raises(ValueError, match="the study is aborted"):
        Journal(journal).mark("too late", while_open=True)
