# SPDX-License-Identifier: Apache-2.0
"""Time stamps: those of OpenSSL are verified, and everything else is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rfc3161_client", reason="the extra anchors is not installed")

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.anchors import timestamps
from qr_sampler_cli.audit.anchors.timestamps import InvalidTokenError, TimeStampAuthorities
from qr_sampler_cli.testing.time_stamping import LocalAuthority, has_openssl

pytestmark = pytest.mark.skipif(not has_openssl(), reason="this machine has no openssl")

HEAD = hashlib.sha256(b"the last line").hexdigest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def token(authority: LocalAuthority) -> bytes:
    return authority.stamp(HEAD)


def refused(trusted: TimeStampAuthorities, token: bytes, head: str = HEAD) -> str:
    """Returns why a token is refused."""
    with pytest.raises(InvalidTokenError) as caught:
        trusted.verify(token, head)
    return str(caught.value)


def test_a_stamp_of_openssl_is_valid_and_tells_the_time(authority: LocalAuthority) -> None:
    before = time.time_ns()
    token = authority.stamp(HEAD)
    after = time.time_ns()
    stamp = TimeStampAuthorities(authority.root).verify(token, HEAD)
    # A second because fractions are dropped, and an accuracy of 1.5 s.
    assert before < stamp.not_after_ns <= after + 2_500_000_000
    assert stamp.authority == "CN=Local Time"


def test_openssl_verifies_it_by_the_same_head(
    authority: LocalAuthority, token: bytes, tmp_path: Path
) -> None:
    reply = tmp_path / "0.tsr"
    reply.write_bytes(token)
    command = ["openssl", "ts", "-verify", "-digest", HEAD, "-in", reply, "-CAfile", authority.root]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Verification: OK" in told.stdout


def test_a_stamp_of_another_head_is_refused(authority: LocalAuthority, token: bytes) -> None:
    other = hashlib.sha256(b"another line").hexdigest()
    assert f"it stamps {HEAD} instead of {other}" in refused(
        TimeStampAuthorities(authority.root), token, other
    )


def test_a_digest_of_another_algorithm_is_refused(authority: LocalAuthority) -> None:
    token = authority.stamp(hashlib.sha512(b"the last line").hexdigest(), "sha512")
    assert "another algorithm than SHA-256" in refused(TimeStampAuthorities(authority.root), token)


def test_a_stamp_of_somebody_else_is_refused(token: bytes, tmp_path: Path) -> None:
    other = LocalAuthority(tmp_path / "other")
    assert "verifying certificates" in refused(TimeStampAuthorities(other.root), token)


def test_a_certificate_that_had_expired_is_refused(tmp_path: Path) -> None:
    expired = LocalAuthority(tmp_path / "expired", valid_days=-1)
    token = expired.stamp(HEAD)
    assert "verifying certificates" in refused(TimeStampAuthorities(expired.root), token)


def test_two_certificates_of_one_name_are_refused(
    authority: LocalAuthority, token: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library could judge the purpose of one, and OpenSSL the signature of the other."""
    trusted = TimeStampAuthorities(authority.root)
    reply = timestamps.decode_token(token)
    twice = SimpleNamespace(certificates=[*reply.signed_data.certificates] * 2)
    doubled = SimpleNamespace(tst_info=reply.tst_info, signed_data=twice)
    monkeypatch.setattr(timestamps, "decode_token", lambda _: doubled)
    told: list[Any] = []
    monkeypatch.setattr(
        sys.modules["rfc3161_client"].VerifierBuilder,
        "build",
        lambda _: SimpleNamespace(verify=lambda *asked: told.append(asked)),
    )
    assert "two certificates of one issuer" in refused(trusted, token)
    assert len(told) == 1


def test_every_flipped_byte_is_refused_or_says_the_same(
    authority: LocalAuthority, token: bytes
) -> None:
    trusted = TimeStampAuthorities(authority.root)
    stamp = trusted.verify(token, HEAD)
    refusals = 0
    for index in range(len(token)):
        changed = bytearray(token)
        changed[index] ^= 1 << index % 8
        try:
            # Some bytes carry no meaning, such as the version of an envelope.
            assert trusted.verify(bytes(changed), HEAD) == stamp
        except InvalidTokenError:
            refusals += 1
    assert refusals > 0.98 * len(token)


@pytest.mark.parametrize("length", [0, 1, 100, 500])
def test_a_token_that_was_cut_off_is_refused(
    authority: LocalAuthority, token: bytes, length: int
) -> None:
    trusted = TimeStampAuthorities(authority.root)
    assert "it cannot be read" in refused(trusted, token[:length])
    assert "has more than 65536 bytes" in refused(trusted, token + bytes(2**16))


def test_the_reason_is_named_if_certificates_are_not_in_order(tmp_path: Path) -> None:
    talkative = LocalAuthority(tmp_path, names_chain=True)
    trusted = TimeStampAuthorities(talkative.root)
    assert "not in the order that DER asks for" in refused(trusted, talkative.stamp(HEAD))
    # Without certificates in it the reply can be read, and its signer has to be known.
    bare = talkative.stamp(HEAD, certificates=False)
    assert "add that of the authority itself" in refused(trusted, bare)
    both = tmp_path / "both.pem"
    both.write_bytes(talkative.root.read_bytes() + talkative.signer.read_bytes())
    assert TimeStampAuthorities(both).verify(bare, HEAD).authority.endswith("CN=Local Root")


def test_a_file_without_a_root_is_refused(authority: LocalAuthority, tmp_path: Path) -> None:
    for content in (b"", b"nothing", authority.signer.read_bytes()):
        path = tmp_path / "roots.pem"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="name a file with the root certificate"):
            TimeStampAuthorities(path)
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match="--tsa-certificates="):
        TimeStampAuthorities(path)
    with pytest.raises(ConfigError, match="No such file"):
        TimeStampAuthorities(tmp_path / "none")
