# SPDX-License-Identifier: Apache-2.0
"""How numbers and tests are shown to people."""

from __future__ import annotations

import math
from typing import Any, Final

from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_lab.analysis import Interval, TestResult

__all__ = ["figure", "interval", "milliseconds", "p_value", "setting", "shown", "test_name"]

NOTHING: Final = "—"
"""Where there is no number."""

_LONGEST: Final = 400
_SMALLEST: Final = 1e-300


def shown(text: object) -> str:
    """Returns a text of others, without control characters and not without end."""
    told = printable(str(text))
    return told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"


def figure(value: float) -> str:
    """Returns a number with four digits."""
    return NOTHING if not math.isfinite(value) else f"{value:.4g}"


def interval(told: Interval | None) -> str:
    """Returns an interval."""
    return NOTHING if told is None else f"[{figure(told.low)}, {figure(told.high)}]"


def p_value(value: float) -> str:
    """Returns a probability; the smallest ones as powers of ten."""
    if not math.isfinite(value):
        return NOTHING
    if value < _SMALLEST:
        return f"< {_SMALLEST:.0e}"
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def milliseconds(value: float) -> str:
    """Returns a duration with its unit."""
    return NOTHING if not math.isfinite(value) else f"{value:.3g} ms"


def setting(value: Any) -> str:
    """Returns the value of a setting."""
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "nothing"
    return "none" if value is None else shown(value)


def test_name(result: TestResult) -> str:
    """Returns the name of a test, with what it is about."""
    name = result.name.replace("_", " ")
    return f"{name} of {result.about}" if result.about else name


# Keeps pytest from collecting the function where a test module imports it.
test_name.__test__ = False  # type: ignore[attr-defined]
