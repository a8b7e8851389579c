# SPDX-License-Identifier: Apache-2.0
"""Health, reflection and metrics, asked by the stock clients of each."""

from __future__ import annotations

import builtins
import logging
import queue
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from prometheus_client.parser import text_string_to_metric_families

from qr_sampler import ConfigError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server import ServerStartError, serve, serving
from qr_sampler_grpc.server.serving import REFLECTION_STREAMS

SERVICE = "qr_entropy.EntropyService"
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
ONE = EntropyRequest(bytes_needed=1)


@contextmanager
def served(source: Any, **options: Any) -> Iterator[tuple[Any, grpc.Channel]]:
    with (
        serve(source, "127.0.0.1:0", **options) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield server, channel


def states(channel: grpc.Channel) -> set[int]:
    stub = HealthStub(channel)
    return {stub.Check(HealthCheckRequest(service=name)).status for name in ("", SERVICE)}


def test_health_follows_the_device_and_never_touches_it() -> None:
    source = ConstantEntropySource()
    with served(source, api_key="s3cret") as (_, channel):
        draw = EntropyServiceStub(channel).GetEntropy
        metadata = (("api-key", "s3cret"),)
        assert states(channel) == {SERVING}
        source.fail_with = "shutter closed"
        assert states(channel) == {SERVING}
        with pytest.raises(grpc.RpcError):
            draw(ONE, metadata=metadata)
        assert states(channel) == {NOT_SERVING}
        source.fail_with = None
        before = list(source.requests)
        assert states(channel) == {NOT_SERVING}
        assert source.requests == before
        draw(ONE, metadata=metadata)
        assert states(channel) == {SERVING}


def test_a_device_that_knows_that_it_is_off_does_not_serve() -> None:
    with served(ConstantEntropySource(fail_with="unplugged")) as (_, channel):
        assert states(channel) == {NOT_SERVING}


def test_an_unknown_service_is_not_found() -> None:
    with served(ConstantEntropySource()) as (_, channel), pytest.raises(grpc.RpcError) as caught:
        HealthStub(channel).Check(HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watchers_learn_of_the_end_before_it_comes() -> None:
    source = ConstantEntropySource()
    with ExitStack() as stack:
        server, channel = stack.enter_context(served(source))
        watch = HealthStub(channel).Watch(HealthCheckRequest(service=SERVICE))
        assert next(watch).status == SERVING
        source.fail_with = "shutter closed"
        with pytest.raises(grpc.RpcError):
            EntropyServiceStub(channel).GetEntropy(ONE)
        assert next(watch).status == NOT_SERVING
        source.fail_with = None
        EntropyServiceStub(channel).GetEntropy(ONE)
        assert next(watch).status == SERVING
        stopping = threading.Thread(target=server.stop, args=(60.0,))
        stopping.start()
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        stopping.join()


def test_watchers_take_no_threads_from_those_who_draw() -> None:
    with served(ConstantEntropySource(), max_streams=1) as (server, channel):
        watches = [HealthStub(channel).Watch(HealthCheckRequest()) for _ in range(30)]
        for watch in watches:
            assert next(watch).status == SERVING
        assert EntropyServiceStub(channel).GetEntropy(ONE, timeout=60).data
        server.stop(0)


def test_watchers_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_WATCHES", 2)
    with served(ConstantEntropySource()) as (server, channel):
        stub = HealthStub(channel)
        watches = [stub.Watch(HealthCheckRequest()) for _ in range(2)]
        assert [next(watch).status for watch in watches] == [SERVING, SERVING]
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(HealthCheckRequest()))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watches[0].cancel()
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            try:
                assert next(stub.Watch(HealthCheckRequest())).status == SERVING
                break
            except grpc.RpcError:
                time.sleep(0.01)
        else:
            raise AssertionError("the place of a watcher that has gone was never given back")
        server.stop(0)


def test_reflection_shows_the_contract_to_stock_tools() -> None:
    with served(ConstantEntropySource(), api_key="s3cret") as (_, channel):
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        assert {method.name for method in service.methods} == {"GetEntropy", "StreamEntropy"}
        fields = service.methods_by_name["GetEntropy"].input_type.fields_by_name
        assert fields["commitment"].number == 3


def test_parked_reflection_takes_no_threads_from_those_who_draw() -> None:
    with served(ConstantEntropySource(), max_streams=1) as (_, channel):
        stub = ServerReflectionStub(channel)
        parked = []
        for _ in range(REFLECTION_STREAMS):
            outgoing: queue.SimpleQueue[ServerReflectionRequest | None] = queue.SimpleQueue()
            call = stub.ServerReflectionInfo(iter(outgoing.get, None))
            outgoing.put(ServerReflectionRequest(list_services=""))
            next(call)
            parked.append((outgoing, call))
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")])))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert EntropyServiceStub(channel).GetEntropy(ONE, timeout=60).data
        for outgoing, _ in parked:
            outgoing.put(None)


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the packages of the extra `server` impossible to import."""
    real_import: Callable[..., Any] = builtins.__import__

    def limited(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] in {"grpc_health", "grpc_reflection", "prometheus_client"}:
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", limited)


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_the_bytes_are_served_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with served(ConstantEntropySource(9)) as (server, channel):
        stub = EntropyServiceStub(channel)
        assert stub.GetEntropy(ONE).data == b"\t"
        with pytest.raises(grpc.RpcError) as caught:
            HealthStub(channel).Check(HealthCheckRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.metrics_address == ""
    assert caplog.text.count("not offered: ") == 1
    assert "grpcio-health-checking or grpcio-reflection" in caplog.text
    with pytest.raises(ConfigError, match="pip install prometheus-client"):
        serve(ConstantEntropySource(), "127.0.0.1:0", metrics_address="127.0.0.1:0")


def scrape(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happened() -> None:
    source = ConstantEntropySource()
    with served(source, metrics_address="127.0.0.1:0") as (server, channel):
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d+", server.metrics_address)
        stub = EntropyServiceStub(channel)
        for n in (3, 4):
            stub.GetEntropy(EntropyRequest(bytes_needed=n))
        with pytest.raises(grpc.RpcError):
            stub.GetEntropy(EntropyRequest())
        outgoing: queue.SimpleQueue[EntropyRequest | None] = queue.SimpleQueue()
        call = stub.StreamEntropy(iter(outgoing.get, None))
        for _ in range(2):
            outgoing.put(EntropyRequest(bytes_needed=10))
            next(call)
        seen = scrape(server.metrics_address)
        assert seen["qr_entropy_requests_total['GetEntropy', 'OK']"] == 2
        assert seen["qr_entropy_requests_total['GetEntropy', 'INVALID_ARGUMENT']"] == 1
        assert seen["qr_entropy_requests_total['OK', 'StreamEntropy']"] == 2
        assert seen["qr_entropy_bytes_total[]"] == 27
        assert seen["qr_entropy_device_seconds_count[]"] == 4
        assert seen["qr_entropy_open_streams[]"] == 1
        assert seen["qr_entropy_serving[]"] == 1
        outgoing.put(None)
        assert list(call) == []
        source.fail_with = "shutter closed"
        with pytest.raises(grpc.RpcError):
            stub.GetEntropy(ONE)
        seen = scrape(server.metrics_address)
        assert seen["qr_entropy_requests_total['GetEntropy', 'UNAVAILABLE']"] == 1
        assert (seen["qr_entropy_open_streams[]"], seen["qr_entropy_serving[]"]) == (0, 0)
        address = server.metrics_address
    with pytest.raises(OSError, match="refused"):
        scrape(address)


def test_two_servers_count_apart() -> None:
    with ExitStack() as stack:
        pairs = [
            stack.enter_context(served(ConstantEntropySource(), metrics_address="127.0.0.1:0"))
            for _ in range(2)
        ]
        EntropyServiceStub(pairs[0][1]).GetEntropy(ONE)
        counts = [scrape(server.metrics_address)["qr_entropy_bytes_total[]"] for server, _ in pairs]
    assert counts == [1, 0]


def test_metrics_listen_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    try:
        server = serve(ConstantEntropySource(), "127.0.0.1:0", metrics_address="[::1]:0")
    except ServerStartError as error:
        pytest.skip(f"needs IPv6: {error}")
    with server:
        assert scrape(server.metrics_address)["qr_entropy_serving[]"] == 1


def test_an_unavailable_metrics_address_starts_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerStartError, match="cannot offer metrics at 127"):
            serve(ConstantEntropySource(), "127.0.0.1:0", metrics_address=taken_address)
        with pytest.raises(ServerStartError, match="cannot listen"):
            serve(ConstantEntropySource(), taken_address, metrics_address="127.0.0.1:0")
    with pytest.raises(ConfigError, match="use host:port"):
        serve(ConstantEntropySource(), "127.0.0.1:0", metrics_address="unix:///run/metrics")
    left = [one.name for one in threading.enumerate() if one.name == "qr-entropy-metrics"]
    assert left == []
