# SPDX-License-Identifier: Apache-2.0
"""The documentation of settings, made from the settings themselves."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from qr_sampler.overrides import FOLLOW_KEY, KEY_PREFIX, SOURCE_KEY
from qr_sampler.settings import SamplingParameters, Settings, public_name

__all__ = ["settings_table"]


def settings_table(*models: type[BaseSettings]) -> str:
    """Returns a Markdown table of every variable of *models*, sorted by name.

    A column says which of them a request may change, if there are any.
    """
    rows = sorted(row for model in models for row in _rows(model))
    header: tuple[str, ...] = ("variable", "default", "per request", "meaning")
    if not any(key for _, _, key, _ in rows):
        header = ("variable", "default", "meaning")
        return _markdown(header, [(name, default, text) for name, default, _, text in rows])
    return _markdown(header, rows)


def _rows(model: type[BaseSettings]) -> list[tuple[str, str, str, str]]:
    prefix = str(model.model_config.get("env_prefix", ""))
    keys = _request_keys() if model is Settings else {}
    return [
        (
            f"`{public_name(name, prefix)}`",
            _default(field),
            f"`{keys[name]}`" if name in keys else "",
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]


def _request_keys() -> dict[str, str]:
    """Returns the key with which a request says otherwise, by the name of the setting."""
    same = {name: public_name(name, KEY_PREFIX) for name in SamplingParameters.model_fields}
    return {**same, "entropy_source_type": SOURCE_KEY, "follow_request": FOLLOW_KEY}


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "unset" if value in (None, "") else f"`{value}`"


def _markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
