# SPDX-License-Identifier: Apache-2.0
"""Named sources, as ``QR_SOURCES`` and a TOML file declare them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_sampler.errors import ConfigError, shown
from qr_sampler.settings.active_instance import Declaration
from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.toml_file import read_tables

__all__ = ["MOST_SOURCES", "SourceDeclarations", "declarations", "declared_in"]

MOST_SOURCES: Final = 64
"""Number of sources that can be declared."""

_VARIABLE: Final = "QR_SOURCES"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KIND: Final = "kind"


class SourceDeclarations(EnvironmentSettings):
    """Which sources have a name of their own, and what kind each is of."""

    model_config = SettingsConfigDict(env_prefix="QR_")

    sources: str = Field(
        "",
        max_length=65_536,
        description=(
            "Sources with names of their own, separated by commas: 'left=serial' or, with the "
            "place of its device, 'left=serial:/dev/ttyUSB0'. Each can be named wherever a source "
            "is."
        ),
    )
    sources_file: Path | None = Field(
        None,
        description=(
            "TOML file with a table for each source that has a name of its own: 'kind', and those "
            "settings of that kind, in lower case and without their prefix, that differ from the "
            "environment's."
        ),
    )


def declarations() -> Mapping[str, Declaration]:
    """Returns the declared sources of this process by name; the file is read once.

    Raises:
        ConfigError: When a declaration is malformed or given twice, or the file cannot be read.
    """
    settings = SourceDeclarations.load()
    file = settings.sources_file
    return _declarations(settings.sources, None if file is None else file.absolute())


def declared_in(text: str, file: Path | None) -> Mapping[str, Declaration]:
    """Returns the sources that *text* and *file* declare, by name.

    Args:
        text: A value of ``QR_SOURCES``.
        file: What ``QR_SOURCES_FILE`` names; read now.

    Raises:
        ConfigError: When a declaration is malformed or given twice, or the file cannot be read.
    """
    declared: dict[str, Declaration] = {}
    for declaration in (*_of_variable(text), *_of_file(file)):
        name = declaration.name
        if name in declared:
            raise ConfigError(
                f"{declaration.title}: {declared[name].declared_in} declares it, too; give one of "
                "them another name"
            )
        declared[name] = declaration
        if len(declared) > MOST_SOURCES:
            raise ConfigError(
                f"{declaration.declared_in}: there are more than {MOST_SOURCES} sources; remove "
                "those that are not used"
            )
    return declared


_declarations: Final = lru_cache(maxsize=4)(declared_in)


def _of_variable(text: str) -> Iterator[Declaration]:
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, rest = (part.strip() for part in item.partition("="))
        kind, colon, location = (part.strip() for part in rest.partition(":"))
        if not (equals and kind) or (colon and not location):
            raise ConfigError(
                f"{_VARIABLE}: {shown(item)} is not 'name=kind' or 'name=kind:place'; a place with "
                "a comma belongs into QR_SOURCES_FILE"
            )
        yield _checked(name, kind, {}, location, declared_in=_VARIABLE)


def _of_file(file: Path | None) -> Iterator[Declaration]:
    if file is None:
        return
    title = f"QR_SOURCES_FILE={file}"
    for name, table in read_tables(file, title).items():
        kind = table.get(_KIND)
        if not isinstance(kind, str) or not kind:
            raise ConfigError(
                f"{title}: [{name}] does not say of which kind it is; add a line like kind = "
                '"device_file"'
            )
        values = {key: value for key, value in table.items() if key != _KIND}
        yield _checked(name, kind, values, "", declared_in=str(file))


def _checked(
    name: str, kind: str, values: Mapping[str, Any], location: str, *, declared_in: str
) -> Declaration:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{declared_in}: {shown(name)} cannot be the name of a source; use lower-case letters, "
            "digits and underscores, a letter first, at most 64 of them"
        )
    return Declaration(
        name=name, kind=kind, values=values, location=location, declared_in=declared_in
    )
