# SPDX-License-Identifier: Apache-2.0
"""Settings: names, defaults, refusals, and that the API key stays secret."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import ConfigError
from qr_sampler_grpc.credentials import ApiKey
from qr_sampler_grpc.settings import GrpcOptions, GrpcSettings
from qr_sampler_grpc.source import QuantumGrpcSource

SECRET = "s3cret-key-0xdeadbeef"


def test_defaults() -> None:
    settings = GrpcSettings.load()
    assert settings.server_address == "localhost:50051"
    assert settings.mode == "unary"
    assert settings.timeout_ms == 5000.0
    assert settings.method_path == "/qr_entropy.EntropyService/GetEntropy"
    assert settings.api_key.get_secret_value() == ""
    assert settings.api_key_header == "api-key"
    assert settings.max_bytes_per_request == 13_312
    assert settings.credentials is None


def test_constructor_and_settings_share_their_defaults() -> None:
    source = QuantumGrpcSource()
    assert source._options == GrpcOptions.checked()
    source.close()


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "QR_GRPC_SERVER_ADDRESS": "unix:/run/qrng.sock",
        "QR_GRPC_MODE": "unary",
        "QR_GRPC_TIMEOUT_MS": "12.5",
        "QR_GRPC_METHOD_PATH": "/qrng.QuantumRNG/GetRandomBytes",
        "QR_GRPC_API_KEY": SECRET,
        "QR_GRPC_API_KEY_HEADER": "x-key",
        "QR_GRPC_MAX_BYTES_PER_REQUEST": "99",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = GrpcSettings.load()
    assert settings.address.path == "/run/qrng.sock"
    assert settings.timeout_ms == 12.5
    assert settings.method_path == "/qrng.QuantumRNG/GetRandomBytes"
    assert settings.credentials == ApiKey("x-key", SECRET)
    assert settings.max_bytes_per_request == 99
    source = QuantumGrpcSource.from_environment()
    assert source._options.model_dump() == settings.model_dump()
    source.close()


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
        ("SERVER_ADDRESS", "localhost", "the port is missing"),
        ("MODE", "bidi_streaming", "this release implements only 'unary'"),
        ("MODE", "server_streaming", "this release implements only 'unary'"),
        ("MODE", "turbo", "choose one of unary, server_streaming, bidi_streaming"),
        ("TIMEOUT_MS", "0", "greater than 0"),
        ("TIMEOUT_MS", "-1", "greater than 0"),
        ("TIMEOUT_MS", "nan", "finite"),
        ("TIMEOUT_MS", "inf", "finite"),
        ("TIMEOUT_MS", "soon", "valid number"),
        ("METHOD_PATH", "GetEntropy", "/package.Service/Method"),
        ("METHOD_PATH", "/qr_entropy.EntropyService/", "/package.Service/Method"),
        ("METHOD_PATH", "/a b/C", "/package.Service/Method"),
        ("API_KEY_HEADER", "API-Key", "lower-case"),
        ("API_KEY_HEADER", "api key", "lower-case"),
        ("API_KEY_HEADER", "key-bin", "reserved"),
        ("API_KEY_HEADER", "grpc-key", "reserved"),
        ("MAX_BYTES_PER_REQUEST", "0", "greater than or equal to 1"),
    ],
)
def test_malformed_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"QR_GRPC_{name}", value)
    with pytest.raises(ConfigError) as caught:
        QuantumGrpcSource.from_environment()
    assert f"QR_GRPC_{name}={value!r}" in str(caught.value)
    assert says in str(caught.value)


def test_malformed_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"timeout_ms=-1"):
        QuantumGrpcSource(timeout_ms=-1)


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
    shown = [settings, source, key, source._options, source._transport, source.status()]
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
