# SPDX-License-Identifier: Apache-2.0
"""Where the numbers are in an answer: names, and ``[]`` for each element of a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["AnswerShapeError", "value_at", "values_at"]

EACH: Final = "[]"
PATTERN: Final = r"(\[\])?([A-Za-z_][\w-]*(\[\])?(\.[A-Za-z_][\w-]*(\[\])?)*)?"
"""What a path looks like: empty for the whole answer, ``data[]``, ``jobs[].bytes``."""

_STEP: Final = re.compile(r"\[\]|[A-Za-z_][\w-]*")


class AnswerShapeError(ValueError):
    """An answer is not built as the preset says."""


def values_at(answer: object, path: str) -> list[object]:
    """Returns the values that *path* leads to in *answer*, in their order.

    Args:
        answer: What a JSON parser returned.
        path: As :data:`PATTERN` says.

    Raises:
        AnswerShapeError: When a name is missing, or something is no object or no list.

    Examples:
        >>> values_at({"jobs": [{"bytes": "AA=="}, {"bytes": "/w=="}]}, "jobs[].bytes")
        ['AA==', '/w==']
        >>> values_at("0aff", "")
        ['0aff']
    """
    values = [answer]
    for step in _STEP.findall(path):
        values = list(_elements(values) if step == EACH else _members(values, step))
    return values


def value_at(answer: object, path: str) -> object:
    """Returns the only value that *path* leads to.

    Raises:
        AnswerShapeError: As :func:`values_at`, and when there are several or none.
    """
    values = values_at(answer, path)
    if len(values) != 1:
        raise AnswerShapeError(f"{path!r} leads to {len(values)} values instead of one")
    return values[0]


def _members(values: list[object], name: str) -> Iterator[object]:
    for value in values:
        if not isinstance(value, dict):
            raise AnswerShapeError(f"{name!r} is looked for in what is no object")
        if name not in value:
            raise AnswerShapeError(f"{name!r} is missing")
        yield value[name]


def _elements(values: list[object]) -> Iterator[object]:
    for value in values:
        if not isinstance(value, list):
            raise AnswerShapeError("there is no list where the numbers should be")
        yield from value
