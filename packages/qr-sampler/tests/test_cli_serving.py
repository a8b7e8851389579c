# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler serve-entropy`` in a process of its own, asked by a real gRPC client."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_cli import server_process
from qr_sampler_cli.main import app
from qr_sampler_cli.server_process import READY_PREFIX, ServerProcessError, entropy_server

pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
from qr_sampler_grpc.source import QuantumGrpcSource


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yields the process of a server and the address that it printed."""
    command = [sys.executable, "-m", "qr_sampler_cli", "serve-entropy", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(READY_PREFIX)
            yield process, line.removeprefix(READY_PREFIX).strip()
        finally:
            process.kill()


@contextmanager
def client(address: str, *, api_key: str = "") -> Iterator[QuantumGrpcSource]:
    source = QuantumGrpcSource(address, timeout_ms=60_000, api_key=api_key)
    try:
        yield source
    finally:
        source.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_server_answers_over_tcp_and_stops_cleanly(number: signal.Signals) -> None:
    with serving("--address=127.0.0.1:0") as (process, address):
        host, _, port = address.rpartition(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        with client(address) as source:
            first, second = source.draw(64), source.draw(64)
        assert (len(first.data), first.device_id) == (64, "system")
        # Equal blocks of 512 random bits would mean that the server repeats itself.
        assert first.data != second.data
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0
        assert "stopped" in errors
        assert "Traceback" not in errors


def test_server_answers_over_a_unix_socket_and_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "entropy.sock"
    with serving(f"--address=unix://{path}") as (process, address):
        assert address == f"unix://{path}"
        with client(address) as source:
            assert len(source.draw(1000).data) == 1000
        process.terminate()
        assert process.wait(300) == 0
    assert not path.exists()


def test_source_and_device_id_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MOCK_UNIFORM_SEED", "7")
    arguments = ("--address=127.0.0.1:0", "--source=mock_uniform", "--device-id=bench 3")
    with serving(*arguments) as (_, address), client(address) as source:
        draw = source.draw(16)
    assert draw.device_id == "bench 3"


def test_api_key_is_asked_for(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("open sesame\n", "utf-8")
    with serving("--address=127.0.0.1:0", f"--api-key-file={key_file}") as (_, address):
        with client(address) as stranger, pytest.raises(EntropyUnavailableError):
            stranger.draw(1)
        with client(address, api_key="open sesame") as friend:
            assert len(friend.draw(1).data) == 1


def test_server_for_a_block_stops_with_it() -> None:
    with entropy_server() as address, client(address) as source:
        assert source.probe().available
    with client(address) as source, pytest.raises(EntropyUnavailableError):
        source.draw(1)


def test_server_for_a_block_stops_when_the_block_fails() -> None:
    addresses = []

    def fail_while_serving() -> None:
        with entropy_server() as address:
            addresses.append(address)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_serving()
    host, _, port = addresses[0].rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_server_that_cannot_start_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(ServerProcessError, match="status 2 before it listened"),
        entropy_server(["--source=bogus"]),
    ):
        pass
    assert "unknown entropy source 'bogus'" in capfd.readouterr().err


@pytest.fixture
def run_until_stopped() -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process; a timer stops it as an operator would."""

    def run(*arguments: str) -> tuple[int, str, str]:
        timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        try:
            result = CliRunner().invoke(app, ["serve-entropy", *arguments])
        finally:
            timer.cancel()
        return result.exit_code, result.stdout, result.stderr

    return run


def test_command_in_process_restores_signal_handlers(
    run_until_stopped: Callable[..., tuple[int, str, str]],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    status, output, errors = run_until_stopped("--address=127.0.0.1:0")
    assert status == 0
    assert output.startswith(f"{READY_PREFIX}127.0.0.1:")
    assert "warning" not in errors
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_address_open_to_others_is_refused_unless_it_is_meant(address: str) -> None:
    result = CliRunner().invoke(app, ["serve-entropy", f"--address={address}"])
    assert result.exit_code == 2
    assert "can be reached from other machines" in result.stderr
    assert "--tls-certificate" in result.stderr
    assert "--insecure" in result.stderr
    assert READY_PREFIX not in result.stdout


def test_what_is_printed_can_be_connected_to() -> None:
    with serving("--address=0.0.0.0:0", "--insecure") as (process, address):
        assert address.startswith("127.0.0.1:")
        with client(address) as source:
            assert len(source.draw(8).data) == 8
        process.terminate()
        _, errors = process.communicate(timeout=300)
    assert f"QR_GRPC_SERVER_ADDRESS={address} on this machine" in errors
    assert "WITHOUT AN API KEY" in errors


def test_address_open_to_others_is_warned_about(
    run_until_stopped: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent:
        """Stands in for the server: no test listens beyond the loopback interface."""

        address = "127.0.0.1:50051"

        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("qr_sampler_grpc.server.serve", lambda *_, **__: Silent())
    _, _, errors = run_until_stopped("--address=0.0.0.0:50051")
    assert "WITHOUT AN API KEY" in errors
    key_file = tmp_path / "key"
    key_file.write_text("secret", "utf-8")
    _, _, errors = run_until_stopped("--address=0.0.0.0:50051", f"--api-key-file={key_file}")
    assert "WITHOUT AN API KEY" not in errors
    assert "secret" not in errors


def test_source_that_is_down_is_served_with_a_warning(
    run_until_stopped: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", str(tmp_path / "absent"))
    status, _, errors = run_until_stopped("--address=127.0.0.1:0", "--source=device_file")
    assert status == 0
    assert "device_file is not available yet" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source=bogus",), "unknown entropy source 'bogus'"),
        (("--address=nowhere",), "'nowhere'"),
        (("--direct=127.0.0.1:1",), "is not a Unix domain socket"),
        (("--tls-certificate=/no/such/file",), "--tls-certificate and --tls-private-key"),
        (("--api-key-file=/no/such/file",), "cannot read the API keys from /no/such/file"),
    ],
)
def test_mistake_is_one_line_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["serve-entropy", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_server_that_ignores_the_request_to_stop_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_process, "STOP_SECONDS", 0.2)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    command = [sys.executable, "-c", f"{program}; signal.pause()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server_process.stop(process)
    assert process.returncode == -signal.SIGKILL


def test_server_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "START_SECONDS", 0.2)
    silent = [sys.executable, "-c", "import signal; signal.pause()"]
    with (
        subprocess.Popen(silent, stdout=subprocess.PIPE, text=True) as process,
        pytest.raises(ServerProcessError, match="before it listened"),
    ):
        server_process.announced_address(process)
