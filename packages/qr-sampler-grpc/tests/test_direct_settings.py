# SPDX-License-Identifier: Apache-2.0
"""Settings of the direct source: names, defaults and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qr_sampler import ENTROPY_SOURCES, ConfigError, create_source
from qr_sampler_grpc.direct.settings import DirectOptions, DirectSettings
from qr_sampler_grpc.direct.source import DirectSource


def test_constructor_and_settings_share_their_defaults() -> None:
    assert DirectSource()._options == DirectOptions.checked()
    settings = DirectSettings.load()
    assert settings.server_address == "unix:///run/qr-sampler/direct.sock"
    assert settings.path == "/run/qr-sampler/direct.sock"
    assert settings.timeout_ms == 5000.0
    assert settings.max_bytes_per_request == 16 * 2**20
    assert settings.public_key == ""
    assert settings.commitment is True
    assert settings.verification_key() is None


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_DIRECT_SERVER_ADDRESS", "unix:/run/e.sock")
    monkeypatch.setenv("QR_DIRECT_TIMEOUT_MS", "12.5")
    monkeypatch.setenv("QR_DIRECT_MAX_BYTES_PER_REQUEST", "99")
    monkeypatch.setenv("QR_DIRECT_COMMITMENT", "off")
    source = DirectSource.from_environment()
    assert source._options == DirectOptions.checked(
        server_address="unix:///run/e.sock",
        timeout_ms=12.5,
        max_bytes_per_request=99,
        commitment=False,
    )
    assert source.commits is False
    assert source.limits.max_bytes_per_request == 99


def test_dotenv_file_is_read_and_empty_means_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("QR_DIRECT_TIMEOUT_MS=7\nQR_TOP_K=3\n", "utf-8")
    monkeypatch.setenv("QR_DIRECT_COMMITMENT", "")
    settings = DirectSettings.load()
    assert (settings.timeout_ms, settings.commitment) == (7.0, True)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SERVER_ADDRESS", "localhost:50051", "not the path of a Unix domain socket"),
        ("SERVER_ADDRESS", "unix:relative", "must be absolute"),
        ("TIMEOUT_MS", "0", "greater than 0"),
        ("TIMEOUT_MS", "nan", "finite"),
        ("MAX_BYTES_PER_REQUEST", "0", "greater than or equal to 1"),
        ("COMMITMENT", "perhaps", "boolean"),
    ],
)
def test_malformed_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"QR_DIRECT_{name}", value)
    with pytest.raises(ConfigError) as caught:
        DirectSource.from_environment()
    assert f"QR_DIRECT_{name}={value!r}" in str(caught.value)
    assert says in str(caught.value)


def test_malformed_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"timeout_ms=-1"):
        DirectSource(timeout_ms=-1)


def test_a_key_that_is_not_there_is_named_at_construction(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"public key .*none\.pem"):
        DirectSource(public_key=str(tmp_path / "none.pem"))


def test_the_entry_point_leads_to_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENTROPY_SOURCES.load("direct") is DirectSource
    monkeypatch.setenv("QR_DIRECT_SERVER_ADDRESS", "unix:///run/e.sock")
    source: Any = create_source("direct")
    assert source.name == "direct"
    assert source.origin.distribution == "qr-sampler-grpc"
    assert repr(source) == "DirectSource('unix:///run/e.sock')"


def test_servers_are_named_by_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = "near=direct:unix:///run/near.sock, far=quantum_grpc:far.example:50051"
    monkeypatch.setenv("QR_SOURCES", declared)
    monkeypatch.setenv("QR_DIRECT_TIMEOUT_MS", "77")
    near, far = create_source("near"), create_source("far")
    assert (near.name, far.name) == ("near", "far")
    assert near.recorded_settings["server_address"] == "unix:///run/near.sock"
    assert near.recorded_settings["timeout_ms"] == 77
    assert far.recorded_settings["server_address"] == "far.example:50051"


def test_a_bad_value_of_a_named_server_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "sources.toml"
    file.write_text('[far]\nkind = "quantum_grpc"\ntimeout_ms = -1\n', "utf-8")
    monkeypatch.setenv("QR_SOURCES_FILE", str(file))
    with pytest.raises(ConfigError, match=r"sources\.toml: far: timeout_ms"):
        create_source("far")
