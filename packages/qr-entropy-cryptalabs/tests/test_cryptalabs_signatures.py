# SPDX-License-Identifier: Apache-2.0
"""Signatures are verified, kept as they are, and verified again by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qr_entropy_cryptalabs.keys import read_key
from qr_entropy_cryptalabs.replays import REMEMBERED, SHORTEST, AnswerMemory
from qr_entropy_cryptalabs.simulators import Identity, SimulatedQCicada
from qr_entropy_cryptalabs.simulators.signing import point_of
from qr_entropy_cryptalabs.source import CryptaLabsSource
from qr_sampler import ConfigError, EntropyUnavailableError

Build = Callable[..., CryptaLabsSource]


def reason_of(source: CryptaLabsSource, n: int = 64) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value.reason


def test_a_signature_is_that_of_the_bytes(device: SimulatedQCicada, build: Build) -> None:
    """Verified by the library of cryptography itself, which raises if it is wrong."""
    draw = build().draw(100)
    halves = (int.from_bytes(part, "big") for part in (draw.signature[:32], draw.signature[32:]))
    device.identity.key.public_key().verify(
        encode_dss_signature(*halves), draw.data, ec.ECDSA(hashes.SHA256())
    )
    assert draw.device_id == "QC0000000217"


def test_a_key_that_the_device_states_itself_verifies_nothing(build: Build) -> None:
    assert build().draw(64).signature_verified is None


def test_a_key_that_is_known_verifies(device: SimulatedQCicada, build: Build) -> None:
    source = build(public_key=device.identity.public_key)
    assert source.draw(64).signature_verified is True
    source.close()
    assert "QR_CRYPTALABS_PUBLIC_KEY" in reason_of(build(public_key=Identity().public_key))


def test_a_key_that_is_certified_verifies(device: SimulatedQCicada, build: Build) -> None:
    authority = point_of(device.identity.authority)
    source = build(authority=authority)
    assert source.draw(64).signature_verified is True
    source.close()
    assert "has not certified" in reason_of(build(authority=point_of(Identity().authority)))


def test_a_certificate_for_another_device_is_refused(
    device: SimulatedQCicada, build: Build
) -> None:
    authority = point_of(device.identity.authority)
    device.identity = Identity(218, key=device.identity.key, authority=Identity().authority)
    assert "has not certified" in reason_of(build(authority=authority))


def test_a_wrong_signature_ends_the_draw(device: SimulatedQCicada, build: Build) -> None:
    source = build()
    source.draw(64)
    device.break_down("wrong_signature")
    with pytest.raises(EntropyUnavailableError, match="signature of the bytes is wrong") as caught:
        source.draw(64)
    assert caught.value.dropped_bytes == 64
    device.break_down("")
    assert len(source.draw(64).data) == 64


@pytest.mark.parametrize("signed", [True, False])
def test_bytes_that_were_there_before_end_the_draw_also_of_a_device_that_was_away(
    signed: bool, device: SimulatedQCicada, build: Build
) -> None:
    """Health tests compare windows of 512 bytes; the signature of a replay is right."""
    source = build(signed=signed)
    source.draw(SHORTEST)
    device.break_down("replay")
    source.close()
    assert "same bytes before" in reason_of(source, SHORTEST)
    device.break_down("")
    assert len({source.draw(SHORTEST).data for _ in range(3)}) == 3


def test_the_memory_of_answers_is_bounded_and_passes_over_short_ones() -> None:
    memory = AnswerMemory()
    answers = [number.to_bytes(SHORTEST, "big") for number in range(REMEMBERED + 1)]
    assert not any(memory.is_known(answer) for answer in answers)
    assert memory.is_known(answers[1])
    assert not memory.is_known(answers[0])
    assert not any(memory.is_known(bytes(SHORTEST - 1)) for _ in range(2))


def test_firmware_without_signatures_says_what_to_set(
    device: SimulatedQCicada, build: Build
) -> None:
    device.signs = False
    assert "QR_CRYPTALABS_SIGNED=false" in reason_of(build())
    draw = build(signed=False).draw(64)
    assert (draw.signature, draw.signature_verified) == (b"", None)


class TestKeyFiles:
    def test_both_forms_hold_the_same_key(self, tmp_path: Path) -> None:
        identity = Identity()
        pem = identity.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        for name, text in (("pem", pem), ("hex", identity.public_key.hex().encode() + b"\n")):
            (tmp_path / name).write_bytes(text)
            assert read_key(tmp_path / name, "X") == identity.public_key

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"", "no public key in PEM form"),
            (b"ab" * 63, "no public key in PEM form"),
            (
                ed25519.Ed25519PrivateKey.generate()
                .public_key()
                .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                "curve P-256",
            ),
        ],
    )
    def test_other_files_are_refused_by_name(self, text: bytes, words: str, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(text)
        with pytest.raises(ConfigError, match=f"QR_X=.*{words}"):
            read_key(tmp_path / "key", "QR_X")

    def test_a_file_that_is_missing_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            read_key(tmp_path / "none", "QR_X")
