# SPDX-License-Identifier: Apache-2.0
"""Which engines are installed, and which of them a command would take by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qr_sampler_cli.engines import plugin
from qr_sampler_cli.engines.choice import EngineName, choose_engine
from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.findings.finding import Finding, ReportSection
from qr_sampler_local.engines import installed_engines

__all__ = ["SECTION", "choice_findings"]

SECTION: Final = ReportSection("engines")


def choice_findings(model: str) -> Iterator[Finding]:
    """Yields which engines are installed, and which one ``--engine auto`` is.

    Args:
        model: Path or name of the model, empty if it is not known.
    """
    absence = plugin.absence()
    names = [f"{engine.title} {engine.version}".strip() for engine in installed_engines()]
    there = ["vLLM", *names] if not absence else names
    text = ", ".join(there) or "none"
    yield SECTION.ok("installed", f"{text}; {absence}" if absence else text)
    try:
        choice = choose_engine(EngineName.AUTO, model)
    except MissingPackageError as error:
        yield SECTION.problem("auto", str(error), "install one of them")
        return
    yield SECTION.ok("auto", f"{choice.title}, {choice.reason}")
