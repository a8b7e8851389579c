# SPDX-License-Identifier: Apache-2.0
"""Signatures of answers: vectors of RFC 8032, OpenSSL's word, wrong files, and what is checked."""

from __future__ import annotations

import base64
import hashlib
import pickle
import shutil
import struct
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import ConfigError
from qr_sampler_grpc.protocol.attestation import (
    PREAMBLE,
    SigningKey,
    VerificationKey,
    signed_message,
    signed_record,
)
from qr_sampler_grpc.protocol.wire import Answer
from qr_sampler_grpc.transports.base import PreparedRequest
from qr_sampler_grpc.transports.verification import AnswerCheck, UntrustedAnswerError

REPEATABLE = settings(derandomize=True, database=None, deadline=None, max_examples=100)

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
            "f9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
            "f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
            "4dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3"
            "feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c664"
            "31e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]
# The headers that RFC 8410 puts before the 32 bytes of a key.
PRIVATE_HEADER = bytes.fromhex("302e020100300506032b657004220420")
PUBLIC_HEADER = bytes.fromhex("302a300506032b6570032100")


def pem(label: str, der: bytes) -> bytes:
    """Returns *der* in PEM form, written without the library that reads it."""
    body = base64.b64encode(der).decode()
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()


class Keys:
    """Files with the two halves of a key."""

    def __init__(self, folder: Path, secret_hex: str, public_hex: str) -> None:
        self.private, self.public = folder / "private.pem", folder / "public.pem"
        self.private.write_bytes(pem("PRIVATE KEY", PRIVATE_HEADER + bytes.fromhex(secret_hex)))
        self.public.write_bytes(pem("PUBLIC KEY", PUBLIC_HEADER + bytes.fromhex(public_hex)))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, *RFC_8032[0][:2])


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(
    tmp_path: Path, secret: str, public: str, message: str, signature: str
) -> None:
    keys = Keys(tmp_path, secret, public)
    assert SigningKey(keys.private).sign(bytes.fromhex(message)).hex() == signature
    verification = VerificationKey(keys.public)
    assert verification.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not verification.verifies(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")


def test_any_other_signature_is_none(keys: Keys) -> None:
    key, right = VerificationKey(keys.public), SigningKey(keys.private).sign(b"message")
    assert key.verifies(right, b"message")
    for bit in range(512):
        wrong = bytearray(right)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not key.verifies(bytes(wrong), b"message")
    for length in (0, 1, 32, 63, 65, 128, 10_000):
        assert not key.verifies((right * 200)[:length], b"message")
    # The same signature with the order of the group added to its second half.
    order = 2**252 + 27742317777372353535851937790883648493
    second = int.from_bytes(right[32:], "little") + order
    assert not key.verifies(right[:32] + second.to_bytes(32, "little"), b"message")


@REPEATABLE
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=20),
    st.binary(max_size=64),
    st.binary(max_size=99),
)
def test_what_is_signed_is_what_the_contract_says(
    sequence_id: int, timestamp: int, device_id: str, commitment: bytes, data: bytes
) -> None:
    message = signed_message(
        sequence_id=sequence_id,
        generation_timestamp_ns=timestamp,
        device_id=device_id,
        commitment=commitment,
        data=memoryview(data),
    )
    assert message.startswith(b"qr-entropy-v1: ")
    assert len(PREAMBLE) == 15
    device = device_id.encode()
    assert message[15:23] == (sequence_id % 2**64).to_bytes(8, "big")
    assert message[23:31] == (timestamp % 2**64).to_bytes(8, "big")
    assert message[31:35] == len(device).to_bytes(4, "big")
    rest = message[35:]
    assert rest == device + struct.pack(">I", len(commitment)) + commitment + data


def test_openssl_verifies_our_signature_with_the_key_that_it_wrote(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    message, signature = tmp_path / "message", tmp_path / "signature"

    def run(*arguments: str | Path) -> str:
        finished = subprocess.run(
            [openssl, *arguments], capture_output=True, text=True, timeout=300, check=False
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    # As the remedies of our messages say.
    run("genpkey", "-algorithm", "ed25519", "-out", private)
    run("pkey", "-pubout", "-in", private, "-out", public)
    said = signed_message(
        sequence_id=7,
        generation_timestamp_ns=10**18,
        device_id="Gerät",
        commitment=b"c" * 32,
        data=b"data",
    )
    message.write_bytes(said)
    signature.write_bytes(SigningKey(private).sign(said))
    options = ("-pubin", "-inkey", public, "-rawin", "-in", message)
    verified = run("pkeyutl", "-verify", *options, "-sigfile", signature)
    assert "Signature Verified Successfully" in verified
    run("pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", message, "-out", signature)
    assert VerificationKey(public).verifies(signature.read_bytes(), said)


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    locked = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


@pytest.mark.parametrize("kind", [SigningKey, VerificationKey])
def test_every_wrong_file_is_refused_without_a_quote(
    tmp_path: Path, keys: Keys, kind: type[SigningKey] | type[VerificationKey]
) -> None:
    which = "private" if kind is SigningKey else "public"
    curve = ec.generate_private_key(ec.SECP256R1())
    others = [curve, rsa.generate_private_key(65537, 2048), ed448.Ed448PrivateKey.generate()]
    right = ed25519.Ed25519PrivateKey.generate()
    # A kind of key that nobody knows: the identifier 1.3.101.127.
    unknown = PUBLIC_HEADER.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f") + b"\1" * 32
    unknown_private = PRIVATE_HEADER.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f") + b"\1" * 32
    wrong = {
        "empty": b"",
        "noise": bytes(range(256)),
        "bare": bytes.fromhex(RFC_8032[0][0]),
        "text": b"-----BEGIN PRIVATE KEY-----\nbm9uc2Vuc2U=\n-----END PRIVATE KEY-----\n",
        "cut": keys.private.read_bytes()[:60],
        "short": pem("PRIVATE KEY", PRIVATE_HEADER + b"\1" * 31),
        "short public": pem("PUBLIC KEY", PUBLIC_HEADER + b"\1" * 31),
        "unknown": pem("PUBLIC KEY", unknown),
        "unknown private": pem("PRIVATE KEY", unknown_private),
        "locked": private_pem(right, b"password"),
        "other half": public_pem(right) if which == "private" else private_pem(right),
        **{f"other {n}": private_pem(key) for n, key in enumerate(others)},
        **{f"other public {n}": public_pem(key) for n, key in enumerate(others)},
    }
    for name, content in wrong.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            kind(file)
        words = str(caught.value)
        assert words.startswith(f"{file} holds "), name
        assert f"{which} key" in words
        assert "openssl" in words
        shown = "".join(traceback.format_exception(caught.value))
        for line in content.split(b"\n")[1:-2]:
            assert line.decode("latin-1") not in shown
        assert str(pickle.loads(pickle.dumps(caught.value))) == words


@pytest.mark.parametrize("kind", [SigningKey, VerificationKey])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, kind: type[SigningKey] | type[VerificationKey]
) -> None:
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=why) as caught:
            kind(path)
        assert str(path) in str(caught.value)


def test_other_kinds_of_keys_are_called_so(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(ConfigError, match="another kind of public key than Ed25519"):
        VerificationKey(file)


def test_a_signing_key_does_not_show_itself(keys: Keys) -> None:
    assert repr(SigningKey(keys.private)) == "SigningKey()"


def test_without_the_extra_the_message_says_what_to_install(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    for kind, path in ((SigningKey, keys.private), (VerificationKey, keys.public)):
        with pytest.raises(ConfigError, match="pip install cryptography"):
            kind(path)


COMMITMENT = b"c" * 32


class Device:
    """Signs answers."""

    def __init__(self, keys: Keys) -> None:
        self._key = SigningKey(keys.private)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def answer(
        self, sequence_id: int, right: bytes, *, signs: bytes = COMMITMENT, **changed: Any
    ) -> Answer:
        """Returns an answer, which says something else than was signed where it was *changed*."""
        said = {"device_id": "dev", "commitment": signs, "data": right}
        signature = self._key.sign(
            signed_message(sequence_id=sequence_id, generation_timestamp_ns=5, **said)
        )
        shown = {**said, "device_timestamp_ns": 5, "signature": signature, **changed}
        return Answer(sequence_id=sequence_id, **shown)


@pytest.fixture
def device(keys: Keys) -> Device:
    return Device(keys)


REQUESTS = [PreparedRequest(1, 2, b""), PreparedRequest(2, 3, b"")]


def test_signed_answers_are_verified(device: Device, keys: Keys) -> None:
    check = AnswerCheck(COMMITMENT, VerificationKey(keys.public))
    assert (check.echoed, check.verified) == (None, None)
    check.apply(REQUESTS, [device.answer(1, b"ab"), device.answer(2, b"cde")])
    assert (check.echoed, check.verified) == (True, True)


def test_without_a_key_only_the_echo_is_checked(device: Device) -> None:
    check = AnswerCheck(COMMITMENT, None)
    check.apply(REQUESTS[:1], [device.answer(1, b"ab", signature=b"nonsense")])
    assert (check.echoed, check.verified) == (True, None)


@pytest.mark.parametrize("echo", [b"", None])
def test_one_answer_without_echo_is_enough_not_to_be_echoed(
    device: Device, echo: bytes | None
) -> None:
    check = AnswerCheck(COMMITMENT, None)
    silent = device.answer(2, b"cde", commitment=echo)
    check.apply(REQUESTS, [device.answer(1, b"ab"), silent])
    assert check.echoed is False


def test_without_a_commitment_nothing_is_said_of_an_echo(device: Device) -> None:
    check = AnswerCheck(b"", None)
    check.apply(REQUESTS[:1], [device.answer(1, b"ab", commitment=b"whatever")])
    assert check.echoed is None


def test_the_echo_of_another_commitment_is_refused(device: Device, keys: Keys) -> None:
    for key in (None, VerificationKey(keys.public)):
        check = AnswerCheck(COMMITMENT, key)
        foreign = device.answer(2, b"cde", commitment=COMMITMENT[:-1])
        with pytest.raises(UntrustedAnswerError, match="another commitment than was sent"):
            check.apply(REQUESTS, [device.answer(1, b"ab"), foreign])
        assert check.verified is None


def test_an_answer_that_is_not_signed_is_refused(device: Device, keys: Keys) -> None:
    check = AnswerCheck(COMMITMENT, VerificationKey(keys.public))
    with pytest.raises(UntrustedAnswerError, match="not signed; remove QR_GRPC_PUBLIC_KEY if"):
        check.apply(REQUESTS, [device.answer(1, b"ab"), device.answer(2, b"cde", signature=b"")])
    assert check.verified is None


@pytest.mark.parametrize(
    "changed",
    [
        {"data": b"aB"},
        {"device_id": "other"},
        {"device_timestamp_ns": 6},
        {"device_timestamp_ns": None},
        {"signature": b"\0" * 64},
        {"signature": b"short"},
    ],
)
def test_an_answer_that_was_changed_is_refused(
    device: Device, keys: Keys, changed: dict[str, Any]
) -> None:
    check = AnswerCheck(COMMITMENT, VerificationKey(keys.public))
    with pytest.raises(UntrustedAnswerError, match="not signed with the key of QR_GRPC_PUBLIC_KEY"):
        check.apply(REQUESTS[:1], [device.answer(1, b"ab", **changed)])
    assert check.verified is None


def test_an_answer_to_another_request_is_refused(device: Device, keys: Keys) -> None:
    key = VerificationKey(keys.public)
    old = device.answer(1, b"ab")
    with pytest.raises(UntrustedAnswerError, match="not signed with the key"):
        AnswerCheck(COMMITMENT, key).apply([PreparedRequest(9, 2, b"")], [old])
    # An echo that was taken off does not make it fit another commitment, either.
    silent = device.answer(1, b"ab", commitment=b"")
    with pytest.raises(UntrustedAnswerError, match="not signed with the key"):
        AnswerCheck(b"d" * 32, key).apply(REQUESTS[:1], [silent])


def test_a_signature_has_to_cover_the_commitment_that_was_sent(device: Device, keys: Keys) -> None:
    silent = device.answer(1, b"ab", signs=b"")
    with pytest.raises(UntrustedAnswerError, match="not signed with the key"):
        AnswerCheck(COMMITMENT, VerificationKey(keys.public)).apply(REQUESTS[:1], [silent])
    AnswerCheck(b"", VerificationKey(keys.public)).apply(REQUESTS[:1], [silent])


def test_another_device_is_not_believed(device: Device, tmp_path: Path) -> None:
    public = tmp_path / "other.pem"
    public.write_bytes(pem("PUBLIC KEY", PUBLIC_HEADER + bytes.fromhex(RFC_8032[1][1])))
    with pytest.raises(UntrustedAnswerError, match="check whose it is"):
        AnswerCheck(COMMITMENT, VerificationKey(public)).apply(
            REQUESTS[:1], [device.answer(1, b"ab")]
        )


def test_an_answer_is_missing(device: Device, keys: Keys) -> None:
    with pytest.raises(ValueError, match="zip"):
        AnswerCheck(COMMITMENT, VerificationKey(keys.public)).apply(
            REQUESTS, [device.answer(1, b"ab")]
        )


def recorded(device: Device, right: bytes, **changed: Any) -> Answer:
    """Returns an answer with both signatures, of which the one for records is *changed*."""
    said = {
        "sequence_id": 1,
        "generation_timestamp_ns": 5,
        "device_id": "dev",
        "commitment": COMMITMENT,
        "data_sha256": hashlib.sha256(right).digest(),
        **changed,
    }
    return device.answer(1, right, record_signature=device.sign(signed_record(**said)))


def test_the_signature_for_records_is_kept_and_verified(device: Device, keys: Keys) -> None:
    for key in (None, VerificationKey(keys.public)):
        check, answer = AnswerCheck(COMMITMENT, key), recorded(device, b"ab")
        check.apply(REQUESTS[:1], [answer])
        assert (check.signature, check.sequence_id) == (answer.record_signature, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"sequence_id": 2},
        {"generation_timestamp_ns": 6},
        {"device_id": "deV"},
        {"commitment": b"c" * 31 + b"d"},
        {"data_sha256": hashlib.sha256(b"aB").digest()},
    ],
)
def test_a_signature_for_other_records_is_refused(
    device: Device, keys: Keys, changed: dict[str, Any]
) -> None:
    check = AnswerCheck(COMMITMENT, VerificationKey(keys.public))
    # Though the signature of the data is right: what is kept is the other one.
    with pytest.raises(UntrustedAnswerError, match="not signed with the key"):
        check.apply(REQUESTS[:1], [recorded(device, b"ab", **changed)])


def test_a_server_that_signs_only_data_leaves_no_number(device: Device, keys: Keys) -> None:
    check, answer = AnswerCheck(COMMITMENT, VerificationKey(keys.public)), device.answer(1, b"ab")
    check.apply(REQUESTS[:1], [answer])
    assert (check.verified, check.signature, check.sequence_id) == (True, answer.signature, None)


def test_without_an_echo_records_cannot_verify_it(device: Device) -> None:
    check = AnswerCheck(COMMITMENT, None)
    silent = device.answer(1, b"ab", commitment=b"", record_signature=b"s" * 64)
    check.apply(REQUESTS[:1], [silent])
    assert (check.signature, check.sequence_id) == (b"s" * 64, None)


def test_keys_are_still_found_where_they_were() -> None:
    with pytest.warns(DeprecationWarning, match=r"SigningKey from qr_sampler_grpc\.protocol"):
        from qr_sampler_grpc.attestation import SigningKey as Moved
    assert Moved is SigningKey
