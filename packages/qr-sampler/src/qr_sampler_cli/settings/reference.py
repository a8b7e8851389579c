# SPDX-License-Identifier: Apache-2.0
"""The complete reference of settings, made from the settings themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_settings import BaseSettings

from qr_sampler.admission.overrides import BYPASS_KEY
from qr_sampler.settings_reference import markdown_table, setting_rows

__all__ = [
    "REQUEST_ONLY_KEYS",
    "SettingsGroup",
    "configuration_page",
    "configuration_tables",
    "value_range",
]

REQUEST_ONLY_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "qr_request_key": ("1 to 256 characters", "Names the request in its records."),
    "qr_trial": ("1 to 256 characters", "Labels its records with a trial."),
    "qr_condition": ("1 to 256 characters", "Labels its records with a condition."),
    BYPASS_KEY: ("`0`, `1`", "Leaves the request to vLLM: nothing is drawn and no token recorded."),
}
"""Range and meaning of the keys of a request that no variable stands for."""

_INTRODUCTION: Final = """\
# Configuration reference

Every setting of every package: its variable, its default, its range and its meaning.
`qr-sampler settings` makes this page from the code, for the packages that are installed.

Values come from `QR_*` environment variables, else from a UTF-8 file `.env` in the working
directory. vLLM engines read the one in the directory where their server was started; engines on
other hosts read their own.
An empty variable counts as unset.
What is declared of [a source with a name of its own](devices.md#several-sources-of-one-kind) comes
before both.
A value that is malformed or out of range aborts the start with a message that names the variable.
`[a, b]` includes both ends, `(a, b]` excludes the first.
Constraints between settings, such as a lowest and a highest temperature, are checked, too.

Where a key is given, a request can override the setting with it: in `vllm_xargs` over HTTP, in the
`extra_args` of `SamplingParams` offline.
All other settings are reserved for the operator."""

_REQUEST_ONLY: Final = """\
## Keys without a variable

Set by requests only:"""

_KINDS: Final = {
    ("integer", ""): "integer",
    ("number", ""): "number",
    ("string", ""): "text",
    ("string", "path"): "path",
    ("string", "password"): "secret text",
}
"""What a value is, by the type and the format of its JSON Schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsGroup:
    """Settings that belong together."""

    title: str
    """What they configure."""
    package: str
    """The distribution that has them."""
    text: str
    """One sentence on when they matter."""
    model: type[BaseSettings]
    """The settings."""


def configuration_page(groups: Iterable[SettingsGroup]) -> str:
    """Returns the reference of all *groups* as a Markdown page, without a line break at its end."""
    return f"{_INTRODUCTION}\n\n{configuration_tables(groups)}"


def configuration_tables(groups: Iterable[SettingsGroup]) -> str:
    """Returns the part of the page that is made from the settings."""
    keys = [(f"`{key}`", *row) for key, row in REQUEST_ONLY_KEYS.items()]
    table = markdown_table(("key", "range", "meaning"), keys)
    return "\n\n".join([*map(_section, groups), f"{_REQUEST_ONLY}\n\n{table}"])


def _section(group: SettingsGroup) -> str:
    schema = group.model.model_json_schema()["properties"]
    rows = [
        (row.variable, row.default, value_range(schema[row.field]), row.key, row.meaning)
        for row in sorted(setting_rows(group.model))
    ]
    header: tuple[str, ...] = ("variable", "default", "range", "per request", "meaning")
    if not any(key for *_, key, _ in rows):
        header = ("variable", "default", "range", "meaning")
        table = markdown_table(header, [(*row[:3], row[4]) for row in rows])
    else:
        table = markdown_table(header, rows)
    return f"## {group.title}\n\n{group.text}\nPackage: `{group.package}`.\n\n{table}"


def value_range(schema: Mapping[str, Any]) -> str:
    """Returns in words which values a field with the JSON *schema* may have.

    >>> value_range({"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0})
    'number in (0, 1]'
    >>> value_range({"type": "integer", "minimum": 1})
    'integer, at least 1'
    >>> value_range({"type": "string", "enum": ["none", "full"]})
    '`none`, `full`'
    """
    if "anyOf" in schema:
        (schema,) = (kind for kind in schema["anyOf"] if kind.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "boolean":
        return "`true`, `false`"
    plain = _KINDS[schema["type"], ""]
    kind = _KINDS.get((schema["type"], schema.get("format", "")), plain)
    return kind + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low = _bound(schema, "minimum", "exclusiveMinimum")
    high = _bound(schema, "maximum", "exclusiveMaximum")
    if low and high:
        left = "[" if "minimum" in schema else "("
        right = "]" if "maximum" in schema else ")"
        return f" in {left}{low}, {high}{right}"
    if low:
        return f", at least {low}" if "minimum" in schema else f" above {low}"
    if high:
        return f", at most {high}" if "maximum" in schema else f" below {high}"
    return ""


def _bound(schema: Mapping[str, Any], *names: str) -> str:
    """Returns the bound that one of *names* gives, or nothing; whole numbers without a point."""
    for name in names:
        if name in schema:
            value = schema[name]
            return f"{int(value)}" if value == int(value) else f"{value}"
    return ""
