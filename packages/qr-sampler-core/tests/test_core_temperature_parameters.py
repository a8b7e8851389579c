# SPDX-License-Identifier: Apache-2.0
"""The settings of temperature strategies: bounds, ranges, and how a refusal reads."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from qr_sampler import ConfigError, SamplingParameters, Settings, resolve_request
from qr_sampler.settings.temperature_parameters import TemperatureParameters

REFUSED: list[tuple[str, Any]] = [
    ("edt_paper_base_temp", 0.0),
    ("edt_paper_base_temp", 1e4),
    ("edt_paper_n", 0.0),
    ("edt_paper_n", 1.5),
    ("edt_paper_theta", -0.1),
    ("edt_paper_theta", 1e3),
    ("dynatemp_min_temp", -1.0),
    ("dynatemp_max_temp", 1e4),
    ("dynatemp_exponent", "inf"),
    ("varentropy_base_temp", "nan"),
    ("varentropy_entropy_weight", 101.0),
    ("varentropy_variance_weight", -101.0),
    ("varentropy_drift_weight", "steep"),
    ("varentropy_drift_rate", 0.0),
    ("varentropy_drift_rate", 1.01),
    ("varentropy_min_temp", 0.0),
    ("varentropy_max_temp", 1e4),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_out_of_bounds_is_refused_by_its_public_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    with pytest.raises(ConfigError) as caught:
        resolve_request(Settings.load(), {f"qr_{name}": value})
    assert f"qr_{name}=" in str(caught.value)
    assert str(value) in str(caught.value)
    assert description in str(caught.value)
    monkeypatch.setenv(f"QR_{name.upper()}", str(value))
    with pytest.raises(ConfigError, match=f"QR_{name.upper()}="):
        Settings.load()


@pytest.mark.parametrize("strategy", ["edt", "dynatemp", "varentropy"])
def test_an_empty_range_is_refused_by_its_public_names(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    low, high = f"{strategy}_min_temp", f"{strategy}_max_temp"
    with pytest.raises(ConfigError, match=rf"^qr_{low}=3\.0 exceeds qr_{high}=2\.5; swap them"):
        resolve_request(Settings.load(), {f"qr_{low}": 3.0, f"qr_{high}": 2.5})
    monkeypatch.setenv(f"QR_{low.upper()}", "3")
    monkeypatch.setenv(f"QR_{high.upper()}", "2.5")
    match = rf"QR_{low.upper()}=3\.0 exceeds QR_{high.upper()}=2\.5"
    with pytest.raises(ConfigError, match=match):
        Settings.load()
    options = resolve_request(Settings.load(**{low: 1.0}), {f"qr_{low}": 2.5, f"qr_{high}": 2.5})
    assert getattr(options.parameters, low) == 2.5


def test_every_parameter_is_a_flat_setting_that_a_request_may_change() -> None:
    fields = set(TemperatureParameters.model_fields)
    assert fields < set(SamplingParameters.model_fields) < set(Settings.model_fields)
    defaults = Settings.load()
    for name in fields - {"temperature_strategy"}:
        value = getattr(defaults, name) * 0.999
        options = resolve_request(defaults, {f"qr_{name}": value})
        assert getattr(options.parameters, name) == value


def test_parameters_are_immutable() -> None:
    with pytest.raises(ValidationError):
        SamplingParameters().varentropy_drift_rate = 0.5  # type: ignore[misc]
