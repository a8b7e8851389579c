# SPDX-License-Identifier: Apache-2.0
"""Texts with places that a request fills: ``{numbers}``, ``{bytes}``, ``{bits}``, parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["AMOUNTS", "filled", "filled_value", "places_in"]

AMOUNTS: Final = ("numbers", "bytes", "bits")
"""How much a request asks for, in three units."""

_PLACE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def places_in(texts: Iterable[object]) -> set[str]:
    """Returns the names of the places in *texts*; what is no text has none.

    Raises:
        ValueError: When a brace belongs to no place.
    """
    found: set[str] = set()
    for text in texts:
        if not isinstance(text, str):
            continue
        if set("{}") & set(_PLACE.sub("", text)):
            raise ValueError(f"{text!r} has a brace outside of a place such as {{numbers}}")
        found.update(_PLACE.findall(text))
    return found


def filled(text: str, values: Mapping[str, object]) -> str:
    """Returns *text* with its places filled.

    Examples:
        >>> filled("/random/{bytes}", {"bytes": 32})
        '/random/32'
    """
    return _PLACE.sub(lambda place: str(values[place[1]]), text)


def filled_value(value: object, values: Mapping[str, object]) -> object:
    """Returns *value* for a JSON body: a text that is one place becomes what fills it.

    Examples:
        >>> filled_value("{numbers}", {"numbers": 3}), filled_value(8, {}), filled_value("raw", {})
        (3, 8, 'raw')
    """
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    return values[whole[1]] if whole else filled(value, values)
