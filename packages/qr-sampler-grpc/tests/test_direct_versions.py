# SPDX-License-Identifier: Apache-2.0
"""Signatures for records, and all pairs of old and new clients and servers."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from qr_sampler import EntropyUnavailableError
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct import session
from qr_sampler_grpc.direct import source as source_module
from qr_sampler_grpc.direct.frame import (
    MalformedFrameError,
    RequestHeader,
    decode_request_header,
    encode_answer,
)
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.protocol.attestation import SigningKey, signed_message, signed_record
from qr_sampler_grpc.testing.keys import KeyPair, make_key_pair
from qr_sampler_grpc.testing.scripted_direct import (
    DirectBehaviour,
    DirectRequest,
    ScriptedDirectServer,
    direct_answer,
    right,
    tagged,
)

Sources = Callable[..., DirectSource]
Scripted = Callable[[DirectBehaviour], ScriptedDirectServer]
COMMITMENT = bytes(range(32))

OLD_WORDS = b"a frame of version 2 of the direct protocol; this side speaks 1"
OLD_REFUSAL = b"QRED\x01\x02\x07" + bytes(23) + bytes((0, len(OLD_WORDS))) + OLD_WORDS
"""What a server that knows the first version alone answers to the second."""


@pytest.fixture
def address(socket_path: Path) -> str:
    return f"unix://{socket_path}"


@pytest.fixture
def pair(tmp_path: Path) -> KeyPair:
    return make_key_pair(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions of the requests that a server has read."""
    versions: list[int] = []

    def decode(frame: bytes) -> RequestHeader:
        versions.append(frame[4])
        return decode_request_header(frame)

    monkeypatch.setattr(session, "decode_request_header", decode)
    return versions


@pytest.fixture
def old_server(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Servers know the first version alone; the versions of the requests that they have read."""
    versions: list[int] = []

    def decode(frame: bytes) -> RequestHeader:
        versions.append(frame[4])
        if frame[4] != 1:
            raise MalformedFrameError("a frame of version 2 of the direct protocol")
        return decode_request_header(frame)

    monkeypatch.setattr(session, "decode_request_header", decode)
    return versions


def signing_device(pair: KeyPair) -> Device:
    return Device(os.urandom, "serial 7", signing_key=SigningKey(pair.private))


def by_hand(preamble: bytes, number: int, time_ns: int, last: bytes) -> bytes:
    """Returns what an answer of the device above signs, written from ``PROTOCOL.md``."""
    head = struct.pack(">qqI", number, time_ns, 8) + b"serial 7"
    return preamble + head + struct.pack(">I", 32) + COMMITMENT + last


def exchanged(address: str, version: int) -> tuple[bytes, bytes, int, bytes]:
    """Returns the head, text, time and data of the raw answer to a request of *version*."""
    request = b"QRED" + bytes((version, 1)) + struct.pack(">HqII", 32, 7, 100, 0) + COMMITMENT
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(address.removeprefix("unix://"))
        client.sendall(request)
        head = client.recv(32, socket.MSG_WAITALL)
        if head[6]:
            return head, b"", 0, b""
        text = client.recv(8 + 32 + 64, socket.MSG_WAITALL)
        data = client.recv(100, socket.MSG_WAITALL)
    (time_ns,) = struct.unpack_from(">q", head, 16)
    return head, text, time_ns, data


@pytest.mark.parametrize("version", [1, 2])
def test_a_server_signs_by_the_version_of_the_request(
    address: str, pair: KeyPair, version: int
) -> None:
    with serve_direct(signing_device(pair), address):
        head, text, time_ns, data = exchanged(address, version)
    due = struct.pack(
        ">6sBBqqIBBH", b"QRED" + bytes((version, 2)), 0, 8, 7, time_ns, 100, 32, 64, 0
    )
    assert head == due
    assert text[:40] == b"serial 7" + COMMITMENT
    old = by_hand(b"qr-entropy-v1: ", 7, time_ns, data)
    new = by_hand(b"qr-entropy-v2: ", 7, time_ns, hashlib.sha256(data).digest())
    signed, other = (old, new) if version == 1 else (new, old)
    pair.public_key.verify(text[40:], signed)
    with pytest.raises(InvalidSignature):
        pair.public_key.verify(text[40:], other)


@pytest.mark.parametrize("version", [1, 2])
def test_a_request_is_refused_in_its_version(address: str, version: int) -> None:
    with serve_direct(Device(os.urandom, max_bytes_per_request=10), address):
        head, *_ = exchanged(address, version)
    assert head[:16] == b"QRED" + bytes((version, 2, 1, 0)) + struct.pack(">q", 7)


def test_what_no_version_reads_is_refused_in_the_first(address: str) -> None:
    with serve_direct(Device(os.urandom), address):
        head, *_ = exchanged(address, 3)
    assert head[:16] == b"QRED\x01\x02\x07\x00" + bytes(8)


def test_both_sides_new(
    address: str, pair: KeyPair, direct_source: Sources, asked: list[int]
) -> None:
    with serve_direct(signing_device(pair), address):
        source = direct_source(public_key=str(pair.public))
        draws = [source.committed_draw(100, COMMITMENT) for _ in range(3)]
        plain = source.draw(100)
    assert asked == [2, 2, 2, 2]
    for draw, commitment in [*((one, COMMITMENT) for one in draws), (plain, b"")]:
        assert draw.sequence_id is not None
        assert draw.device_timestamp_ns is not None
        record = signed_record(
            sequence_id=draw.sequence_id,
            generation_timestamp_ns=draw.device_timestamp_ns,
            device_id=draw.device_id,
            commitment=commitment,
            data_sha256=hashlib.sha256(draw.data).digest(),
        )
        pair.public_key.verify(draw.signature, record)


def test_without_a_key_nothing_is_asked_in_the_second_version(
    address: str, pair: KeyPair, direct_source: Sources, asked: list[int]
) -> None:
    with serve_direct(signing_device(pair), address):
        draw = direct_source().committed_draw(100, COMMITMENT)
    assert asked == [1]
    assert draw.sequence_id is None


def test_a_new_client_asks_an_old_server_again_once_for_each_connection(
    address: str, pair: KeyPair, direct_source: Sources, old_server: list[int]
) -> None:
    with serve_direct(signing_device(pair), address):
        source = direct_source(public_key=str(pair.public))
        draws = [source.committed_draw(100, COMMITMENT) for _ in range(4)]
    assert old_server == [2, 1, 1, 1, 1]
    for draw in draws:
        assert draw.signature_verified is True
        assert draw.commitment_echoed is True
        # It covers the data, which no record holds.
        assert draw.sequence_id is None
        assert len(draw.signature) == 64


def test_many_requests_at_once_are_asked_again_together(
    address: str, pair: KeyPair, direct_source: Sources, old_server: list[int]
) -> None:
    with serve_direct(signing_device(pair), address):
        source = direct_source(public_key=str(pair.public), max_bytes_per_request=10)
        draw = source.committed_draw(400, COMMITMENT)
    assert old_server == [2] + [1] * 40
    assert (len(draw.data), draw.signature_verified) == (400, True)


def test_an_old_server_that_was_replaced_signs_for_records(
    address: str, pair: KeyPair, direct_source: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = direct_source(public_key=str(pair.public))
    with monkeypatch.context() as patch:
        patch.setattr(session, "decode_request_header", only_first_version)
        with serve_direct(signing_device(pair), address):
            assert source.draw(8).sequence_id is None
    with serve_direct(signing_device(pair), address):
        assert source.draw(8).sequence_id is not None


def only_first_version(frame: bytes) -> RequestHeader:
    if frame[4] != 1:
        raise MalformedFrameError("a frame of version 2 of the direct protocol")
    return decode_request_header(frame)


class Signing:
    """Answers as a server of the second version, but for *changes*, and signs what it says."""

    def __init__(self, pair: KeyPair) -> None:
        self._key = SigningKey(pair.private)

    def answer(self, request: DirectRequest, **changes: Any) -> bytes:
        said = {"device_id": "scripted", "generation_timestamp_ns": 5} | changes.pop("said", {})
        data = tagged(request.number, request.size)
        told: dict[str, Any] = {
            "sequence_id": request.number,
            "commitment": request.commitment,
            **said,
        }
        if changes.pop("first", False):
            message = signed_message(**told, data=data)
        else:
            digest = hashlib.sha256(data).digest()
            message = signed_record(**{"data_sha256": digest, **told})
        return direct_answer(request, signature=self._key.sign(message), **changes)


@pytest.fixture
def signing(pair: KeyPair) -> Signing:
    return Signing(pair)


def flipped(frame: bytes, offset: int) -> bytes:
    return frame[:offset] + bytes((frame[offset] ^ 1,)) + frame[offset + 1 :]


TEXT = 32 + len("scripted")
BROKEN: dict[str, tuple[Callable[[Signing, DirectRequest], bytes], str]] = {
    "digest": (lambda s, r: s.answer(r, said={"data_sha256": bytes(32)}), "a wrong signature"),
    "data": (lambda s, r: flipped(s.answer(r), TEXT + 32 + 64), "a wrong signature"),
    "time": (lambda s, r: flipped(s.answer(r), 23), "a wrong signature"),
    "device id": (lambda s, r: flipped(s.answer(r), 33), "a wrong signature"),
    "signature": (lambda s, r: flipped(s.answer(r), TEXT + 32 + 9), "a wrong signature"),
    "commitment": (lambda s, r: flipped(s.answer(r), TEXT), "another commitment"),
    "signed commitment": (lambda s, r: s.answer(r, said={"commitment": b"x"}), "a wrong sig"),
    "number": (lambda s, r: flipped(s.answer(r), 15), "instead of"),
    "signed number": (lambda s, r: s.answer(r, said={"sequence_id": 9}), "a wrong signature"),
    "unsigned": (lambda s, r: direct_answer(r), "not signed"),
    "signed as in the first version": (lambda s, r: s.answer(r, first=True), "a wrong signature"),
    "answered in the first version": (
        lambda s, r: s.answer(r, first=True, version=1),
        "a frame of version 1 of the direct protocol where 2 is due",
    ),
    "refused in the first version": (
        lambda s, r: encode_answer(r.number, Status.UNREADABLE),
        "a frame of version 1 of the direct protocol where 2 is due",
    ),
    "unreadable, by a new server": (
        lambda s, r: encode_answer(0, Status.UNREADABLE, version=2),
        "does not understand the request",
    ),
    "cut refusal": (lambda s, r: OLD_REFUSAL[:-1], "ended where"),
    "noise behind a version": (
        lambda s, r: b"QRED\x02\x02" + b"\xff" * 200,
        "the number -1 instead of",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_answer_is_never_used_nor_asked_for_again(
    broken: str,
    signing: Signing,
    pair: KeyPair,
    scripted_direct: Scripted,
    direct_source: Sources,
) -> None:
    make, says = BROKEN[broken]

    def behaviour(end: socket.socket, request: DirectRequest, count: int) -> object:
        end.sendall(make(signing, request))
        return says != "ended where"

    server = scripted_direct(behaviour)
    source = direct_source(public_key=str(pair.public))
    with pytest.raises(EntropyUnavailableError, match=says):
        source.committed_draw(40, COMMITMENT)
    assert [request.version for request in server.requests] == [2]


def test_a_commitment_that_did_not_come_back_is_not_for_records(
    signing: Signing, pair: KeyPair, scripted_direct: Scripted, direct_source: Sources
) -> None:
    def silent(end: socket.socket, request: DirectRequest, count: int) -> object:
        end.sendall(signing.answer(request, said={"commitment": b""}, commitment=b""))
        return True

    scripted_direct(silent)
    draw = direct_source(public_key=str(pair.public)).committed_draw(40, COMMITMENT)
    assert (draw.commitment_echoed, draw.signature_verified) == (False, True)
    assert draw.sequence_id is None


def refusing(end: socket.socket, request: DirectRequest, count: int) -> object:
    end.sendall(OLD_REFUSAL)
    return False


def test_a_server_that_reads_no_version_is_asked_twice(
    pair: KeyPair, scripted_direct: Scripted, direct_source: Sources
) -> None:
    server = scripted_direct(refusing)
    source = direct_source(public_key=str(pair.public))
    with pytest.raises(EntropyUnavailableError, match="does not understand the request"):
        source.draw(40)
    assert [request.version for request in server.requests] == [2, 1]


def test_who_has_read_a_version_cannot_say_that_it_does_not(
    signing: Signing,
    pair: KeyPair,
    scripted_direct: Scripted,
    direct_source: Sources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_module, "unguessable", itertools.count(1).__next__)

    def behaviour(end: socket.socket, request: DirectRequest, count: int) -> object:
        if request.number % 2 == 0:
            return refusing(end, request, count)
        end.sendall(signing.answer(request))
        return True

    server = scripted_direct(behaviour)
    source = direct_source(public_key=str(pair.public), max_bytes_per_request=20)
    assert source.draw(20).signature_verified is True
    with pytest.raises(EntropyUnavailableError, match="does not understand the request"):
        source.draw(20)
    # The bytes of the first of two answers are counted: they were measured.
    with pytest.raises(EntropyUnavailableError, match="does not understand") as caught:
        source.draw(40)
    assert caught.value.dropped_bytes == 20
    assert {request.version for request in server.requests} == {2}


def test_old_clients_see_the_same_frames(
    scripted_direct: Scripted, direct_source: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "unguessable", lambda: 7)
    server = scripted_direct(right)
    assert direct_source().committed_draw(4, b"\xaa\xbb").commitment_echoed is True
    (request,) = server.requests
    assert request[:3] == (7, 4, b"\xaa\xbb")
    assert request.version == 1
