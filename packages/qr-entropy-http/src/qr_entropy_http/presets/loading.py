# SPDX-License-Identifier: Apache-2.0
"""Presets in files: those that come with this package, and a user's own."""

from __future__ import annotations

import hashlib
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from qr_entropy_http.presets.model import Preset
from qr_sampler.errors import ConfigError, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["load_preset", "preset_digest", "preset_names", "read_preset"]

LARGEST_FILE: Final = 2**16
"""Number of bytes of the largest file that is read."""

_SUFFIX: Final = ".toml"
_SHIPPED: Final = files("qr_entropy_http.presets")


def preset_names() -> tuple[str, ...]:
    """Returns the names of the presets that come with this package, sorted."""
    found = (entry.name for entry in _SHIPPED.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def load_preset(name: str) -> Preset:
    """Returns the preset of that name which comes with this package.

    Raises:
        ConfigError: When there is none; names those that there are.

    Examples:
        >>> load_preset("lfd").answer.form
        'hex'
    """
    if name not in preset_names():
        raise ConfigError(
            f"no preset is called {shown(name)}; choose one of {', '.join(preset_names())}, or "
            "describe a service of your own in a file and name it in QR_HTTP_PRESET_FILE"
        )
    return _preset(_SHIPPED.joinpath(name + _SUFFIX).read_bytes(), f"the preset {name}")


def read_preset(path: Path) -> Preset:
    """Returns the preset in a user's file.

    Raises:
        ConfigError: When it cannot be read, is malformed, or takes the name of one that comes with
            this package; names the file, the key and the rule.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"the preset {path} is no regular file; name a TOML file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the preset {path}: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{path} has more than {LARGEST_FILE} bytes; a preset is shorter")
    preset = _preset(data, str(path))
    if preset.name in preset_names():
        raise ConfigError(
            f"{path}: name = {preset.name!r} is that of a preset which comes with this package; "
            "choose another name, since records tell presets apart by it"
        )
    return preset


def preset_digest(preset: Preset) -> str:
    """Returns the hexadecimal SHA-256 of what *preset* says, for records."""
    return hashlib.sha256(preset.model_dump_json().encode()).hexdigest()


def _preset(data: bytes, where: str) -> Preset:
    try:
        table: dict[str, Any] = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8; save it as UTF-8") from error
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply; no preset is") from None
    # That of the parser, and that of a number with too many digits.
    except ValueError as error:
        raise ConfigError(f"{where} is no TOML: {error}") from error
    try:
        return Preset.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    sentences = []
    for problem in error.errors(include_url=False):
        key = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] in ("missing", "value_error") else f" = {_given(problem)}"
        sentences.append(f"{key}{given}: {message}" if key else message)
    return "; ".join(sentences)


def _given(problem: Any) -> str:
    return shown(problem["input"])
