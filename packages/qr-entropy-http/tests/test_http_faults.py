# SPDX-License-Identifier: Apache-2.0
"""Every way in which a service fails is an unavailable source, in time, with a reason."""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from qr_entropy_http.exchange.refusal import LONGEST_PAUSE_S, retry_after_s
from qr_entropy_http.simulators import FAULTS, Simulator
from qr_entropy_http.simulators.protocols import Reply
from qr_entropy_http.source import HttpSource
from qr_sampler import EntropyUnavailableError

KEY = "k3y-of-the-tests"
"""What is in the file of the fixture `key_file`."""

TAKING_LONG = {"drip", "silence", "slow_headers", "slow_tls"}
REASONS = {
    "429": "has reached a limit",
    "503": "is not ready to serve",
    "drip": "no complete answer in time",
    "empty": "refuses the request",
    "expired": "does not accept the API key, or it has expired",
    "garbage": "no JSON document",
    "gzip": "encoded",
    "huge": "more than the",
    "nested": "nested too deeply|is missing|no list|no object",
    "not_http": "not HTTP",
    "out_of_range": "not 0 to 255|not decimal|not hexadecimal",
    "quota": "has reached a limit",
    "redirect": "not followed",
    "refused": "connection was lost|not HTTP",
    "silence": "no complete answer in time",
    "slow_headers": "no complete answer in time",
    "slow_tls": "no complete answer in time",
    "too_few": "does not have 40 digits",
    "truncated": "broke off",
    "twice": "a name twice",
    "wrong_type": "of type 'text/html'",
}


def failure(source: HttpSource, n: int = 64) -> EntropyUnavailableError:
    """Returns how a draw fails."""
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value


def test_every_fault_is_tried() -> None:
    assert set(FAULTS) - set(REASONS) == {"early", "stale", "two_answers"}


@pytest.mark.parametrize("fault", sorted(REASONS))
def test_a_fault_has_a_reason_and_ends(
    fault: str, serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    preset = "anu"
    simulator = serve(preset)
    options: dict[str, Any] = {"timeout_ms": 100} if fault in TAKING_LONG else {}
    source = ask(simulator, preset, **options)
    simulator.fault = fault
    error = failure(source)
    assert error.source == "http"
    assert re.search(REASONS[fault], error.reason), error.reason
    assert simulator.url in error.reason
    assert KEY not in error.reason
    assert not source.is_available
    # And once it works again, so does the source, unless it was asked for patience.
    simulator.fault = ""
    source._options = source._options.model_copy(update={"timeout_ms": 60_000.0})
    if error.retry_after_s is None:
        assert len(source.draw(64).data) == 64
        assert source.is_available


@pytest.mark.parametrize("preset", ["outshift", "quantis_appliance", "quanttp"])
@pytest.mark.parametrize("fault", ["garbage", "out_of_range", "too_few", "truncated", "wrong_type"])
def test_answers_of_other_shapes_fail_as_well(
    fault: str, preset: str, serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve(preset)
    source = ask(simulator, preset)
    simulator.fault = fault
    assert "the answer" in failure(source, 1024).reason


def test_a_service_that_asks_for_patience_is_left_alone(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = serve("lfd")
    source = ask(simulator, "lfd")
    simulator.fault = "429"
    assert failure(source).retry_after_s == 7.0
    simulator.fault = ""
    asked = simulator.requests
    again = failure(source)
    assert again.retry_after_s is not None
    assert 0.0 < again.retry_after_s <= 7.0
    assert "left alone" in again.reason
    assert simulator.requests == asked
    assert not source.status().available
    later_s = time.monotonic() + 7.5
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert len(source.draw(8).data) == 8
    assert simulator.requests == asked + 1


def test_a_key_that_is_not_accepted_is_not_tried_for_every_token(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("anu")
    source = ask(simulator, "anu")
    simulator.key = "another key"
    assert "HTTP 403" in failure(source).reason
    for _ in range(5):
        assert "QR_HTTP_KEY_FILE" in failure(source).reason
    assert simulator.requests == 1
    assert simulator.spent_bytes == 0


def test_a_renewed_key_needs_no_restart(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = serve("anu")
    source = ask(simulator, "anu")
    source.draw(8)
    simulator.key = "n3w-key"
    assert failure(source).retry_after_s == 60.0
    later_s = time.monotonic() + 61.0
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    key_file.write_text("")
    assert "holds no API key" in failure(source).reason
    assert simulator.requests == 2
    key_file.write_text("n3w-key")
    assert len(source.draw(8).data) == 8
    assert source.secrets == ("n3w-key",)


def test_a_thread_that_renews_the_key_changes_no_other_draw(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What one draw was granted goes back where it came from, and its key stays unsaid."""
    simulator = serve("anu")
    source = ask(simulator, "anu", max_requests_per_day=9)

    def send(connection: socket.socket, reply: Reply, fault: str) -> None:
        key_file.write_text("n3w-key")
        source._key_is_refused = True
        source._read_key_again()
        body = f"bad key {KEY}".encode()
        connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    monkeypatch.setattr(simulator, "send", send)
    error = failure(source, 3 * 20_480)
    assert source.secrets == ("n3w-key",)
    assert "bad key ***" in error.reason
    (spent,) = (tmp_path / "state").rglob("*.json")
    assert re.search(r'"requests_per_day": {"\d+": 1}', spent.read_text())


def test_numbers_that_read_like_an_error_are_numbers(
    serve: Callable[..., Simulator], tmp_path: Path
) -> None:
    """Otherwise what the bytes are would decide whether they are used."""
    preset = tmp_path / "bench.toml"
    text = files("qr_entropy_http.presets").joinpath("quantis_appliance.toml").read_text()
    rule = '[[errors]]\nstatus = 200\ncontains = "busy"\nmeans = "quota"\n'
    preset.write_text(text.replace('"quantis_appliance"', '"bench"') + rule)
    simulator = serve("quantis_appliance", generate=lambda count: b"busy" * (count // 4))
    source = HttpSource(preset_file=preset, url=simulator.url)
    assert source.get_random_bytes(8) == b"busybusy"
    simulator.fault = "wrong_type"
    assert "has reached a limit" in failure(source, 8).reason


def test_what_had_arrived_of_raw_bytes_is_counted(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("quantis_appliance")
    simulator.fault = "drip"
    error = failure(ask(simulator, "quantis_appliance", timeout_ms=500), 4096)
    assert "in time" in error.reason
    assert 1 <= error.dropped_bytes < 4096


def test_a_used_up_account_is_told_from_a_bad_key(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("quandela")
    source = ask(simulator, "quandela")
    simulator.fault = "quota"
    error = failure(source)
    assert "has reached a limit" in error.reason
    assert "Not enough credits" in error.reason
    assert error.retry_after_s == 3600.0


def test_an_empty_pool_is_waited_for(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("quandela")
    source = ask(simulator, "quandela")
    simulator.fault = "empty"
    error = failure(source)
    assert "has no random bytes at present" in error.reason
    assert error.retry_after_s == 1.0


def test_a_refusal_with_status_200_is_none_of_the_numbers(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("anu_legacy")
    source = ask(simulator, "anu_legacy")
    simulator.fault = "quota"
    error = failure(source)
    assert "has reached a limit" in error.reason
    assert error.retry_after_s == 60.0


def test_a_key_that_a_service_repeats_is_masked(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("anu")
    echo = Reply(400, f"bad key {KEY}\x1b[31m".encode(), "text/plain")
    object.__setattr__(simulator.protocol, "no_key", echo)
    source = ask(simulator, "anu")
    simulator.key = "another key"
    try:
        reason = failure(source).reason
    finally:
        object.__setattr__(simulator.protocol, "no_key", Reply(403, b'{"message":"Forbidden"}'))
    assert "bad key ***" in reason
    assert reason.isprintable()
    assert KEY not in repr(source) + str(source.recorded_settings)
    assert source.secrets == (KEY,)


@pytest.mark.parametrize("spelling", ['k/3"y', 'k/3\\"y', 'k\\/3\\"y', "k%2F3%22y"])
def test_a_key_is_masked_however_it_is_spelt(
    spelling: str,
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = serve("anu")
    key_file.write_text('k/3"y')
    echo = Reply(400, f"bad key {spelling}.".encode(), "text/plain")
    monkeypatch.setattr(simulator, "reply_to", lambda question: echo)
    assert "bad key ***." in failure(ask(simulator, "anu")).reason


def test_a_part_of_a_key_is_not_quoted_either(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of long answers the beginning is read; it may end within the second mention of a key."""
    simulator = serve("anu")
    key_file.write_text("s3cret" * 500)
    echo = Reply(400, f"not {'s3cret' * 500}; use {'s3cret' * 500}".encode(), "text/plain")
    monkeypatch.setattr(simulator, "reply_to", lambda question: echo)
    assert "not ***; use" in (reason := failure(ask(simulator, "anu")).reason)
    assert "s3cret" not in reason


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({}, "self.signed|unable to get local issuer"),
        ({"days": -1}, "expired"),
        ({"host": "127.0.0.2"}, "mismatch|not valid for"),
    ],
    ids=["unknown authority", "expired", "another host"],
)
def test_certificates_are_verified(
    server: dict[str, Any],
    words: str,
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    authority: Any,
) -> None:
    simulator = serve("lfd", tls=authority.server(**server))
    trusted = {"ca_file": authority.certificate} if server else {}
    reason = failure(ask(simulator, "lfd", **trusted)).reason
    assert "no trusted encrypted connection" in reason
    assert re.search(words, reason), reason
    assert "QR_HTTP_CA_FILE" in reason
    assert simulator.requests == 0


def test_a_trusted_service_is_asked_over_tls(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource], authority: Any
) -> None:
    simulator = serve("anu", tls=authority.server())
    source = ask(simulator, "anu", ca_file=authority.certificate)
    assert len(source.draw(1000).data) == 1000
    assert simulator.url.startswith("https://")


@pytest.mark.parametrize("fault", ["slow_tls", "silence", "drip", "truncated", "huge", "early"])
def test_encrypted_faults_end_in_time_as_well(
    fault: str, serve: Callable[..., Simulator], ask: Callable[..., HttpSource], authority: Any
) -> None:
    simulator = serve("lfd", tls=authority.server())
    options = {"timeout_ms": 100} if fault in TAKING_LONG else {}
    source = ask(simulator, "lfd", ca_file=authority.certificate, **options)
    simulator.fault = fault
    if fault == "early":
        # Its answer to no question at all: an empty object, unless it comes too early even so.
        assert re.search("before it was asked|'qrn' is missing", failure(source).reason)
    else:
        assert re.search(REASONS[fault], failure(source).reason)


def test_variables_of_proxies_and_certificates_change_nothing(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    authority: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert len(ask(serve("lfd"), "lfd").draw(8).data) == 8
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    simulator = serve("lfd", tls=authority.server())
    assert "no trusted encrypted connection" in failure(ask(simulator, "lfd")).reason


@pytest.mark.parametrize("framing", ["chunked", "until the end", "after others", "in pieces"])
def test_answers_are_read_however_they_are_framed(
    framing: str,
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 9112, sections 7.1 and 6.3; RFC 9110, section 15.2."""
    simulator = serve("lfd")

    def send(connection: socket.socket, reply: Reply, fault: str) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
        if framing == "chunked":
            halves = reply.body[:50], reply.body[50:], b""
            body = b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves)
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body)
        elif framing == "after others":
            hints = "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(f"{hints}{head}\r\n".encode() + reply.body)
        elif framing == "in pieces":
            for piece in (head[:9].encode(), f"{head[9:]}\r".encode(), b"\n", reply.body):
                connection.sendall(piece)
                time.sleep(0.005)
        else:
            connection.sendall(f"{head}\r\n".encode() + reply.body)

    monkeypatch.setattr(simulator, "send", send)
    data = ask(simulator, "lfd").get_random_bytes(200)
    assert [data] == [delivery.data for delivery in simulator.deliveries]


@pytest.mark.parametrize(
    "rest",
    [
        "Content-Length: " + "9" * 5000,
        "Content-Length: 1\r\nContent-Length: 2",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nxAB0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n" + "f" * 30,
        "Transfer-Encoding: chunked\r\n\r\n1;" + "a" * 200_000,
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + "A: b\r\n" * 40_000,
        "A: " + "x" * 200_000,
        ": no name",
        "A: b\r\nno colon",
    ],
    ids=lambda rest: rest[:40],
)
def test_broken_framing_is_no_answer(
    rest: str,
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = serve("quantis_appliance")

    def send(connection: socket.socket, reply: Reply, fault: str) -> None:
        with suppress(OSError):
            connection.sendall(f"HTTP/1.1 200 OK\r\n{rest}\r\n\r\n".encode())

    monkeypatch.setattr(simulator, "send", send)
    reason = failure(ask(simulator, "quantis_appliance"), 1).reason
    assert re.search("is not HTTP|broke off", reason), reason


def test_an_encoding_that_comes_second_is_refused_as_well(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = serve("quantis_appliance")

    def send(connection: socket.socket, reply: Reply, fault: str) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n"
        connection.sendall(head.encode() + reply.body)

    monkeypatch.setattr(simulator, "send", send)
    assert "encoded ('identity, gzip')" in failure(ask(simulator, "quantis_appliance")).reason


def test_a_port_without_a_service_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reason = failure(HttpSource("lfd", url=f"http://127.0.0.1:{port}")).reason
    assert "no connection" in reason
    assert "correct QR_HTTP_URL" in reason


def test_a_name_without_an_address_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in failure(HttpSource("lfd")).reason


def test_the_next_address_is_tried(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = serve("lfd")
    real = socket.getaddrinfo

    def two(host: str, port: int, *rest: Any, **options: Any) -> Any:
        found = real(host, port, *rest, **options)
        # Those that are only asked how they are written have no port to connect to.
        return [*real("127.0.0.9", port, **options), *found] if options else found

    source = ask(simulator, "lfd")
    monkeypatch.setattr(socket, "getaddrinfo", two)
    assert len(source.draw(8).data) == 8


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0", 0.0),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("99999999999", LONGEST_PAUSE_S),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thursday, 01-Jan-70 00:02:00 GMT", 20.0),
        ("Thu Jan  1 00:02:00 1970", 20.0),
        ("Thu, 01 Jan 2970 00:02:00 GMT", LONGEST_PAUSE_S),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("9" * 400, None),
        ("Thu, 99 Foo 1970", None),
    ],
)
def test_retry_after_is_read_as_rfc_9110_has_it(
    header: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its three forms of a date, wherever this machine is."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XXX+7")
        time.tzset()
        found = retry_after_s(header, lambda: 100.0)
    time.tzset()
    assert found == expected


def test_a_draw_that_never_fits_says_so(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("outshift")
    error = failure(ask(simulator, "outshift"), 13_312)
    assert error.retry_after_s == math.inf
    assert "never fits into 12500 a day" in error.reason
    assert simulator.requests == 0


def test_keys_of_files_that_others_read_are_warned_of(
    serve: Callable[..., Simulator],
    ask: Callable[..., HttpSource],
    key_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator = serve("anu")
    ask(simulator, "anu")
    assert not caplog.records
    key_file.chmod(0o644)
    ask(simulator, "anu")
    ask(simulator, "anu")
    (record,) = caplog.records
    assert "chmod 600" in record.getMessage()
    assert KEY not in record.getMessage()
