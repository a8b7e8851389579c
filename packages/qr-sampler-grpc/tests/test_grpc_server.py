# SPDX-License-Identifier: Apache-2.0
"""The server kit: what it answers, what it refuses and where it listens."""

from __future__ import annotations

import errno
import logging
import queue
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from qr_sampler import ConfigError, EntropyUnavailableError, FallbackEntropySource
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server import ServerStartError, serve
from qr_sampler_grpc.source import QuantumGrpcSource

SECRET = "s3cret-key-0xdeadbeef"


@contextmanager
def stub_for(address: str) -> Iterator[Any]:
    """Yields the generated client: everything a caller of another make would use."""
    with grpc.insecure_channel(address.replace("unix://", "unix:")) as channel:
        yield EntropyServiceStub(channel)


class Conversation:
    """One open stream: send a request, read an answer."""

    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._outgoing: queue.SimpleQueue[EntropyRequest | None] = queue.SimpleQueue()
        self.call = stub.StreamEntropy(iter(self._outgoing.get, None), metadata=metadata)

    def ask(self, n: int, sequence_id: int = 0) -> EntropyResponse:
        self._outgoing.put(EntropyRequest(bytes_needed=n, sequence_id=sequence_id))
        answer: EntropyResponse = next(self.call)
        return answer

    def finish(self) -> None:
        self._outgoing.put(None)
        assert list(self.call) == []


def status_of(attempt: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        attempt()
    return caught.value.code(), caught.value.details() or ""


def test_an_answer_is_generated_on_request_and_stamped() -> None:
    source = ConstantEntropySource(9, name="device")
    with serve(source, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        assert source.requests == []
        before_ns = time.time_ns()
        answer = stub.GetEntropy(EntropyRequest(bytes_needed=5, sequence_id=77))
        assert before_ns <= answer.generation_timestamp_ns <= time.time_ns()
        assert (answer.data, answer.sequence_id, answer.device_id) == (b"\t" * 5, 77, "device")
        assert source.requests == [5]


def test_one_request_one_read_and_cancel_is_served() -> None:
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0", max_streams=1) as server,
        stub_for(server.address) as stub,
    ):
        for _ in range(5):
            answer = until_served(lambda: Conversation(stub).ask(2))
            assert answer.data == b"\t\t"


def until_served(attempt: Callable[[], Any]) -> Any:
    """Returns the first success; a cancelled stream gives its place back a moment later."""
    for _ in range(200):
        try:
            return attempt()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            time.sleep(0.05)
    raise AssertionError("the place of a cancelled stream was never given back")


@pytest.mark.parametrize("n", [0, -1, -(2**31), 101, 2**31 - 1])
def test_an_impossible_size_is_named(n: int) -> None:
    source = ConstantEntropySource()
    with (
        serve(source, "127.0.0.1:0", max_bytes_per_request=100) as server,
        stub_for(server.address) as stub,
    ):
        expected = (
            grpc.StatusCode.INVALID_ARGUMENT,
            f"bytes_needed={n}; ask for 1 to 100",
        )
        assert status_of(lambda: stub.GetEntropy(EntropyRequest(bytes_needed=n))) == expected
        assert status_of(lambda: Conversation(stub).ask(n)) == expected
        assert len(stub.GetEntropy(EntropyRequest(bytes_needed=100)).data) == 100
    assert source.requests == [100]


def test_a_broken_source_is_unavailable_until_it_recovers() -> None:
    source = ConstantEntropySource(name="laser", fail_with="shutter closed")
    with serve(source, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        code, details = status_of(lambda: stub.GetEntropy(EntropyRequest(bytes_needed=1)))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "laser" in details
        assert "shutter closed" in details
        client = QuantumGrpcSource(server.address)
        with pytest.raises(EntropyUnavailableError, match="shutter closed"):
            client.draw(1)
        source.fail_with = None
        assert client.draw(1).data
        client.close()


def test_fallback_bytes_never_pass_for_the_devices() -> None:
    broken = ConstantEntropySource(name="laser", fail_with="shutter closed")
    source = FallbackEntropySource(broken, ConstantEntropySource(1, name="spare"))
    with serve(source, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        code, details = status_of(lambda: stub.GetEntropy(EntropyRequest(bytes_needed=1)))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details == "only fallback bytes are available (laser: shutter closed)"
        broken.fail_with = None
        assert stub.GetEntropy(EntropyRequest(bytes_needed=1)).data == b"\x7f"


def test_parked_streams_leave_single_calls_alone() -> None:
    with (
        serve(ConstantEntropySource(), "127.0.0.1:0", max_streams=3) as server,
        stub_for(server.address) as stub,
    ):
        parked = [Conversation(stub) for _ in range(3)]
        for talk in parked:
            talk.ask(1)
        for _ in range(20):
            stub.GetEntropy(EntropyRequest(bytes_needed=1), timeout=60)
        code, details = status_of(lambda: Conversation(stub).ask(1))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "all 3 streams are taken" in details
        parked[0].finish()
        assert until_served(lambda: Conversation(stub).ask(1)).data
        for talk in parked[1:]:
            talk.finish()


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("x-key", "wrong"),),
        (("x-key", ""),),
        (("api-key", SECRET),),
        (("x-key", SECRET + "x"),),
    ],
)
def test_a_missing_or_wrong_key_is_refused_before_anything_is_drawn(
    metadata: tuple[tuple[str, str], ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source = ConstantEntropySource()
    with (
        serve(source, "127.0.0.1:0", api_key=SECRET, api_key_header="x-key") as server,
        stub_for(server.address) as stub,
    ):
        request = EntropyRequest(bytes_needed=1)
        for attempt in (
            lambda: stub.GetEntropy(request, metadata=metadata),
            lambda: Conversation(stub, metadata).ask(1),
        ):
            code, details = status_of(attempt)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert details == "send a valid API key in the metadata entry 'x-key'"
    assert source.requests == []
    assert "UNAUTHENTICATED" in caplog.text
    assert SECRET not in caplog.text


def test_malformed_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="port is missing"):
        serve(ConstantEntropySource(), "localhost")
    with pytest.raises(ConfigError, match="API key is empty"):
        serve(ConstantEntropySource(), "127.0.0.1:0", api_key="")
    with pytest.raises(ConfigError, match="lower-case"):
        serve(ConstantEntropySource(), "127.0.0.1:0", api_key=SECRET, api_key_header="Key")


def test_a_taken_port_is_an_error_not_a_second_server() -> None:
    with serve(ConstantEntropySource(), "127.0.0.1:0") as server:
        assert server.address == f"127.0.0.1:{server.port}"
        with pytest.raises(ServerStartError, match=f"cannot listen at 127.0.0.1:{server.port}"):
            serve(ConstantEntropySource(), server.address)


def test_the_default_is_this_machine_only() -> None:
    assert serve.__defaults__ == ("127.0.0.1:50051",)


def test_stopping_twice_is_no_error_and_frees_the_port() -> None:
    server = serve(ConstantEntropySource(), "127.0.0.1:0")
    assert server.wait(0.01) is True
    server.stop()
    server.stop()
    assert server.wait(60) is False
    with serve(ConstantEntropySource(), server.address):
        pass


def test_stopping_cancels_parked_streams() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serve(ConstantEntropySource(), "127.0.0.1:0"))
        stub = stack.enter_context(stub_for(server.address))
        talk = Conversation(stub)
        talk.ask(1)
        server.stop(grace_s=0)
        assert status_of(lambda: next(talk.call))[0] in {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        }


def test_a_socket_is_private_and_removed_at_the_end(socket_path: Path) -> None:
    with serve(ConstantEntropySource(), f"unix://{socket_path}") as server:
        mode = socket_path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert server.port == 0
        assert server.address == f"unix://{socket_path}"
        client = QuantumGrpcSource(server.address)
        assert client.draw(4).device_id == "constant"
        client.close()
    assert not socket_path.exists()


def test_the_mask_of_the_process_is_restored(socket_path: Path) -> None:
    with serve(ConstantEntropySource(), f"unix://{socket_path}"):
        other = socket_path.with_name("other")
        other.touch()
        assert stat.S_IMODE(other.stat().st_mode) != 0o600


def test_a_stale_socket_is_replaced(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    assert socket_path.is_socket()
    with serve(ConstantEntropySource(5), f"unix://{socket_path}") as server:
        client = QuantumGrpcSource(server.address)
        assert client.draw(1).data == b"\5"
        client.close()


def test_a_socket_in_use_is_left_alone(socket_path: Path) -> None:
    with serve(ConstantEntropySource(5), f"unix://{socket_path}") as server:
        with pytest.raises(ServerStartError, match="another server listens here") as caught:
            serve(ConstantEntropySource(6), server.address)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EADDRINUSE
        client = QuantumGrpcSource(server.address)
        assert client.draw(1).data == b"\5"
        client.close()


def test_a_file_that_is_no_socket_is_left_alone(socket_path: Path) -> None:
    socket_path.write_text("precious", "utf-8")
    with pytest.raises(ServerStartError, match="not a socket"):
        serve(ConstantEntropySource(), f"unix://{socket_path}")
    assert socket_path.read_text("utf-8") == "precious"


def test_a_missing_folder_is_an_error(socket_path: Path) -> None:
    with pytest.raises(ServerStartError, match="cannot listen at unix:///"):
        serve(ConstantEntropySource(), f"unix://{socket_path}/missing/e.sock")
