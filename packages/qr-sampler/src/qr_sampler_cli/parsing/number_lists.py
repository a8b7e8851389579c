# SPDX-License-Identifier: Apache-2.0
"""Lists of numbers on the command line: separated by commas, in repeated options, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from qr_sampler.errors import ConfigError

__all__ = ["numbers", "whole_numbers"]

Number = TypeVar("Number", int, float)


def whole_numbers(texts: Iterable[str], option: str) -> tuple[int, ...]:
    """Returns the integers of *texts*, in order.

    Args:
        texts: What was given, for example ``["32,64", "128"]``.
        option: The option, for the error.

    Raises:
        ConfigError: When a part is no integer.
    """
    return _parsed(texts, option, int, "whole numbers")


def numbers(texts: Iterable[str], option: str) -> tuple[float, ...]:
    """Returns the numbers of *texts*, in order.

    Args:
        texts: What was given, for example ``["0.9,1", "1.1"]``.
        option: The option, for the error.

    Raises:
        ConfigError: When a part is no number.
    """
    return _parsed(texts, option, float, "numbers")


def _parsed(
    texts: Iterable[str], option: str, parse: Callable[[str], Number], what: str
) -> tuple[Number, ...]:
    parsed: list[Number] = []
    for text in texts:
        for part in text.split(","):
            try:
                parsed.append(parse(part))
            except ValueError as error:
                raise ConfigError(
                    f"{option} {text}: {part!r} is none of the {what}, separated by commas"
                ) from error
    return tuple(parsed)
