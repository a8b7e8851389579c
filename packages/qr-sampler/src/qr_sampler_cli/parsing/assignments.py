# SPDX-License-Identifier: Apache-2.0
"""Options of the command line that are given as ``KEY=VALUE``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from qr_sampler.errors import ConfigError

__all__ = ["engine_assignments", "pairs"]


def engine_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Returns what ``--engine-arg`` says, values as JSON where they are, else as text.

    Raises:
        ConfigError: When one is malformed, or names the model, which has an option of its own.
    """
    arguments: dict[str, Any] = {}
    for key, text in pairs(assignments, "--engine-arg"):
        if key == "model":
            raise ConfigError(f"--engine-arg {key}={text}: the model is named by --model")
        try:
            arguments[key] = json.loads(text)
        except (ValueError, RecursionError):
            arguments[key] = text
    return arguments


def pairs(assignments: Iterable[str], option: str) -> list[tuple[str, str]]:
    """Returns keys and values, as text.

    Args:
        assignments: What was given.
        option: The option, for the error.

    Raises:
        ConfigError: When one is not of the form ``KEY=VALUE``.
    """
    result = []
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not (key and separator):
            raise ConfigError(f"{option} {assignment}: expected KEY=VALUE")
        result.append((key, value))
    return result
