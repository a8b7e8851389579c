# SPDX-License-Identifier: Apache-2.0
"""The documentation that is made from settings."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from qr_sampler import SamplingParameters, Settings
from qr_sampler.settings_reference import settings_table


class LampSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="QR_LAMP_")

    wax: str = Field("red", description="Colour of the wax.")
    key: SecretStr = Field(SecretStr(""), description="Key of the lamp.")
    age: int | None = Field(None, description="Age in years.")


def test_variables_are_sorted_and_described() -> None:
    assert settings_table(LampSettings).splitlines() == [
        "| variable | default | meaning |",
        "| --- | --- | --- |",
        "| `QR_LAMP_AGE` | unset | Age in years. |",
        "| `QR_LAMP_KEY` | unset | Key of the lamp. |",
        "| `QR_LAMP_WAX` | `red` | Colour of the wax. |",
    ]


def test_what_a_request_may_change_is_named_by_its_key() -> None:
    lines = settings_table(Settings).splitlines()
    assert len(lines) == 2 + len(Settings.model_fields)
    keys = {line.split(" | ")[2] for line in lines[2:]} - {""}
    changeable = [*SamplingParameters.model_fields, "entropy_source", "follow_request"]
    assert keys == {f"`qr_{name}`" for name in changeable}
