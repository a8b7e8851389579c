# SPDX-License-Identifier: Apache-2.0
"""TOML files whose every entry is a table, read within bounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_tables"]

_MOST_BYTES: Final = 2**18


def read_tables(path: Path, title: str) -> dict[str, dict[str, Any]]:
    """Returns the tables of a TOML file by name.

    No message repeats what the file holds, which may be a key.

    Args:
        path: The file, a regular one of at most 256 KiB.
        title: What an error message calls it.

    Raises:
        ConfigError: When it cannot be read, is no TOML, or has an entry that is no table.
    """
    tables, problem = _parsed(_text_of(path, title))
    # Raised outside the handler: the error of the parser may hold the whole file.
    if problem:
        raise ConfigError(f"{title} is not TOML: {problem}; correct it")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{title}: {shown(name)} stands outside of a table; put it below a line like [left]"
            )
    return tables


def _text_of(path: Path, title: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{title} is not a regular file; name a TOML file")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{title} cannot be read: {error.strerror}; name a TOML file that this user may read"
        ) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{title} is larger than {_MOST_BYTES} bytes; shorten it")
    text = _decoded(data)
    if text is None:
        raise ConfigError(f"{title} is not UTF-8; save it as UTF-8")
    return text


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None


def _parsed(text: str) -> tuple[dict[str, Any], str]:
    try:
        return tomllib.loads(text), ""
    except RecursionError:
        return {}, "its values are nested too deeply"
    # That of the parser, and that of a number with too many digits.
    except ValueError as error:
        return {}, str(error)
