# SPDX-License-Identifier: Apache-2.0
"""A probe of real servers, good and bad, in every profile and over every kind of connection."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from qr_sampler import ConfigError
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.probe import Plan, ProbeReport, examine, target_for
from qr_sampler_grpc.probe.configuration import KEY_FILE_PLACEHOLDER, configuration_lines
from qr_sampler_grpc.probe.contact import is_reachable, open_channel, repeats_sequence_ids
from qr_sampler_grpc.probe.size_limit import SizeLimit, _search
from qr_sampler_grpc.probe.target import GrpcTarget
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.purity_service_pb2 import DrawRequest, DrawResponse
from qr_sampler_grpc.proto.qrng_pb2 import RandomRequest, RandomResponse
from qr_sampler_grpc.protocol.attestation import SigningKey
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.settings import GrpcSettings
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.keys import make_key_pair

SIMPLE_SERVER = Path(__file__).parents[3] / "servers" / "simple_urandom_server.py"
QRNG_METHOD = "/qrng.QuantumRNG/GetRandomBytes"
PURITY_METHOD = "/qr_purity.PurityService/GetDraw"
QUICK = Plan(draws=6, draw_bytes=2048, search_bytes=0)
SECRET = "s3cret-key-0xdeadbeef"


@contextmanager
def unwatched(_description: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def probed(address: str, profile: str = "", plan: Plan = QUICK, **options: Any) -> ProbeReport:
    target = target_for(address, profile, **options)
    return examine(target, plan.checked(target), unwatched)


def reasons(report: ProbeReport) -> list[str]:
    return [mode.reason for mode in report.modes if mode.offered]


def test_the_kit_is_usable_in_every_mode() -> None:
    plan = Plan(draws=6, draw_bytes=2048, search_bytes=2**17, thorough=True)
    with serve(os.urandom, "127.0.0.1:0", device_id="unit-3", max_bytes_per_request=20_000) as kit:
        report = probed(kit.address, plan=plan)
        assert [mode.works for mode in report.modes] == [True, True, True]
        assert report.usable
        assert report.conforms
        assert report.size_limit is not None
        limit = report.size_limit
        assert (limit.accepted_bytes, limit.refused_bytes) == (20_000, 20_001)
        found = report.provenance
        assert found is not None
        assert found.device_ids == ("unit-3",)
        assert (found.sequence_id_echoed, found.commitment_echoed) == (True, True)
        assert found.clock is not None
        assert found.clock.is_consistent
        # Both sides read the same clock, and two readings of it are never at the same moment.
        assert found.clock.at_least_ms <= 1.0
        assert found.clock.at_most_ms >= -1.0
        assert all(check.passed for check in report.sanity)
        for mode in report.modes:
            assert mode.p50_ms is not None
            assert mode.p99_ms is not None
            assert 0.0 < mode.p50_ms <= mode.p99_ms
        assert report.spent_bytes <= plan.most_bytes(target_for(kit.address))


def test_what_is_to_be_pasted_makes_a_source_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(draws=3, draw_bytes=100, search_bytes=2**12)
    with serve(os.urandom, "127.0.0.1:0", max_bytes_per_request=300) as kit:
        report = probed(kit.address, plan=plan, timeout_ms=7000.0)
        assert report.configuration["QR_GRPC_MODE"] == report.fastest_mode
        assert report.configuration["QR_GRPC_MAX_BYTES_PER_REQUEST"] == "300"
        for name, value in report.configuration.items():
            monkeypatch.setenv(name, value)
        assert GrpcSettings.load().timeout_ms == 7000.0
        source = QuantumGrpcSource.from_environment()
        assert source.draw(1000).requests == 4
        source.close()


def test_the_smallest_server_passes_as_a_process() -> None:
    with subprocess.Popen(
        [sys.executable, str(SIMPLE_SERVER), "--address", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            report = probed(address, plan=Plan(draws=3, thorough=True, search_bytes=0))
        finally:
            process.terminate()
    assert report.usable
    assert report.conforms
    assert {case.outcome for case in report.cases} <= {"passed", "not offered"}
    assert {case.case for case in report.cases if case.outcome == "not offered"} >= {
        "signature",
        "health",
        "reflection",
    }


def test_no_server_is_listening(free_address: str) -> None:
    report = probed(free_address, plan=Plan(draws=2, thorough=True))
    assert not report.usable
    assert report.configuration == {}
    assert (report.cases, report.sanity, report.provenance) == ((), (), None)
    assert all("no answer from" in reason for reason in reasons(report))
    assert report.spent_bytes == 0


@pytest.fixture
def free_address() -> str:
    with serve(os.urandom, "127.0.0.1:0") as server:
        return server.address


def qrng_answer(message: bytes, context: grpc.ServicerContext) -> bytes:
    request = RandomRequest.FromString(message)
    if request.num_bytes > 13_312:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "at most 13312 bytes")
    return RandomResponse(
        data=os.urandom(request.num_bytes),
        timestamp=time.time_ns() // 1000,
        device_id="firefly-1",
    ).SerializeToString()


def test_a_qrng_server_within_its_limits(scripted: Callable[..., Any], tmp_path: Path) -> None:
    server = scripted(qrng_answer, QRNG_METHOD)
    key_file = tmp_path / "key"
    key_file.write_text(SECRET, "utf-8")
    plan = Plan(draws=5, search_bytes=2**16)
    report = probed(server.address, "qrng", plan, api_key_file=key_file)
    assert report.usable
    assert [(mode.mode, mode.works, mode.offered) for mode in report.modes] == [
        ("unary", True, True),
        ("server_streaming", False, False),
        ("bidi_streaming", False, False),
    ]
    assert report.size_limit is not None
    assert (report.size_limit.accepted_bytes, report.size_limit.refused_bytes) == (13_312, 13_313)
    assert report.provenance is not None
    assert report.provenance.device_ids == ("firefly-1",)
    assert report.provenance.commitment_echoed is None
    assert report.provenance.clock is not None
    assert report.provenance.clock.is_consistent
    assert all(sent["api-key"] == SECRET for sent in server.metadata)
    assert report.configuration["QR_GRPC_PROFILE"] == "qrng"
    assert report.configuration["QR_GRPC_API_KEY_FILE"] == str(key_file)
    assert SECRET not in repr(report)
    assert {case.case for case in report.cases} == {"health", "reflection"}


def test_a_quota_of_a_day_is_kept_before_anything_is_asked(scripted: Callable[..., Any]) -> None:
    server = scripted(qrng_answer, QRNG_METHOD)
    with pytest.raises(ConfigError, match=r"bytes are more than the 500,000,000 a day that"):
        probed(server.address, "qrng", Plan(draws=50_000))
    assert server.requests == []


def purity_answer(message: bytes, _context: grpc.ServicerContext) -> bytes:
    request = DrawRequest.FromString(message)
    (number,) = struct.unpack(">Q", os.urandom(8))
    return DrawResponse(
        u=(number // 2**12 + 0.5) / 2**52,
        sequence_id=request.sequence_id,
        generation_timestamp_ns=time.time_ns(),
        source_id="diode",
    ).SerializeToString()


def test_a_purity_server_is_asked_for_numbers(scripted: Callable[..., Any]) -> None:
    server = scripted(purity_answer, PURITY_METHOD)
    report = probed(server.address, "qr_purity", Plan(draws=30))
    assert report.fastest_mode == "unary"
    # The scripted server has no stream.
    assert [mode.works for mode in report.modes] == [True, False, False]
    assert report.usable
    assert report.size_limit is None
    assert report.provenance is not None
    assert report.provenance.device_ids == ("diode",)
    assert report.provenance.sequence_id_echoed is True
    assert {check.name for check in report.sanity} == {"uniform numbers", "repetition"}
    assert report.configuration["QR_SAMPLE_COUNT"] == "8"
    assert report.configuration["QR_SIGNAL_AMPLIFIER_TYPE"]
    assert "QR_GRPC_MAX_BYTES_PER_REQUEST" not in report.configuration


def answering(**changes: Callable[[EntropyRequest], object]) -> Callable[..., bytes]:
    def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
        request = EntropyRequest.FromString(message)
        if request.bytes_needed > 2**20:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many")
        fields: dict[str, Any] = {
            "data": os.urandom(request.bytes_needed),
            "sequence_id": request.sequence_id,
            "commitment": request.commitment,
        }
        fields.update((name, change(request)) for name, change in changes.items())
        return EntropyResponse(**fields).SerializeToString()

    return answer


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (answering(data=lambda request: b"x" * (request.bytes_needed - 1)), "received 2047"),
        (answering(sequence_id=lambda request: request.sequence_id + 1), "names request"),
        (answering(commitment=lambda _: b"?"), "another commitment"),
    ],
)
def test_a_broken_server_is_not_usable(
    scripted: Callable[..., Any], behaviour: Callable[..., bytes], says: str
) -> None:
    server = scripted(behaviour)
    report = probed(server.address, plan=Plan(draws=3, draw_bytes=2048, thorough=True))
    assert not report.usable
    assert says in reasons(report)[0]
    # The cases say what else is wrong.
    assert not report.conforms


def test_constant_bytes_are_not_usable(scripted: Callable[..., Any]) -> None:
    server = scripted(answering(data=lambda request: bytes(request.bytes_needed)))
    report = probed(server.address)
    assert report.fastest_mode == "unary"
    assert not report.usable
    assert all(check.passed is False for check in report.sanity)


def test_stamps_from_a_store_are_noticed(scripted: Callable[..., Any]) -> None:
    stamps = iter(range(10**18, 10**19, 10**9))
    server = scripted(answering(generation_timestamp_ns=lambda _: next(stamps)))
    report = probed(server.address)
    assert report.provenance is not None
    assert report.provenance.clock is not None
    assert not report.provenance.clock.is_consistent
    assert report.provenance.device_ids == ()


def test_a_failing_case_counts_only_when_all_were_asked_for(scripted: Callable[..., Any]) -> None:
    # Answers a request for no bytes with no bytes.
    server = scripted(answering())
    assert probed(server.address).usable
    report = probed(server.address, plan=Plan(draws=3, draw_bytes=2048, thorough=True))
    assert not report.conforms
    assert not report.usable


@pytest.mark.parametrize(
    ("key", "says"), [("", "asks for an API key and none is set"), ("wrong", "does not accept")]
)
def test_a_missing_or_wrong_key_is_named(
    key: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", key)
    with serve(os.urandom, "127.0.0.1:0", api_key=SECRET) as server:
        report = probed(server.address)
    assert not report.usable
    assert all(says in reason for reason in reasons(report))
    assert report.cases == ()


def test_a_key_of_the_environment_is_used_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", SECRET)
    with serve(os.urandom, "127.0.0.1:0", api_key=SECRET) as server:
        report = probed(server.address)
        assert repr(target_for(server.address)).count(SECRET) == 0
    assert report.usable
    assert report.configuration["QR_GRPC_API_KEY_FILE"] == KEY_FILE_PLACEHOLDER
    assert SECRET not in repr(report)
    assert {"key-missing", "key-wrong"} <= {
        case.case for case in report.cases if case.outcome == "passed"
    }


def test_signatures_are_verified(tmp_path: Path) -> None:
    ours, other = make_key_pair(tmp_path), make_key_pair(tmp_path, "other")
    with serve(os.urandom, "127.0.0.1:0", signing_key=SigningKey(ours.private)) as server:
        good = probed(server.address, public_key=ours.public)
        bad = probed(server.address, public_key=other.public)
        unknown = probed(server.address)
    assert good.usable
    assert good.spent_bytes == unknown.spent_bytes + 64
    assert good.provenance is not None
    assert good.provenance.signature_verified
    assert good.configuration["QR_GRPC_PUBLIC_KEY"] == str(ours.public)
    assert not bad.usable
    assert bad.provenance is not None
    assert "not signed with the key" in bad.provenance.signature_words
    assert unknown.usable
    assert unknown.provenance is not None
    assert "no public key" in unknown.provenance.signature_words


def test_the_direct_protocol(socket_path: Path) -> None:
    device = Device(os.urandom, "bench", max_bytes_per_request=5000)
    with serve_direct(device, f"unix://{socket_path}") as server:
        plan = Plan(draws=5, draw_bytes=2048, search_bytes=2**16)
        report = probed(server.address, "direct", plan)
        with pytest.raises(ConfigError, match="about the profile"):
            probed(server.address, "direct", Plan(thorough=True))
    assert report.usable
    assert report.fastest_mode == "direct"
    assert report.size_limit is not None
    assert report.size_limit.accepted_bytes == 5000
    assert report.provenance is not None
    assert report.provenance.commitment_echoed is True
    assert report.cases == ()
    assert report.configuration == {
        "QR_ENTROPY_SOURCE_TYPE": "direct",
        "QR_DIRECT_SERVER_ADDRESS": f"unix://{socket_path}",
        "QR_DIRECT_MAX_BYTES_PER_REQUEST": "5000",
    }


def test_options_that_a_protocol_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_ca_cert: the direct protocol"):
        target_for("unix:///x", "direct", tls_ca_cert=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match="not the path of a Unix domain socket"):
        target_for("127.0.0.1:1", "direct")
    with pytest.raises(ConfigError, match="no such profile"):
        target_for("127.0.0.1:1", "other")
    with pytest.raises(TypeError, match="no target"):
        configuration_lines(
            object(),  # type: ignore[arg-type]
            mode="unary",
            largest_bytes=None,
            verified=False,
        )


def test_grpc_over_a_unix_socket(socket_path: Path) -> None:
    with serve(os.urandom, f"unix://{socket_path}") as server:
        report = probed(server.address)
    assert report.usable
    assert report.configuration["QR_GRPC_SERVER_ADDRESS"] == f"unix://{socket_path}"


def test_a_custom_method_is_probed_as_what_it_is(scripted: Callable[..., Any]) -> None:
    server = scripted(qrng_answer, "/lab.Box/Measure")
    report = probed(server.address, method_path="/lab.Box/Measure")
    assert report.usable
    assert report.profile == "custom"
    assert report.configuration["QR_GRPC_METHOD_PATH"] == "/lab.Box/Measure"
    assert report.configuration["QR_GRPC_PROFILE"] == "custom"


def test_a_refusal_says_nothing_about_sequence_ids(scripted: Callable[..., Any]) -> None:
    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        return b""

    for behaviour in (refuse, lambda _request, _context: b"\xff"):
        target = target_for(scripted(behaviour).address)
        assert isinstance(target, GrpcTarget)
        with open_channel(target.options) as channel:
            assert repeats_sequence_ids(channel, target.options) is None
            assert is_reachable(channel, target.options)
    scripted_qrng = target_for(scripted(qrng_answer, QRNG_METHOD).address, "qrng")
    assert isinstance(scripted_qrng, GrpcTarget)
    with open_channel(scripted_qrng.options) as channel:
        assert repeats_sequence_ids(channel, scripted_qrng.options) is None


@pytest.mark.parametrize("limit", [100, 101, 127, 128, 13_312, 16_383])
@pytest.mark.parametrize("tells", [True, False])
def test_the_limit_is_found_within_the_budget(limit: int, tells: bool) -> None:
    asked: list[int] = []

    def ask(n: int) -> str:
        asked.append(n)
        if n <= limit:
            return ""
        return f"bytes_needed={n}; ask for 1 to {limit:,}" if tells else "no"

    found = _search(ask, 100, 10**6)
    assert (found.accepted_bytes, found.refused_bytes) == (limit, limit + 1)
    assert found.spent_bytes == sum(n for n in asked if n <= limit)
    refusals = sum(n > limit for n in asked)
    assert refusals <= (2 if tells else 20)


def test_the_search_ends_with_its_budget() -> None:
    found = _search(lambda _n: "", 100, 1000)
    assert found == SizeLimit(accepted_bytes=400, spent_bytes=600)
    assert found.refused_bytes != found.accepted_bytes + 1
    found = _search(lambda n: "no" if n > 150 else "", 100, 200)
    assert found.spent_bytes <= 200
