# SPDX-License-Identifier: Apache-2.0
"""Who may call a server: certificates made by another library, keys, and exposed addresses."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from qr_sampler import ConfigError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server import ServerTls, serve
from qr_sampler_grpc.server.binding import check_exposure
from qr_sampler_grpc.server.keys import ApiKeys, read_secrets
from qr_sampler_grpc.testing.certificates import Identity, issue

HEALTH_CHECK = Path(__file__).parents[3] / "deployments" / "docker" / "health_check.py"
SECRETS = ("s3cret-one", "s3cret-two", "s3cret-three")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Identity:
    return issue(folder, "authority")


@pytest.fixture(scope="module")
def server_identity(folder: Path, authority: Identity) -> Identity:
    return issue(folder, "server", authority)


@pytest.fixture(scope="module")
def client_identity(folder: Path, authority: Identity) -> Identity:
    return issue(folder, "client", authority)


def ask(address: str, ca: Identity | None, client: Identity | None = None) -> bytes:
    if ca is None:
        channel = grpc.insecure_channel(address)
    else:
        credentials = grpc.ssl_channel_credentials(
            ca.certificate.read_bytes(),
            client.private_key.read_bytes() if client else None,
            client.certificate.read_bytes() if client else None,
        )
        channel = grpc.secure_channel(address, credentials)
    with channel:
        request = EntropyRequest(bytes_needed=2)
        answer = EntropyServiceStub(channel).GetEntropy(request, timeout=60)
        data: bytes = answer.data
        return data


def code_of(attempt: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        attempt()
    code: grpc.StatusCode = caught.value.code()
    return code


def test_tls_serves_those_who_speak_it(authority: Identity, server_identity: Identity) -> None:
    tls = ServerTls(
        certificate=server_identity.certificate, private_key=server_identity.private_key
    )
    source = ConstantEntropySource(9)
    with serve(source, "127.0.0.1:0", tls=tls) as server:
        assert ask(server.address, authority) == b"\t\t"
        assert code_of(lambda: ask(server.address, None)) is grpc.StatusCode.UNAVAILABLE
    assert source.requests == [2]


def test_tls_works_on_a_unix_socket_too(
    authority: Identity, server_identity: Identity, socket_path: Path
) -> None:
    tls = ServerTls(
        certificate=server_identity.certificate, private_key=server_identity.private_key
    )
    with serve(ConstantEntropySource(9), f"unix://{socket_path}", tls=tls):
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
        options = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(f"unix:{socket_path}", credentials, options) as channel:
            stub = EntropyServiceStub(channel)
            assert stub.GetEntropy(EntropyRequest(bytes_needed=1), timeout=60).data == b"\t"


def test_mutual_tls_asks_for_a_certificate_of_its_authority(
    folder: Path, authority: Identity, server_identity: Identity, client_identity: Identity
) -> None:
    tls = ServerTls(
        certificate=server_identity.certificate,
        private_key=server_identity.private_key,
        client_ca=authority.certificate,
    )
    stranger = issue(folder, "stranger", issue(folder, "other authority"))
    source = ConstantEntropySource(9)
    with serve(source, "127.0.0.1:0", tls=tls) as server:
        assert ask(server.address, authority, client_identity) == b"\t\t"
        for client in (None, stranger):
            attempt = partial(ask, server.address, authority, client)
            assert code_of(attempt) is grpc.StatusCode.UNAVAILABLE
    assert source.requests == [2]


@pytest.mark.skipif(not HEALTH_CHECK.exists(), reason="the deployments are not in the sdist")
def test_health_check_of_the_deployments_speaks_tls(
    authority: Identity, server_identity: Identity, client_identity: Identity
) -> None:
    pytest.importorskip("grpc_health", reason="the extra `server` is not installed")

    def check(*options: str | Path) -> tuple[int, str]:
        command = [sys.executable, "-W", "error", str(HEALTH_CHECK), *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stderr

    tls = ServerTls(
        certificate=server_identity.certificate,
        private_key=server_identity.private_key,
        client_ca=authority.certificate,
    )
    ours = ("--tls-certificate", client_identity.certificate)
    key = ("--tls-private-key", client_identity.private_key)
    with serve(ConstantEntropySource(9), "127.0.0.1:0", tls=tls) as server:
        ca = ("--tls-ca", authority.certificate)
        assert check(*ca, *ours, *key, server.address) == (0, "")
        # In plain text, without its own certificate, and with half of one.
        assert check(server.address)[0] == 1
        assert check(*ca, server.address)[0] == 1
        assert check(*ca, *ours, server.address)[0] == 2


def test_unusable_files_are_named_and_never_quoted(
    folder: Path, authority: Identity, server_identity: Identity, client_identity: Identity
) -> None:
    locked = folder / "locked.key"
    locked.write_bytes(server_identity.key_as(serialization.BestAvailableEncryption(b"p")))
    noise = folder / "noise.pem"
    noise.write_bytes(b"\xff\xfe not a certificate")
    certificate, key = server_identity.certificate, server_identity.private_key
    cases: list[tuple[Path, Path, Path | None, str]] = [
        (folder / "absent", key, None, "cannot read the certificate .*absent: No such file"),
        (certificate, folder / "absent", None, "cannot read the private key .*absent: No such"),
        (certificate, key, folder / "absent", "client authority .*absent: No such file"),
        (certificate, folder, None, "cannot read the private key .*: Is a directory"),
        (certificate, client_identity.private_key, None, "does not belong to the certificate"),
        (certificate, locked, None, "locked.key holds no unencrypted private key"),
        (certificate, certificate, None, "server.pem holds no unencrypted private key"),
        (certificate, noise, None, "noise.pem holds no unencrypted private key"),
        (key, key, None, "server.key holds no certificate"),
        (noise, key, None, "noise.pem holds no certificate"),
        (certificate, key, key, "server.key holds no certificate"),
    ]
    secret_lines = key.read_text("ascii").splitlines()[1:-1]
    for chosen, chosen_key, ca, says in cases:
        tls = ServerTls(certificate=chosen, private_key=chosen_key, client_ca=ca)
        with pytest.raises(ConfigError, match=says) as caught:
            serve(ConstantEntropySource(), "127.0.0.1:0", tls=tls)
        shown = f"{caught.value} {caught.value.__cause__} {tls!r}"
        assert not any(line in shown for line in secret_lines)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "entropy.example:1", "192.0.2.1:0"])
def test_an_address_that_others_reach_needs_a_certificate_or_a_word(address: str) -> None:
    place = Address.parse(address, listening=True)
    with pytest.raises(ConfigError, match=r"tls=ServerTls.*insecure=True"):
        serve(ConstantEntropySource(), address)
    check_exposure(place, encrypted=True, insecure=False)
    check_exposure(place, encrypted=False, insecure=True)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:///run/e"])
def test_this_machine_needs_neither(address: str) -> None:
    check_exposure(Address.parse(address, listening=True), encrypted=False, insecure=False)


def test_a_key_without_encryption_on_an_open_address_is_warned_of(
    caplog: pytest.LogCaptureFixture, server_identity: Identity
) -> None:
    tls = ServerTls(
        certificate=server_identity.certificate, private_key=server_identity.private_key
    )
    source = ConstantEntropySource()
    serve(source, "0.0.0.0:0", insecure=True).stop(0)
    serve(source, "127.0.0.1:0", api_key=SECRETS).stop(0)
    serve(source, "0.0.0.0:0", api_key=SECRETS, tls=tls).stop(0)
    assert "UNENCRYPTED" not in caplog.text
    serve(source, "0.0.0.0:0", api_key=SECRETS, insecure=True).stop(0)
    (record,) = [one for one in caplog.records if "UNENCRYPTED" in one.getMessage()]
    assert record.levelno == logging.WARNING
    assert not any(secret in caplog.text for secret in SECRETS)


def test_any_of_several_keys_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"\n  {SECRETS[1]}  \n\n{SECRETS[2]}\n", "utf-8")
    with (
        serve(
            ConstantEntropySource(), "127.0.0.1:0", api_key=SECRETS[0], api_key_file=file
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = EntropyServiceStub(channel)
        request = EntropyRequest(bytes_needed=1)
        for secret in SECRETS:
            assert stub.GetEntropy(request, metadata=(("api-key", secret),)).data
        for secret in ("", "s3cret", SECRETS[0] + SECRETS[1]):
            metadata = (("api-key", secret),)
            attempt = partial(stub.GetEntropy, request, metadata=metadata)
            assert code_of(attempt) is grpc.StatusCode.UNAUTHENTICATED


def test_accounts_are_numbered_and_secrets_never_shown() -> None:
    keys = ApiKeys("api-key", SECRETS)
    for number, secret in enumerate(SECRETS, start=1):
        assert keys.account_of([("other", "x"), ("api-key", secret)]) == f"key {number}"
    assert keys.account_of([("other", SECRETS[0])]) is None
    assert keys.account_of([]) is None
    assert repr(keys) == "ApiKeys(header='api-key', keys=3)"


def test_mistakes_in_keys_are_named_and_never_quoted(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text(" \n", "utf-8")
    binary = tmp_path / "binary"
    binary.write_bytes(b"s3cret\xff\xfe")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: ApiKeys("api-key", ()), "no API key is given"),
        (lambda: ApiKeys("api-key", ("s3cret", "s3cret")), "two API keys are equal"),
        (lambda: ApiKeys("api-key", ("s3cret\n",)), "space around"),
        (lambda: read_secrets(empty), "holds no API key"),
        (lambda: read_secrets(tmp_path / "absent"), "No such file"),
        (lambda: read_secrets(binary), "is not text"),
    ]
    for attempt, says in cases:
        with pytest.raises(ConfigError, match=says) as caught:
            attempt()
        assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"
