# SPDX-License-Identifier: Apache-2.0
"""The documentation of settings, made from the settings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from qr_sampler.admission.overrides import FOLLOW_KEY, KEY_PREFIX, SOURCE_KEY
from qr_sampler.settings import SamplingParameters, Settings, public_name

__all__ = ["SettingRow", "markdown_table", "setting_rows", "settings_table"]


class SettingRow(NamedTuple):
    """What the documentation says about one setting; rows sort by the name of the variable."""

    variable: str
    """The environment variable, in backquotes."""
    default: str
    """The default in backquotes, or ``unset``."""
    key: str
    """The key of a request that says otherwise, in backquotes; empty if there is none."""
    meaning: str
    """The description."""
    field: str
    """The name of the field."""


def settings_table(*models: type[BaseSettings]) -> str:
    """Returns a Markdown table of every variable of *models*, sorted by name.

    A column says which of them a request may change, if there are any.
    """
    rows = sorted(row for model in models for row in setting_rows(model))
    header: tuple[str, ...] = ("variable", "default", "per request", "meaning")
    if not any(row.key for row in rows):
        header = ("variable", "default", "meaning")
        return markdown_table(header, [(row.variable, row.default, row.meaning) for row in rows])
    return markdown_table(header, [row[:4] for row in rows])


def setting_rows(model: type[BaseSettings]) -> list[SettingRow]:
    """Returns one row for each field of *model*, in their order."""
    prefix = str(model.model_config.get("env_prefix", ""))
    keys = _request_keys() if model is Settings else {}
    return [
        SettingRow(
            f"`{public_name(name, prefix)}`",
            _default(field),
            f"`{keys[name]}`" if name in keys else "",
            field.description or "",
            name,
        )
        for name, field in model.model_fields.items()
    ]


def markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Returns a Markdown table without a line break at its end."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _request_keys() -> dict[str, str]:
    """Returns the key with which a request says otherwise, by the name of the setting."""
    same = {name: public_name(name, KEY_PREFIX) for name in SamplingParameters.model_fields}
    return {**same, "entropy_source_type": SOURCE_KEY, "follow_request": FOLLOW_KEY}


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "unset" if value in (None, "") else f"`{value}`"
