# SPDX-License-Identifier: Apache-2.0
"""What only shows between processes: the reference server, restarts, forks and leaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.connection.fork_guard import ForkGuard
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource

REFERENCE_SERVER = Path(__file__).parents[3] / "servers" / "simple_urandom_server.py"
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
NEEDS_FORK = pytest.mark.skipif(sys.platform != "linux", reason="forks reliably on Linux only")


class ReferenceServer:
    """`servers/simple_urandom_server.py` in its own process."""

    def __init__(self, address: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(REFERENCE_SERVER), "--address", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("entropy server listening on "), self.process.communicate()[1]
        self.address = line.removeprefix("entropy server listening on ").strip()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        self.process.communicate(timeout=300)
        return self.process.returncode


@pytest.fixture
def start_reference() -> Iterator[Callable[[str], ReferenceServer]]:
    if not REFERENCE_SERVER.exists():
        pytest.skip("the reference server is not part of the source distribution")
    running: list[ReferenceServer] = []

    def start(address: str) -> ReferenceServer:
        running.append(ReferenceServer(address))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


@pytest.fixture(params=["tcp", "unix"])
def any_address(request: pytest.FixtureRequest, lasting_port: int, socket_path: Path) -> str:
    return f"127.0.0.1:{lasting_port}" if request.param == "tcp" else f"unix://{socket_path}"


@pytest.mark.parametrize("n", [0, -5, 2**31 - 1])
def test_the_reference_server_names_an_impossible_size(
    start_reference: Callable[[str], ReferenceServer], n: int
) -> None:
    server = start_reference("127.0.0.1:0")
    with grpc.insecure_channel(server.address) as channel:
        stub = EntropyServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetEntropy(EntropyRequest(bytes_needed=n))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"bytes_needed={n};" in (caught.value.details() or "")
        assert len(stub.GetEntropy(EntropyRequest(bytes_needed=1)).data) == 1


def test_a_second_reference_server_on_one_port_fails(
    start_reference: Callable[[str], ReferenceServer],
) -> None:
    server = start_reference("127.0.0.1:0")
    command = [sys.executable, str(REFERENCE_SERVER), "--address", server.address]
    second = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode != 0
    assert server.address in second.stderr


def test_a_killed_server_is_noticed_and_its_successor_is_used(
    start_reference: Callable[[str], ReferenceServer], any_address: str
) -> None:
    server = start_reference(any_address)
    # With an hour to wait, every failed draw below must be a refusal and not a time-out.
    source = QuantumGrpcSource(server.address, timeout_ms=3_600_000)
    source.draw(8)
    server.end(signal.SIGKILL)
    for _ in range(30):
        with pytest.raises(EntropyUnavailableError, match="no answer from"):
            source.draw(8)
        time.sleep(0.02)
    start_reference(server.address)
    for _ in range(300):
        try:
            draw = source.draw(8)
            break
        except EntropyUnavailableError:
            time.sleep(0.1)
    source.close()
    assert len(draw.data) == 8
    assert source.is_available


def test_only_a_forked_process_without_support_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = ForkGuard()
    assert guard.reason_to_refuse() == ""
    assert guard.reason_to_refuse() == ""
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    for value in ("", "0", "no"):
        monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", value)
        assert f"in use in process {parent}" in guard.reason_to_refuse()
    for value in ("1", "true", "YES"):
        monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", value)
        assert guard.reason_to_refuse() == ""
    assert ForkGuard().reason_to_refuse() == ""


FORKING = """
    import os, sys
    from qr_sampler import EntropyUnavailableError
    from qr_sampler_grpc.source import QuantumGrpcSource

    address, when = sys.argv[1:]
    source = QuantumGrpcSource(address)
    if when == "after use":
        print("parent", source.draw(3).data, flush=True)
    child = os.fork()
    if child == 0:
        try:
            print("child", source.draw(4).data, flush=True)
            source.close()
        except EntropyUnavailableError as error:
            print("child refused:", error.reason, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print("parent", source.draw(5).data, flush=True)
    source.close()
"""


@NEEDS_FORK
def test_a_source_made_before_a_fork_works_on_both_sides(run_python: Callable[..., str]) -> None:
    with serve(ConstantEntropySource(ord("7")), "127.0.0.1:0") as server:
        printed = run_python(FORKING, server.address, "before use", GRPC_ENABLE_FORK_SUPPORT="0")
    assert printed.splitlines() == ["child b'7777'", "parent b'77777'"]


@NEEDS_FORK
def test_a_source_used_before_a_fork_works_with_grpcs_support(
    run_python: Callable[..., str],
) -> None:
    with serve(ConstantEntropySource(ord("7")), "127.0.0.1:0") as server:
        printed = run_python(FORKING, server.address, "after use", GRPC_ENABLE_FORK_SUPPORT="1")
    expected = ["parent b'777'", "child b'7777'", "parent b'77777'"]
    assert printed.splitlines() == expected


@NEEDS_FORK
def test_a_source_used_before_a_fork_refuses_rather_than_hangs_without_it(
    run_python: Callable[..., str],
) -> None:
    with serve(ConstantEntropySource(ord("7")), "127.0.0.1:0") as server:
        printed = run_python(FORKING, server.address, "after use", GRPC_ENABLE_FORK_SUPPORT="0")
    first, child, last = printed.splitlines()
    assert (first, last) == ("parent b'777'", "parent b'77777'")
    assert child.startswith("child refused: gRPC was in use in process")
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in child


@NEEDS_FORK
def test_a_server_before_a_fork_counts_as_use(run_python: Callable[..., str]) -> None:
    script = """
        import os
        from qr_sampler.testing import ConstantEntropySource
        from qr_sampler_grpc.server import ServerStartError, serve

        with serve(ConstantEntropySource(), "127.0.0.1:0"):
            child = os.fork()
            if child == 0:
                try:
                    serve(ConstantEntropySource(), "127.0.0.1:0")
                except ServerStartError as error:
                    print(error, flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    printed = run_python(script, GRPC_ENABLE_FORK_SUPPORT="0")
    assert "gRPC was in use in process" in printed


LEAKS = """
    import os, sys, threading, time
    from contextlib import suppress
    from qr_sampler import EntropyUnavailableError
    from qr_sampler.testing import ConstantEntropySource
    from qr_sampler_grpc.server import serve
    from qr_sampler_grpc.source import QuantumGrpcSource

    failures, served = [], []
    threading.excepthook = failures.append

    def draw(address, times=1):
        source = QuantumGrpcSource(address, timeout_ms=60_000)
        for _ in range(times):
            with suppress(EntropyUnavailableError):
                served.append(len(source.draw(16).data))
        source.close()

    def serve_and_draw(**options):
        with serve(ConstantEntropySource(), "127.0.0.1:0", **options) as server:
            draw(server.address)

    def used():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    cycle = {
        "open": lambda: draw(sys.argv[2]),
        "reconnect": lambda: draw("unix:///nonexistent/entropy.sock", 3),
        "serve": serve_and_draw,
        "serve with metrics": lambda: serve_and_draw(metrics_address="127.0.0.1:0"),
    }[sys.argv[1]]
    for _ in range(20):
        cycle()
    time.sleep(0.5)
    before = used()
    for _ in range(int(sys.argv[3])):
        cycle()
    for _ in range(200):  # gRPC closes its sockets in the background
        after = used()
        if after[0] <= before[0] and after[1] <= before[1]:
            break
        time.sleep(0.05)
    print(len(failures), sum(served), after[0] - before[0], after[1] - before[1])
"""


@NEEDS_PROC
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("what", "times"),
    [
        ("open", 200),
        ("reconnect", 50),
        pytest.param("serve", 200, marks=pytest.mark.slow),
        pytest.param("serve with metrics", 20, marks=pytest.mark.slow),
    ],
)
def test_what_is_opened_and_closed_leaves_neither_files_nor_threads(
    run_python: Callable[..., str], what: str, times: int
) -> None:
    with serve(ConstantEntropySource(), "127.0.0.1:0") as server:
        printed = run_python(LEAKS, what, server.address, str(times))
    failures, served, files, threads = map(int, printed.split())
    assert failures == 0
    assert served == (0 if what == "reconnect" else 16 * (20 + times))
    # gRPC's own pool may grow by a few threads; one per cycle would be 20 at least.
    assert files <= 5
    assert threads <= 10
