# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML page that needs nothing else, for screens of any width and for paper."""

from __future__ import annotations

from html import escape
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from qr_sampler_lab.report.content import Figure, Report
from qr_sampler_lab.report.showing import words
from qr_sampler_lab.report.showing.drawing import drawn

__all__ = ["page"]

_FILTERS: Final = (
    words.figure,
    words.interval,
    words.milliseconds,
    words.p_value,
    words.setting,
    words.shown,
    words.test_name,
)


def page(report: Report) -> str:
    """Returns a report as HTML. Whatever comes from clients is escaped."""
    environment = Environment(
        loader=PackageLoader("qr_sampler_lab.report.showing"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters.update({each.__name__: each for each in _FILTERS})
    environment.globals["picture"] = _picture
    template = environment.get_template("report.html")
    return template.render(report=report, figures=report.figures)


def _picture(figure: Figure) -> str:
    """Returns a figure as an element; matplotlib escapes the texts in it."""
    return (
        f"<figure><h3>{escape(figure.title)}</h3>{drawn(figure)}"
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )
