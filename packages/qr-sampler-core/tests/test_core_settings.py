# SPDX-License-Identifier: Apache-2.0
"""Settings of a deployment: where values come from, and how errors read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from qr_sampler import ConfigError, SamplingParameters, Settings

NUMBERS = ("sample_count", "fixed_temperature", "top_k", "top_p", "min_p", "population_std")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_field_is_described(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")


def test_defaults() -> None:
    settings = Settings.load()
    assert settings.entropy_source_type == "system"
    assert settings.fallback_mode == "system"
    assert settings.signal_amplifier_type == "zscore_mean"
    assert settings.temperature_strategy == "fixed"
    assert (settings.top_k, settings.top_p, settings.min_p) == (0, 1.0, 0.0)
    assert math.sqrt((256**2 - 1) / 12) == settings.population_std
    assert settings.ledger_dir is None


def test_the_default_block_is_accepted_by_common_entropy_servers() -> None:
    assert 1 <= Settings.load().sample_count <= 13_312


def test_keyword_beats_environment_beats_file_beats_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.load().top_k == 0
    (tmp_path / ".env").write_text("QR_TOP_K=1\nQR_TOP_P=0.5\nUNRELATED=1\n", "utf-8")
    assert Settings.load().top_k == 1
    monkeypatch.setenv("QR_TOP_K", "2")
    assert Settings.load().top_k == 2
    assert Settings.load(top_k=3).top_k == 3
    assert Settings.load().top_p == 0.5


def test_only_prefixed_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP_K", "7")
    monkeypatch.setenv("QRTOP_K", "7")
    assert Settings.load().top_k == 0


def test_variables_of_other_components_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QR_GRPC_TIMEOUT_MS", "abc")
    (tmp_path / ".env").write_text("QR_GRPC_SERVER_ADDRESS=localhost:1\n", "utf-8")
    assert Settings.load() == Settings.load(top_k=0)


@pytest.mark.parametrize("name", [*NUMBERS, "entropy_source_type", "ledger_dir", "log_level"])
def test_empty_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    default = getattr(Settings.load(), name)
    monkeypatch.setenv(f"QR_{name.upper()}", "")
    assert getattr(Settings.load(), name) == default


MALFORMED = [
    ("sample_count", "0"),
    ("sample_count", "-5"),
    ("sample_count", "many"),
    ("sample_count", "1.5"),
    ("fixed_temperature", "0"),
    ("fixed_temperature", "-1"),
    ("fixed_temperature", "nan"),
    ("fixed_temperature", "inf"),
    ("fixed_temperature", "1e4"),
    ("edt_base_temp", "warm"),
    ("edt_exponent", "-0.5"),
    ("edt_exponent", "inf"),
    ("top_k", "abc"),
    ("top_k", "-2"),
    ("min_p", "1.5"),
    ("min_p", "-0.1"),
    ("top_p", "0"),
    ("top_p", "1.0001"),
    ("top_p", "nan"),
    ("truncate_first", "perhaps"),
    ("population_mean", "nan"),
    ("population_std", "0"),
    ("population_std", "inf"),
    ("log_level", "loud"),
    ("max_sample_count", "0"),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_malformed_variables_name_themselves_and_their_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"QR_{name.upper()}", value)
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    message = str(caught.value)
    assert f"QR_{name.upper()}=" in message
    assert value in message
    assert Settings.model_fields[name].description in message
    assert isinstance(caught.value.__cause__, ValidationError)


def test_malformed_lines_of_the_file_name_themselves_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("QR_TOP_P=often\n", "utf-8")
    with pytest.raises(ConfigError, match=r"QR_TOP_P='often'"):
        Settings.load()


def test_all_malformed_variables_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_TOP_K", "abc")
    monkeypatch.setenv("QR_MIN_P", "7")
    with pytest.raises(ConfigError, match=r"QR_TOP_K='abc'.*QR_MIN_P='7'"):
        Settings.load()


def test_contradictory_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_EDT_MIN_TEMP", "3")
    with pytest.raises(ConfigError, match=r"QR_EDT_MIN_TEMP=3\.0 exceeds QR_EDT_MAX_TEMP=2\.0"):
        Settings.load()
    monkeypatch.delenv("QR_EDT_MIN_TEMP")
    monkeypatch.setenv("QR_SAMPLE_COUNT", "100")
    monkeypatch.setenv("QR_MAX_SAMPLE_COUNT", "99")
    with pytest.raises(ConfigError, match=r"QR_SAMPLE_COUNT=100 exceeds QR_MAX_SAMPLE_COUNT=99"):
        Settings.load()


@pytest.mark.parametrize("name", ["error", "end_request"])
def test_no_source_has_the_name_of_a_mode(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in [
        ("ENTROPY_SOURCE_TYPE", name),
        ("REQUEST_ENTROPY_SOURCES", f"a, {name}"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(f"QR_{variable}", value)
            with pytest.raises(ConfigError, match=f"'{name}' in QR_ENTROPY_SOURCE_TYPE or QR_REQ"):
                Settings.load()
    assert Settings.load(fallback_mode=name).fallback_mode == name


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "1e9"])
def test_a_draw_has_a_deadline(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert Settings.load().draw_timeout_ms == 10_000
    monkeypatch.setenv("QR_DRAW_TIMEOUT_MS", value)
    with pytest.raises(ConfigError, match="QR_DRAW_TIMEOUT_MS="):
        Settings.load()


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("", ("device",)),
        (" , ,", ("device",)),
        ("other", ("device", "other")),
        (" b , a,b,device,, a ", ("device", "b", "a")),
    ],
)
def test_selectable_sources_begin_with_the_configured_one(
    declared: str, expected: tuple[str, ...]
) -> None:
    settings = Settings.load(entropy_source_type="device", request_entropy_sources=declared)
    assert settings.selectable_sources == expected


@pytest.mark.parametrize("name", ["top_k", "sample_count", "max_sample_count"])
def test_integers_beyond_reason_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever is accepted is later converted to float64 columns."""
    monkeypatch.setenv(f"QR_{name.upper()}", "1" + "0" * 400)
    with pytest.raises(ConfigError, match=f"(?i){name}='?1"):
        Settings.load()


def test_settings_are_immutable() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.top_k = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.sampling.top_k = 5  # type: ignore[misc]


def test_sampling_defaults_follow_the_settings() -> None:
    settings = Settings.load(top_k=9, edt_max_temp=1.5)
    assert settings.sampling == SamplingParameters(top_k=9, edt_max_temp=1.5)
    assert set(SamplingParameters.model_fields) < set(Settings.model_fields)
