# SPDX-License-Identifier: Apache-2.0
"""The servers as programs: their options, ready lines, signals and logs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server.logs import JsonFormatter, configure_logging
from qr_sampler_grpc.server.program import READY_PREFIX, add_options, run
from qr_sampler_grpc.source import QuantumGrpcSource

SERVERS = Path(__file__).parents[3] / "servers"
TIMING = "timing_noise_server.py"
HAS_TIMING = importlib.util.find_spec("qr_entropy_sources") is not None
KIT_SERVERS = (TIMING, "qrng_template_server.py")
ALL_SERVERS = ("simple_urandom_server.py", *KIT_SERVERS)

Start = Callable[..., tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and returns its process and the address that it prints."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(READY_PREFIX), process.communicate()[1]
        return process, line.removeprefix(READY_PREFIX).strip()

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def program(name: str) -> str:
    if not (SERVERS / name).exists():
        pytest.skip("the reference servers are not part of the source distribution")
    if name == TIMING and not HAS_TIMING:
        pytest.skip("the timing noise is in another package")
    return str(SERVERS / name)


def end(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    process.send_signal(how)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.mark.parametrize("name", ALL_SERVERS)
def test_a_server_explains_itself(name: str) -> None:
    command = [sys.executable, program(name), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    assert "--address" in shown
    assert ("--signing-key" in shown) is (name in KIT_SERVERS)


@pytest.mark.parametrize("name", ALL_SERVERS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_server_answers_and_stops_cleanly(start: Start, name: str, how: signal.Signals) -> None:
    process, address = start(program(name), "--address=127.0.0.1:0")
    with grpc.insecure_channel(address) as channel:
        stub = EntropyServiceStub(channel)
        request = EntropyRequest(bytes_needed=32, sequence_id=7, commitment=b"c")
        answers = [stub.GetEntropy(request), *stub.StreamEntropy(iter([request, request]))]
        assert [len(one.data) for one in answers] == [32, 32, 32]
        assert len({one.data for one in answers}) == 3
        assert {(one.sequence_id, one.commitment) for one in answers} == {(7, b"c")}
        assert all(one.device_id and one.generation_timestamp_ns > 0 for one in answers)
        if name in KIT_SERVERS:
            state = HealthStub(channel).Check(HealthCheckRequest()).status
            assert state == HealthCheckResponse.SERVING
    status, errors = end(process, how)
    assert (status, "Traceback" in errors) == (0, False)


def test_a_program_serves_its_device_over_a_bare_socket_too(
    start: Start, socket_path: Path
) -> None:
    arguments = ("--address=127.0.0.1:0", f"--direct=unix://{socket_path}")
    process, address = start(program("qrng_template_server.py"), *arguments)
    beside = DirectSource(f"unix://{socket_path}")
    over_grpc = QuantumGrpcSource(address)
    draws = [source.draw(32) for source in (beside, over_grpc)]
    assert len({draw.data for draw in draws}) == 2
    assert len({draw.device_id for draw in draws}) == 1
    beside.close()
    over_grpc.close()
    status, errors = end(process, signal.SIGTERM)
    assert (status, "Traceback" in errors) == (0, False)
    assert not socket_path.exists()


@pytest.mark.parametrize("name", KIT_SERVERS)
def test_a_mistake_in_the_options_ends_a_server_with_its_reason(name: str) -> None:
    command = [sys.executable, program(name), "--address=0.0.0.0:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "can be reached from other machines" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_timing_server_limits_what_it_measures_and_assumes(start: Start) -> None:
    _, address = start(program(TIMING), "--address=127.0.0.1:0")
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        EntropyServiceStub(channel).GetEntropy(EntropyRequest(bytes_needed=2**16 + 1))
    assert caught.value.details() == "bytes_needed=65537; ask for 1 to 65536"
    command = [sys.executable, program(TIMING), "--bits-per-delta=2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert "must lie in the interval" in ended.stderr


def test_logs_are_json_and_hold_no_secret(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("s3cret-key\n", "utf-8")
    process, address = start(
        program("qrng_template_server.py"),
        "--address=127.0.0.1:0",
        f"--api-key-file={keys}",
        "--log-format=json",
        "--log-level=debug",
    )
    with grpc.insecure_channel(address) as channel:
        stub = EntropyServiceStub(channel)
        request = EntropyRequest(bytes_needed=1)
        answer = stub.GetEntropy(request, metadata=(("api-key", "s3cret-key"),))
        assert answer.device_id == "template-0001"
        with pytest.raises(grpc.RpcError):
            stub.GetEntropy(request, metadata=(("api-key", "s3cret-ke"),))
    status, errors = end(process, signal.SIGTERM)
    assert status == 0
    assert "s3cret" not in errors
    entries = [json.loads(line) for line in errors.splitlines()]
    (refused,) = [entry for entry in entries if "code" in entry]
    assert (refused["code"], refused["method"], refused["level"]) == (
        "UNAUTHENTICATED",
        "GetEntropy",
        "WARNING",
    )


@pytest.mark.heavy
@pytest.mark.slow
def test_a_short_campaign_finds_no_byte_twice_and_clean_ends() -> None:
    campaign = Path(__file__).parents[1] / "campaigns" / "load.py"
    if not campaign.exists():
        pytest.skip("the campaigns are not part of the source distribution")
    names = [Path(name).stem for name in ALL_SERVERS if name != TIMING or HAS_TIMING]
    command = [sys.executable, str(campaign), "--seconds=0.75", "--clients=64", "--servers"]
    whole = [*command, *names, "counting"]
    ended = subprocess.run(whole, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == len(names) + 2
    # Two answers are what can be compared; how many more there are is the machine's affair.
    assert all(int(line.split(": ")[1].split()[0]) >= 2 for line in lines[:-1])
    assert lines[-1] == "passed"
    flawed = [*command, "counting", "--flawed"]
    ended = subprocess.run(flawed, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, "words were served twice" in ended.stdout) == (1, True)


HUNG = """
    import argparse, threading
    from qr_sampler_grpc.server.program import add_options, run

    def hang(n):
        print("entered", flush=True)
        threading.Event().wait()

    parser = argparse.ArgumentParser()
    add_options(parser)
    raise SystemExit(run(hang, parser.parse_args()))
"""


def test_a_device_that_hangs_does_not_keep_its_program_alive(start: Start) -> None:
    process, address = start("-c", textwrap.dedent(HUNG), "--address=127.0.0.1:0", "--grace=0.2")
    with grpc.insecure_channel(address) as channel:
        stub = EntropyServiceStub(channel)
        call = stub.GetEntropy.future(EntropyRequest(bytes_needed=1))
        assert process.stdout is not None
        assert process.stdout.readline() == "entered\n"
        call.cancel()
    status, errors = end(process, signal.SIGTERM)
    assert status == 3
    assert "the device does not return" in errors


def options_of(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("grace", ["-1", "nan", "inf", "soon"])
def test_an_impossible_grace_is_refused(grace: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(f"--grace={grace}")
    assert "--grace" in capsys.readouterr().err


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Puts the set-up of the logs back after a test that changes it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield root
    root.handlers, root.level = handlers, level


def test_a_program_runs_in_this_process_too(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    source = ConstantEntropySource(fail_with="unplugged")
    options = options_of("--address=127.0.0.1:0", "--log-level=debug", "--grace=0")

    def print_and_end(line: str, **_: object) -> None:
        print(line)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("qr_sampler_grpc.server.program.print", print_and_end, raising=False)
    assert run(source, options) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(READY_PREFIX)
    assert "serving constant at 127.0.0.1:" in shown.err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_taken_address_is_a_reason(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of("--address=unix:///nonexistent/e.sock")
    assert run(ConstantEntropySource(), options) == 2
    assert "cannot listen at unix:///nonexistent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--address=nowhere",), "port is missing"),
        (("--tls-certificate=absent",), "give both --tls-certificate and --tls-private-key"),
        (("--tls-private-key=absent",), "give both --tls-certificate and --tls-private-key"),
        (("--tls-certificate=absent", "--tls-private-key=absent"), "cannot read the certificate"),
        (("--tls-client-ca=absent",), "--tls-client-ca needs --tls-certificate"),
        (("--api-key-file=absent",), "cannot read the API keys"),
        (("--signing-key=absent",), "cannot read the private key"),
        (("--requests-per-minute=0",), "requests_per_minute=0"),
        (("--direct=unix:///nonexistent/d.sock",), "cannot listen at unix:///nonexistent/d.sock"),
        (("--direct=127.0.0.1:1",), "is not a Unix domain socket"),
    ],
)
def test_mistakes_in_the_options_are_reasons(
    root_logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    assert run(ConstantEntropySource(), options_of("--address=127.0.0.1:0", *arguments)) == 2
    shown = capsys.readouterr()
    assert (shown.out, says in shown.err) == ("", True)


def test_a_json_line_has_what_there_is() -> None:
    record = logging.LogRecord("n", logging.ERROR, "", 0, "two\nlines %d", (5,), None)
    record.peer, record.code = "ipv4:1", 7
    try:
        raise ZeroDivisionError("of the test")
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["message"], entry["peer"], entry["code"]) == ("two\nlines 5", "ipv4:1", "7")
    assert "ZeroDivisionError: of the test" in entry["exception"]
    assert entry["time"].endswith("+00:00")
    assert "method" not in entry


@pytest.mark.parametrize("form", ["text", "json"])
def test_logs_go_to_the_standard_error(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    configure_logging(form, "warning")
    logging.getLogger("qr_sampler.grpc").info("unseen")
    logging.getLogger("qr_sampler.grpc").warning("seen")
    shown = capsys.readouterr()
    assert (shown.out, "unseen" in shown.err, "seen" in shown.err) == ("", False, True)
    with pytest.raises(ValueError, match="log format 'xml' is unknown"):
        configure_logging("xml")
