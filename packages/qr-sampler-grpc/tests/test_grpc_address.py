# SPDX-License-Identifier: Apache-2.0
"""Addresses: what is understood, what is refused, and what gRPC makes of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qr_sampler import ConfigError, EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource


@pytest.mark.parametrize(
    ("text", "expected", "target"),
    [
        ("localhost:50051", Address(host="localhost", port=50051), "localhost:50051"),
        ("  10.0.0.115:1 ", Address(host="10.0.0.115", port=1), "10.0.0.115:1"),
        (
            "entropy_server:65535",
            Address(host="entropy_server", port=65535),
            "entropy_server:65535",
        ),
        (
            "lab-1.example.org.:7",
            Address(host="lab-1.example.org.", port=7),
            "lab-1.example.org.:7",
        ),
        ("[::1]:50051", Address(host="::1", port=50051), "[::1]:50051"),
        ("[fe80::1%eth0]:2", Address(host="fe80::1%eth0", port=2), "[fe80::1%eth0]:2"),
        ("dns:///qrng.lan:443", Address(host="qrng.lan", port=443), "qrng.lan:443"),
        ("DNS:///[::1]:443", Address(host="::1", port=443), "[::1]:443"),
        ("unix:/run/e.sock", Address(path="/run/e.sock"), "unix:/run/e.sock"),
        ("unix:///run/e.sock", Address(path="/run/e.sock"), "unix:/run/e.sock"),
        ("UNIX:///run/e.sock", Address(path="/run/e.sock"), "unix:/run/e.sock"),
        ("unix:///a b%41#?.s", Address(path="/a b%41#?.s"), "unix:/a%20b%2541%23%3F.s"),
    ],
)
def test_accepted_forms(text: str, expected: Address, target: str) -> None:
    address = Address.parse(text)
    assert address == expected
    assert address.target == target
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the port is missing"),
        ("localhost", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("localhost:", "'' is not a port"),
        ("localhost:http", "'http' is not a port"),
        ("localhost:65536", "'65536' is not a port"),
        ("localhost:-1", "'-1' is not a port"),
        ("localhost:٣", "is not a port"),
        ("localhost:0", "port 0 cannot be connected to"),
        (":50051", "'' is not a host name"),
        ("::1:50051", "needs brackets"),
        ("ipv4:127.0.0.1:50051", "'ipv4:127.0.0.1' is not a host name"),
        ("[127.0.0.1]:50051", "'127.0.0.1' is not an IPv6 address"),
        ("300.1.1.1:50051", "'300.1.1.1' is not an IPv4 address"),
        ("a b:50051", "'a b' is not a host name"),
        ("-a:50051", "'-a' is not a host name"),
        ("a..b:50051", "'a..b' is not a host name"),
        ("x" * 64 + ":1", "is not a host name"),
        ("http://localhost:50051", "only unix: and dns:/// may stand in front"),
        ("dns://8.8.8.8/host:1", "only unix: and dns:/// may stand in front"),
        ("localhost:50051/", "nothing behind the port"),
        ("unix:relative.sock", "must be absolute"),
        ("unix://run/e.sock", "must be absolute"),
        ("unix:", "must be absolute"),
        ("unix:///", "does not name a file"),
        ("unix:///run/", "does not name a file"),
        ("unix:///a\0b", "does not name a file"),
        ("unix:///" + "x" * 107, "longer than 107 bytes"),
    ],
)
def test_refused_forms_say_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)
    assert problem in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "use host:port" in str(caught.value)


def test_only_a_server_may_ask_for_any_port() -> None:
    assert Address.parse("127.0.0.1:0", listening=True).port == 0


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("LocalHost.:1", True),
        ("127.9.9.9:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("[::1]:1", True),
        ("unix:/s", True),
        ("10.0.0.1:1", False),
        ("[::2]:1", False),
        ("localhost.example.org:1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
    ],
)
def test_local_addresses_are_recognised(text: str, local: bool) -> None:
    address = Address.parse(text)
    assert address.is_local is local
    assert address.is_own or not local


def own_interface() -> str:
    """Returns the address from which this machine would reach others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_the_machines_own_addresses_are_its_own_and_no_others() -> None:
    for host in (socket.gethostname(), socket.gethostname().upper(), own_interface(), "0.0.0.0"):
        assert Address(host=host, port=1).is_own, host
    # Addresses for documentation, which no machine has.
    for host in ("192.0.2.1", "2001:db8::1", "qrng.example.org", f"not-{socket.gethostname()}"):
        assert not Address(host=host, port=1).is_own, host


class Proxy:
    """Notes what it is asked to connect to, and refuses."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(1024).decode("latin-1").split("\r\n")[0])
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    proxy = Proxy()
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "Localhost", "127.0.0.1"])
def test_no_proxy_stands_before_a_server_of_this_machine(proxy: Proxy, name: str) -> None:
    with serve(ConstantEntropySource(7), "127.0.0.1:0") as server:
        port = server.address.rpartition(":")[2]
        source = QuantumGrpcSource(f"{name}:{port}", timeout_ms=60_000)
        assert source.get_random_bytes(3) == b"\7\7\7"
        source.close()
    assert proxy.asked == []


def test_the_name_of_the_machine_needs_no_proxy_and_others_do(proxy: Proxy) -> None:
    for name in (socket.gethostname().upper(), "qrng.invalid"):
        source = QuantumGrpcSource(f"{name}:1", timeout_ms=2_000)
        with pytest.raises(EntropyUnavailableError):
            source.get_random_bytes(3)
        source.close()
    assert {asked.split()[1] for asked in proxy.asked} == {"qrng.invalid:1"}


@pytest.mark.parametrize("name", ["plain.sock", "with space.sock", "100%41#?.sock", "gerät.sock"])
def test_grpc_listens_and_connects_at_exactly_this_path(socket_path: Path, name: str) -> None:
    path = socket_path.with_name(name)
    with serve(ConstantEntropySource(7), f"unix://{path}") as server:
        assert path.is_socket()
        source = QuantumGrpcSource(server.address)
        assert source.get_random_bytes(3) == b"\7\7\7"
        source.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "dns:///localhost"])
def test_grpc_listens_and_connects_over_tcp(host: str) -> None:
    try:
        server = serve(ConstantEntropySource(7), f"{host}:0")
    except OSError:
        if host != "[::1]":
            raise
        pytest.skip("this machine has no IPv6")
    with server:
        source = QuantumGrpcSource(server.address)
        assert source.get_random_bytes(3) == b"\7\7\7"
        source.close()


@pytest.mark.parametrize(
    ("listening", "reachable"),
    [
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:50051", "[::1]:50051"),
        ("192.0.2.1:50051", "192.0.2.1:50051"),
        ("entropy.example:50051", "entropy.example:50051"),
        ("unix:///run/e.sock", "unix:///run/e.sock"),
    ],
)
def test_a_server_that_listens_everywhere_is_found_on_the_loopback(
    listening: str, reachable: str
) -> None:
    assert str(Address.parse(listening).reachable) == reachable
