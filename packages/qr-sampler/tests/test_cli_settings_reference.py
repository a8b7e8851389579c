# SPDX-License-Identifier: Apache-2.0
"""The reference of all settings: ranges that validation agrees with, and nothing left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from qr_sampler import SamplingParameters, Settings
from qr_sampler.admission.overrides import (
    FOLLOW_KEY,
    LABEL_KEYS,
    MAX_LABEL_LENGTH,
    SOURCE_KEY,
    SWITCH_KEYS,
    EngineFields,
    resolve_request,
)
from qr_sampler_cli.settings.reference import (
    REQUEST_ONLY_KEYS,
    SettingsGroup,
    configuration_page,
    value_range,
)


class LampSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="QR_LAMP_")

    wax: str = Field("red", description="Colour.")
    key: SecretStr = Field(SecretStr(""), description="Key.")
    manual: Path | None = Field(None, description="File.")
    age: int | None = Field(None, gt=0, description="Years.")
    glow: float = Field(0.5, ge=0.25, lt=4.0, description="Light.")
    cold: float = Field(-1.0, lt=0.0, description="Frost.")
    most: int = Field(1, le=9, description="Limit.")
    mood: Literal["calm", "wild"] = Field("calm", description="Way.")
    plugged: bool = Field(True, description="Power.")


LAMP = SettingsGroup(title="A lamp", package="qr-lamp", text="For a lamp.", model=LampSettings)
CORE = SettingsGroup(title="Core", package="qr-sampler-core", text="For all.", model=Settings)


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]


def test_every_kind_of_value_has_its_range() -> None:
    found = {row[0]: row[2] for row in rows(configuration_page([LAMP]))[:9]}
    assert found == {
        "`QR_LAMP_AGE`": "integer above 0",
        "`QR_LAMP_COLD`": "number below 0",
        "`QR_LAMP_GLOW`": "number in [0.25, 4)",
        "`QR_LAMP_KEY`": "secret text",
        "`QR_LAMP_MANUAL`": "path",
        "`QR_LAMP_MOOD`": "`calm`, `wild`",
        "`QR_LAMP_MOST`": "integer, at most 9",
        "`QR_LAMP_PLUGGED`": "`true`, `false`",
        "`QR_LAMP_WAX`": "text",
    }


def test_groups_have_their_heading_and_the_requests_a_column_where_they_have_keys() -> None:
    lamp, core = configuration_page([LAMP]), configuration_page([CORE])
    assert "## A lamp\n\nFor a lamp.\nPackage: `qr-lamp`.\n\n| variable |" in lamp
    assert "| variable | default | range | meaning |" in lamp
    assert "| variable | default | range | per request | meaning |" in core


def test_each_key_that_a_request_may_carry_is_on_the_page() -> None:
    page = configuration_page([CORE])
    found = set(re.findall(r"\| `(qr_\w+)` \|", page))
    keys = {f"qr_{name}" for name in SamplingParameters.model_fields}
    assert found == {*keys, SOURCE_KEY, FOLLOW_KEY, *LABEL_KEYS, *SWITCH_KEYS}


def test_ranges_of_the_keys_without_a_variable_are_those_of_requests() -> None:
    fields = EngineFields(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    assert set(REQUEST_ONLY_KEYS) == {*LABEL_KEYS, *SWITCH_KEYS} - {FOLLOW_KEY}
    for key, (allowed, _) in REQUEST_ONLY_KEYS.items():
        values: list[Any] = ["x", "x" * MAX_LABEL_LENGTH] if key in LABEL_KEYS else [0, 1]
        for value in values:
            resolve_request(Settings(_env_file=None), {key: value}, fields)
        assert allowed in (f"1 to {MAX_LABEL_LENGTH} characters", "`0`, `1`")


def limits(schema: dict[str, Any]) -> list[tuple[float, bool]]:
    """Returns the bounds of a number, each with whether it belongs to the range."""
    names = {"minimum": True, "maximum": True, "exclusiveMinimum": False, "exclusiveMaximum": False}
    return [(schema[name], closed) for name, closed in names.items() if name in schema]


@pytest.mark.parametrize(
    ("name", "schema"), sorted(SamplingParameters.model_json_schema()["properties"].items())
)
def test_brackets_say_what_validation_does(name: str, schema: dict[str, Any]) -> None:
    text = value_range(schema)
    for value, closed in limits(schema):
        low = "inimum" in "".join(key for key in schema if schema[key] == value)
        shown = f"{int(value)}" if value == int(value) else f"{value}"
        bracket = {(True, True): "[", (True, False): "(", (False, True): "]", (False, False): ")"}
        assert (
            bracket[low, closed] + shown in text
            or shown + bracket[low, closed] in text
            or f"at least {shown}" in text
        )
        accepted = True
        try:
            SamplingParameters.model_validate({name: value})
        except ValidationError as error:
            # A temperature at its bound may cross the other one of its strategy.
            accepted = all(not problem["loc"] for problem in error.errors())
        assert accepted == closed
