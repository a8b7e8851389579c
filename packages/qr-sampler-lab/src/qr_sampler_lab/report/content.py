# SPDX-License-Identifier: Apache-2.0
"""What a report consists of, before it is text, HTML or CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qr_sampler_lab.analysis import TestResult, benjamini_hochberg, holm

__all__ = ["Figure", "Report", "Row", "Section", "Series", "with_discovery_rates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One test of one arm or of two."""

    who: str
    """The arm, or the arms."""
    result: TestResult
    """What it says."""
    adjusted: float = math.nan
    """Its p-value after Holm's rule over all tests of its section that can be said."""
    discovery_rate: float = math.nan
    """Its p-value after Benjamini and Hochberg's rule over all tests of the report that can be said
    and are not exploratory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Tests that answer one question."""

    title: str
    """The question."""
    about: str
    """What a reader has to know to read them."""
    rows: tuple[Row, ...]
    """The tests."""

    @staticmethod
    def of(title: str, about: str, told: Sequence[tuple[str, TestResult]]) -> Section:
        """Returns a section whose p-values are adjusted for their number."""
        p_values = np.array([result.p_value for _, result in told], dtype=np.float64)
        adjusted = np.full(len(told), math.nan)
        known = np.isfinite(p_values)
        if known.any():
            adjusted[known] = holm(p_values[known])
        rows = zip(told, adjusted.tolist(), strict=True)
        return Section(
            title=title,
            about=about,
            rows=tuple(Row(who=who, result=r, adjusted=p) for (who, r), p in rows),
        )


def with_discovery_rates(sections: Sequence[Section]) -> list[Section]:
    """Returns sections whose rows have the p-values that account for all of them together."""
    rows = [row for section in sections for row in section.rows]
    p_values = np.array([row.result.p_value for row in rows], dtype=np.float64)
    confirms = np.array([not row.result.exploratory for row in rows], dtype=np.bool_)
    counted = np.isfinite(p_values) & confirms
    rates = np.full(len(rows), math.nan)
    rates[counted] = benjamini_hochberg(p_values[counted])
    rated = iter(rates.tolist())
    return [
        replace(
            section, rows=tuple(replace(row, discovery_rate=next(rated)) for row in section.rows)
        )
        for section in sections
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line or a set of points of a figure."""

    name: str
    """What the legend says."""
    columns: dict[str, NDArray[Any]]
    """The numbers: ``x``, ``y``, and where they apply ``low`` and ``high``."""
    style: str = "line"
    """``line``, ``points``, ``bars`` (points with intervals), ``boundary`` or ``envelope``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture, which is a table too."""

    name: str
    """Of its file."""
    title: str
    """What it shows."""
    caption: str
    """How to read it."""
    x: str
    """What the horizontal axis is."""
    y: str
    """What the vertical one is."""
    series: tuple[Series, ...]
    """What is drawn."""
    labels: tuple[str, ...] = ()
    """Names of the positions 0, 1, … of the vertical axis, if they have names."""
    log_x: bool = False
    """Whether the horizontal axis is logarithmic."""


@dataclass(slots=True, kw_only=True)
class Report:
    """A report on tokens."""

    title: str
    """What it is about."""
    stamps: list[str]
    """What a reader has to know before anything else."""
    primary: Section
    """The primary comparison, or the primary test where there is one arm."""
    arms: list[dict[str, Any]]
    """Facts about every arm: ``name``, ``tokens``, ``fallback``, ``suspect`` …"""
    sections: list[Section] = field(default_factory=list)
    """Everything else."""
    figures: list[Figure] = field(default_factory=list)
    """Pictures."""
    ledgers: list[dict[str, Any]] = field(default_factory=list)
    """What the tokens are from."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was made."""
