# SPDX-License-Identifier: Apache-2.0
"""Settings: names, defaults, refusals, and that the API key stays secret."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from qr_sampler import ConfigError
from qr_sampler.entropy import SourceLimits
from qr_sampler.entropy.breaker_settings import BreakerOptions, BreakerSettings
from qr_sampler_grpc.connection.credentials import ApiKey, secret_in
from qr_sampler_grpc.connection.tls import ClientTls
from qr_sampler_grpc.proto.purity_service_pb2 import DrawRequest
from qr_sampler_grpc.protocol.contract import field_numbers
from qr_sampler_grpc.protocol.profiles import PROFILES
from qr_sampler_grpc.protocol.wire import Question
from qr_sampler_grpc.settings import GrpcOptions, GrpcSettings
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.certificates import issue

SECRET = "s3cret-key-0xdeadbeef"


LOCK = serialization.BestAvailableEncryption(SECRET.encode())


def test_defaults() -> None:
    settings = GrpcSettings.load()
    assert settings.server_address == "localhost:50051"
    assert settings.mode == "unary"
    assert settings.timeout_ms == 5000.0
    assert settings.contract.method_path == "/qr_entropy.EntropyService/GetEntropy"
    assert settings.contract.limits == SourceLimits(max_bytes_per_request=13_312)
    assert settings.contract.commits
    assert settings.api_key.get_secret_value() == ""
    assert settings.api_key_header == "api-key"
    assert settings.credentials is None
    assert settings.tls is None
    assert settings.retry_count == 0


def test_constructor_and_settings_share_their_defaults() -> None:
    source = QuantumGrpcSource()
    assert source._options == GrpcOptions.checked()
    source.close()


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = issue(tmp_path, "client")
    values = {
        "SERVER_ADDRESS": "unix:/run/qrng.sock",
        "MODE": "server_streaming",
        "STUBS": "aio",
        "TIMEOUT_MS": "12.5",
        "PROFILE": "custom",
        "METHOD_PATH": "/a.B/Get",
        "STREAM_METHOD_PATH": "/a.B/Stream",
        "REQUEST_FIELDS": "bytes_needed=3,sequence_id=4",
        "ANSWER_FIELDS": "data=5, sequence_id=6",
        "MAX_BYTES_PER_REQUEST": "99",
        "MAX_REQUESTS_PER_MINUTE": "7",
        "MAX_BYTES_PER_DAY": "1000",
        "RETRY_COUNT": "2",
        "COMMITMENT": "false",
        "API_KEY": SECRET,
        "API_KEY_HEADER": "x-key",
        "TLS_ENABLED": "true",
        "TLS_CA_CERT": str(pair.certificate),
        "TLS_CLIENT_CERT": str(pair.certificate),
        "TLS_CLIENT_KEY": str(pair.private_key),
    }
    only_elsewhere = {"SOURCE_ID", "INTEGRATED_BYTES", "API_KEY_FILE", "PUBLIC_KEY"}
    assert {*values, *only_elsewhere} == {name.upper() for name in GrpcSettings.model_fields}
    for name, value in values.items():
        monkeypatch.setenv(f"QR_GRPC_{name}", value)
    settings = GrpcSettings.load()
    assert settings.address.path == "/run/qrng.sock"
    assert (settings.mode, settings.stubs, settings.timeout_ms) == ("server_streaming", "aio", 12.5)
    assert settings.contract.method_path == "/a.B/Stream"
    assert settings.contract.names_requests
    assert settings.contract.limits == SourceLimits(
        max_bytes_per_request=99, max_requests_per_minute=7, max_bytes_per_day=1000
    )
    question = Question(bytes_needed=1, sequence_id=2, commitment=b"c", accept_chunks=True)
    assert settings.contract.wire.encode(question).hex() == "18012002"
    assert settings.credentials == ApiKey("x-key", SECRET)
    assert settings.tls == ClientTls(pair.certificate, pair.certificate, pair.private_key)
    assert (settings.retry_count, settings.commitment) == (2, False)
    source = QuantumGrpcSource.from_environment()
    assert source._options.model_dump() == settings.model_dump()
    source.close()


def test_the_variables_of_the_other_profiles_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(SECRET + "\n", "utf-8")
    values = {
        "PROFILE": "qr_purity",
        "SOURCE_ID": "left",
        "INTEGRATED_BYTES": "512",
        "API_KEY_FILE": str(tmp_path / "key"),
        "PUBLIC_KEY": str(tmp_path / "device.pem"),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"QR_GRPC_{name}", value)
    settings = GrpcSettings.load()
    request = settings.contract.wire.encode(Question(bytes_needed=8, sequence_id=5))
    assert (
        request == DrawRequest(sequence_id=5, source_id="left", block_bytes=512).SerializeToString()
    )
    assert settings.contract.integrates
    assert settings.contract.limits.max_bytes_per_request == 8
    assert settings.credentials == ApiKey("api-key", SECRET)
    assert settings.public_key == tmp_path / "device.pem"


def test_dotenv_file_is_read_and_empty_means_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("QR_GRPC_TIMEOUT_MS=7\nQR_TOP_K=3\n", "utf-8")
    monkeypatch.setenv("QR_GRPC_MODE", "")
    settings = GrpcSettings.load()
    assert (settings.timeout_ms, settings.mode) == (7.0, "unary")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("GRPC_SERVER_ADDRESS", "localhost", "the port is missing"),
        ("GRPC_MODE", "turbo", "'unary', 'server_streaming' or 'bidi_streaming'"),
        ("GRPC_STUBS", "trio", "'sync' or 'aio'"),
        ("GRPC_PROFILE", "qrgn", "choose one of qr_entropy, qrng, qr_purity, custom"),
        ("GRPC_TIMEOUT_MS", "3600001", "less than or equal to 3600000"),
        ("GRPC_REQUEST_FIELDS", "data=1", "'data' is no such field; choose from bytes_needed,"),
        ("GRPC_REQUEST_FIELDS", "bytes_needed", "'bytes_needed' is not of the form name=number"),
        ("GRPC_REQUEST_FIELDS", "bytes_needed=0", "not of the form name=number"),
        ("GRPC_REQUEST_FIELDS", "bytes_needed=-1", "not of the form name=number"),
        ("GRPC_REQUEST_FIELDS", "bytes_needed=1=2", "not of the form name=number"),
        ("GRPC_REQUEST_FIELDS", "bytes_needed=536870912", "largest field number, 536870911"),
        ("GRPC_ANSWER_FIELDS", "data=1,device_id=1", "'device_id=1' repeats a name or a number"),
        ("GRPC_ANSWER_FIELDS", "data=1,data=2", "'data=2' repeats a name or a number"),
        ("GRPC_ANSWER_FIELDS", "bytes_needed=1", "no such field; choose from data, u,"),
        ("GRPC_STREAM_METHOD_PATH", "Stream", "/package.Service/Method"),
        ("GRPC_INTEGRATED_BYTES", "-1", "greater than or equal to 0"),
        ("GRPC_MAX_REQUESTS_PER_MINUTE", "0", "greater than or equal to 1"),
        ("GRPC_MAX_BYTES_PER_DAY", "0", "greater than or equal to 1"),
        ("GRPC_RETRY_COUNT", "11", "less than or equal to 10"),
        ("GRPC_COMMITMENT", "perhaps", "valid boolean"),
        ("GRPC_TLS_ENABLED", "perhaps", "valid boolean"),
        ("GRPC_TIMEOUT_MS", "0", "greater than 0"),
        ("GRPC_TIMEOUT_MS", "-1", "greater than 0"),
        ("GRPC_TIMEOUT_MS", "nan", "finite"),
        ("GRPC_TIMEOUT_MS", "inf", "finite"),
        ("GRPC_TIMEOUT_MS", "soon", "valid number"),
        ("GRPC_METHOD_PATH", "GetEntropy", "/package.Service/Method"),
        ("GRPC_METHOD_PATH", "/qr_entropy.EntropyService/", "/package.Service/Method"),
        ("GRPC_METHOD_PATH", "/a b/C", "/package.Service/Method"),
        ("GRPC_API_KEY_HEADER", "API-Key", "lower-case"),
        ("GRPC_API_KEY_HEADER", "api key", "lower-case"),
        ("GRPC_API_KEY_HEADER", "key-bin", "reserved"),
        ("GRPC_API_KEY_HEADER", "grpc-key", "reserved"),
        ("GRPC_MAX_BYTES_PER_REQUEST", "0", "greater than or equal to 1"),
        ("CB_ENABLED", "perhaps", "valid boolean"),
        ("CB_WINDOW_SIZE", "0", "greater than or equal to 1"),
        ("CB_WINDOW_SIZE", "10001", "less than or equal to 10000"),
        ("CB_TIMEOUT_MULTIPLIER", "0.5", "greater than or equal to 1"),
        ("CB_MAX_CONSECUTIVE_FAILURES", "0", "greater than or equal to 1"),
        ("CB_RECOVERY_WINDOW_S", "0", "greater than 0"),
        ("CB_RECOVERY_MAX_S", "nan", "finite"),
        ("CB_MIN_TIMEOUT_MS", "inf", "finite"),
    ],
)
def test_malformed_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"QR_{name}", value)
    with pytest.raises(ConfigError) as caught:
        QuantumGrpcSource.from_environment()
    assert f"QR_{name}={value!r}" in str(caught.value)
    assert says in str(caught.value)


def test_malformed_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"timeout_ms=-1"):
        QuantumGrpcSource(timeout_ms=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enabled", "perhaps"),
        ("window_size", 0),
        ("timeout_multiplier", 0.5),
        ("max_consecutive_failures", 0),
        ("recovery_window_s", 0),
        ("recovery_max_s", math.nan),
        ("min_timeout_ms", math.inf),
    ],
)
def test_malformed_breaker_arguments_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}="):
        BreakerOptions.checked(**{name: value})


IMPOSSIBLE_KEYS = [SECRET + "\n", " " + SECRET, SECRET + "é", SECRET + "\x07"]


@pytest.mark.parametrize("bad", IMPOSSIBLE_KEYS)
def test_an_impossible_key_is_refused_without_being_quoted(bad: str) -> None:
    with pytest.raises(ConfigError, match="the API key") as caught:
        QuantumGrpcSource(api_key=bad)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("bad", IMPOSSIBLE_KEYS)
def test_an_impossible_key_in_the_environment_is_not_quoted_either(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", bad)
    with pytest.raises(ConfigError, match="the API key") as caught:
        GrpcSettings.load()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_key_that_is_not_text_is_refused_without_being_quoted() -> None:
    wrong: list[Any] = [SECRET.encode() + b"\xff", [SECRET], 12345]
    for value in wrong:
        with pytest.raises(ConfigError, match="api_key is not text") as caught:
            QuantumGrpcSource(api_key=value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert "12345" not in str(caught.value)


def test_another_fault_does_not_reveal_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", SECRET)
    monkeypatch.setenv("QR_GRPC_TIMEOUT_MS", "soon")
    with pytest.raises(ConfigError, match="QR_GRPC_TIMEOUT_MS") as caught:
        GrpcSettings.load()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in str(pickle.loads(pickle.dumps(caught.value)))


def test_no_representation_shows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", SECRET)
    settings = GrpcSettings.load()
    source = QuantumGrpcSource.from_environment()
    key = settings.credentials
    assert key is not None
    assert key.metadata == (("api-key", SECRET),)
    shown = [
        settings,
        source,
        key,
        source._options,
        source._links.get(),
        source._transports.get(),
        source.status(),
    ]
    for thing in shown:
        for text in (repr(thing), str(thing), f"{thing}"):
            assert SECRET not in text
    assert SECRET not in settings.model_dump_json()
    source.close()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ((("api-key", SECRET),), True),
        ((("other", "x"), ("api-key", SECRET.encode())), True),
        ((("api-key", "wrong"), ("api-key", SECRET)), True),
        ((), False),
        ((("api-key", ""),), False),
        ((("api-key", SECRET[:-1]),), False),
        ((("api-key", SECRET + "x"),), False),
        ((("other", SECRET),), False),
    ],
)
def test_a_key_is_found_in_metadata(
    metadata: tuple[tuple[str, str | bytes], ...], expected: bool
) -> None:
    assert ApiKey("api-key", SECRET).is_in(metadata) is expected


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(ConfigError, match="empty"):
        ApiKey("api-key", "")


def contract_error(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        GrpcOptions.checked(**options)
    return str(caught.value)


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_is_what_it_is_called(name: str) -> None:
    contract = GrpcOptions.checked(profile=name).contract
    profile = PROFILES[name]
    assert contract.method_path == profile.method_path
    assert contract.limits.max_requests_per_minute == profile.max_requests_per_minute
    assert contract.integrates is (name == "qr_purity")
    assert contract.commits is (name == "qr_entropy")


def test_the_limits_of_firefly_1_are_known() -> None:
    assert GrpcOptions.checked(profile="qrng").contract.limits == SourceLimits(
        max_bytes_per_request=13_312, max_requests_per_minute=500, max_bytes_per_day=500_000_000
    )


def test_limits_of_the_configuration_replace_those_of_the_profile() -> None:
    limits = GrpcOptions.checked(profile="qrng", max_requests_per_minute=5).contract.limits
    assert limits == SourceLimits(
        max_bytes_per_request=13_312, max_requests_per_minute=5, max_bytes_per_day=500_000_000
    )


@pytest.mark.parametrize("mode", ["unary", "server_streaming", "bidi_streaming"])
@pytest.mark.parametrize("name", ["qr_entropy", "qr_purity"])
def test_profiles_that_stream_do_so_on_their_own_method(name: str, mode: str) -> None:
    contract = GrpcOptions.checked(profile=name, mode=mode).contract
    profile = PROFILES[name]
    unary = mode == "unary"
    assert contract.method_path == (profile.method_path if unary else profile.stream_method_path)
    assert contract.accepts_chunks is (name == "qr_entropy" and mode == "server_streaming")


NEEDS = {"bytes_needed": 1, "sequence_id": 2, "commitment": 3, "accept_chunks": 4}


def test_a_foreign_method_without_a_profile_is_custom() -> None:
    contract = GrpcOptions.checked(method_path="/my.Service/Get").contract
    question = Question(bytes_needed=3, sequence_id=4, commitment=b"c")
    assert contract.wire.encode(question).hex() == "0803"
    assert not contract.commits
    streaming = GrpcOptions.checked(
        mode="server_streaming", stream_method_path="/my.Service/Stream"
    ).contract
    assert streaming.method_path == "/my.Service/Stream"
    assert streaming.wire.encode(question).hex() == "0803"
    ours = GrpcOptions.checked(method_path="/qr_entropy.EntropyService/Other").contract
    assert (ours.commits, ours.method_path) == (True, "/qr_entropy.EntropyService/Other")
    named = GrpcOptions.checked(profile="qr_entropy", method_path="/my.Service/Get").contract
    assert named.commits


def test_our_own_contract_can_be_declared() -> None:
    declared = GrpcOptions.checked(
        profile="custom",
        mode="bidi_streaming",
        stream_method_path="/my.Service/Stream",
        request_fields=",".join(f"{name}={number}" for name, number in NEEDS.items()),
        answer_fields=" data = 1 , sequence_id=2,",
    ).contract
    assert (declared.commits, declared.names_requests) == (True, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"profile": "qrgn"}, ["profile='qrgn'", "choose one of qr_entropy, qrng, qr_purity"]),
        (
            {"profile": "qrng", "mode": "server_streaming"},
            ["'qrng' has no streaming method", "'server_streaming'; use 'unary', or give stream_"],
        ),
        (
            {"profile": "qrng", "mode": "bidi_streaming", "stream_method_path": "/a.B/C"},
            ["bidi_streaming matches answers", "declare it in both, or use another mode"],
        ),
        (
            {"profile": "custom", "mode": "bidi_streaming", "stream_method_path": "/a.B/C"},
            ["bidi_streaming matches answers", "declare it in both, or use another mode"],
        ),
        (
            {"method_path": "/my.Service/Get", "mode": "server_streaming"},
            [
                "'custom' has no streaming method",
                "'server_streaming'; use 'unary', or give stream_",
            ],
        ),
        (
            {"profile": "qr_entropy", "answer_fields": "data=7"},
            ["(data=7)", "'qr_entropy' has its own", "use the profile 'custom'"],
        ),
        (
            {"request_fields": "bytes_needed=7", "answer_fields": "data=3"},
            ["(bytes_needed=7 and data=3)", "'qr_entropy' has its own", "use the profile 'custom'"],
        ),
        (
            {"profile": "custom", "answer_fields": "device_id=3"},
            ["answer_fields declare device_id=3; declare either 'data' or 'u'"],
        ),
        (
            {"profile": "custom", "answer_fields": "data=1,u=2"},
            ["answer_fields declare data=1, u=2; declare either 'data' or 'u'"],
        ),
        (
            {"profile": "custom", "request_fields": "sequence_id=2"},
            ["request_fields declare sequence_id=2; declare 'bytes_needed', too"],
        ),
        (
            {"source_id": "left"},
            ["source_id='left'", "say nothing to the profile 'qr_entropy'", "use 'qr_purity'"],
        ),
        (
            {"profile": "qrng", "integrated_bytes": 5},
            ["integrated_bytes=5", "say nothing to the profile 'qrng'", "use 'qr_purity'"],
        ),
    ],
)
def test_a_misfit_is_refused_with_the_value_and_the_remedy(
    options: dict[str, Any], says: list[str]
) -> None:
    words = contract_error(**options)
    for part in says:
        assert part in words


def test_a_misfit_of_variables_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_GRPC_PROFILE", "qrng")
    monkeypatch.setenv("QR_GRPC_MODE", "server_streaming")
    with pytest.raises(ConfigError, match="give QR_GRPC_STREAM_METHOD_PATH") as caught:
        GrpcSettings.load()
    assert "QR_GRPC_PROFILE 'qrng'" in str(caught.value)


def test_declarations_are_understood() -> None:
    assert field_numbers("", ("a",)) == {}
    assert field_numbers(" a = 1 ,b=536870911 ", ("a", "b")) == {"a": 1, "b": 2**29 - 1}


def tls_error(*paths: Path | None) -> str:
    names = ("tls_ca_cert", "tls_client_cert", "tls_client_key")
    with pytest.raises(ConfigError) as caught:
        GrpcOptions.checked(tls_enabled=True, **dict(zip(names, paths, strict=True)))
    text = "".join(traceback.format_exception(caught.value))
    assert "PRIVATE KEY" not in text
    assert SECRET not in text
    return str(caught.value)


def test_files_of_tls_are_checked(tmp_path: Path) -> None:
    ours, other = issue(tmp_path, "client"), issue(tmp_path, "other")
    cert, key = ours.certificate, ours.private_key
    empty, missing, noise = tmp_path / "empty", tmp_path / "missing", tmp_path / "noise"
    empty.write_bytes(b"")
    noise.write_bytes(b"\x00\xff" * 99)
    cut = tmp_path / "cut"
    cut.write_bytes(cert.read_bytes()[:200] + b"\n-----END CERTIFICATE-----\n")
    assert f"cannot read the certificates {missing}" in tls_error(missing, None, None)
    assert f"cannot read the certificates {tmp_path}" in tls_error(tmp_path, None, None)
    for wrong in (empty, noise, cut, key):
        assert f"{wrong} holds no certificates in PEM form" in tls_error(wrong, None, None)
    for one, two in ((missing, key), (cert, missing), (cert, tmp_path)):
        words = tls_error(None, one, two)
        assert words.startswith(f"cannot read the client's certificate {one} or key {two}")
    for one, two in (
        (cert, other.private_key),
        (other.certificate, key),
        (key, cert),
        (cert, noise),
    ):
        words = tls_error(None, one, two)
        assert words.startswith(f"{one} and {two} are no certificate and key in PEM form that")
        assert "None" not in words
    assert f"only {cert} is given" in tls_error(None, cert, None)
    assert f"only {key} is given" in tls_error(None, None, key)


def test_good_files_make_credentials(tmp_path: Path) -> None:
    ours = issue(tmp_path, "client")
    tls = GrpcOptions.checked(
        tls_enabled=True,
        tls_ca_cert=ours.certificate,
        tls_client_cert=ours.certificate,
        tls_client_key=ours.private_key,
    ).tls
    assert tls is not None
    assert tls.credentials() is not None
    assert ClientTls().credentials() is not None
    ours.private_key.unlink()
    with pytest.raises(FileNotFoundError):
        tls.credentials()


def test_certificates_without_tls_are_refused(tmp_path: Path) -> None:
    ours = issue(tmp_path, "client")
    words = contract_error(tls_ca_cert=ours.certificate)
    assert words == (
        f"certificates are given ({ours.certificate}) and TLS is off; set tls_enabled to true, or "
        "remove them"
    )


@pytest.mark.parametrize("layout", ["PKCS8", "TraditionalOpenSSL"])
def test_an_encrypted_key_is_refused_without_asking_for_its_password(
    tmp_path: Path, layout: str
) -> None:
    ours = issue(tmp_path, "client")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(ours.key_as(LOCK, getattr(serialization.PrivateFormat, layout)))
    assert tls_error(None, ours.certificate, locked).startswith(f"the key {locked} is encrypted")
    script = (
        "import sys; from pathlib import Path\n"
        "from qr_sampler_grpc.connection.tls import ClientTls\n"
        "ClientTls(None, Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    # With a terminal to ask on, which is where OpenSSL looks for one.
    ours_end, theirs = os.openpty()
    try:
        finished = subprocess.run(
            [sys.executable, "-c", script, str(ours.certificate), str(locked)],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            start_new_session=True,
        )
    finally:
        os.close(ours_end)
        os.close(theirs)
    assert "is encrypted" in finished.stderr
    assert "PEM pass phrase" not in finished.stdout + finished.stderr


def test_a_key_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"  {SECRET}\r\n", "utf-8")
    assert secret_in(file) == SECRET
    options = GrpcOptions.checked(api_key_file=file)
    assert options.credentials == ApiKey("api-key", SECRET)
    for text in (repr(options), str(options), options.model_dump_json()):
        assert SECRET not in text


def test_the_file_of_a_key_is_read_once(tmp_path: Path) -> None:
    """What was sent has to be what is masked in messages later, whatever became of the file."""
    file = tmp_path / "key"
    file.write_text(SECRET, "utf-8")
    options = GrpcOptions.checked(api_key_file=file)
    file.unlink()
    assert options.credentials == ApiKey("api-key", SECRET)
    assert options == pickle.loads(pickle.dumps(options))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read the API key from {file}: No such file"),
        (b"", "the file {file} holds no API key; write the key into it as text"),
        (b" \n\t\n", "the file {file} holds no API key; write the key into it as text"),
        (SECRET.encode() + b"\xff", "the file {file} holds no API key; write the key"),
        (f"{SECRET}\n{SECRET}".encode(), "a character that gRPC metadata cannot carry"),
    ],
)
def test_a_wrong_file_of_a_key_is_refused_without_a_quote(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        GrpcOptions.checked(api_key_file=file)
    assert says.format(file=file) in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_is_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET, "utf-8")
    monkeypatch.setenv("QR_GRPC_API_KEY", SECRET)
    monkeypatch.setenv("QR_GRPC_API_KEY_FILE", str(file))
    with pytest.raises(ConfigError, match="given twice; remove it, or its file") as caught:
        GrpcSettings.load()
    assert str(file) in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_breaker_is_configured_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "ENABLED": ("false", False),
        "WINDOW_SIZE": ("50", 50),
        "MIN_SAMPLES": ("5", 5),
        "MIN_TIMEOUT_MS": ("2.5", 2.5),
        "MIN_TIMEOUT_MS_PER_MIB": ("30", 30.0),
        "MIN_TIMEOUT_MS_WITHOUT_FALLBACK": ("250", 250.0),
        "TIMEOUT_MULTIPLIER": ("2", 2.0),
        "MAX_CONSECUTIVE_FAILURES": ("4", 4),
        "RECOVERY_WINDOW_S": ("0.5", 0.5),
        "RECOVERY_MAX_S": ("9", 9.0),
    }
    assert set(values) == {name.upper() for name in BreakerSettings.model_fields}
    for name, (text, _) in values.items():
        monkeypatch.setenv(f"QR_CB_{name}", text)
    settings = BreakerSettings.load()
    assert settings.model_dump() == {name.lower(): value for name, (_, value) in values.items()}
    source = QuantumGrpcSource.from_environment()
    assert source._breaker_options.model_dump() == settings.model_dump()
    source.close()


def test_the_rule_of_the_deadlines_has_every_number() -> None:
    rule = BreakerOptions.checked(
        window_size=50, min_timeout_ms=2.5, min_timeout_ms_per_mib=30, timeout_multiplier=2
    ).deadline_rule(77.0)
    assert (rule.window_size, rule.min_samples) == (50, 10)
    assert (rule.floor_ms, rule.floor_ms_per_mib) == (2.5, 30.0)
    assert (rule.multiplier, rule.cap_ms) == (2.0, 77.0)
    assert BreakerOptions.checked(window_size=5).deadline_rule(1.0).min_samples == 5
    assert BreakerOptions.checked(enabled=False).deadline_rule(1.0).min_samples == 101
