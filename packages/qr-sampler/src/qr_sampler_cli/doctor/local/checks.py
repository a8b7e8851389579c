# SPDX-License-Identifier: Apache-2.0
"""All checks of an engine in the user's own process, in the order of the report."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.doctor import installation, sources
from qr_sampler_cli.doctor.deployment import examined_settings
from qr_sampler_cli.doctor.examination_process import TIMEOUT_S, answer_of
from qr_sampler_cli.doctor.local import findings
from qr_sampler_cli.doctor.local.examination import LocalExamination
from qr_sampler_cli.doctor.local.request import LocalRequest
from qr_sampler_cli.findings.finding import Finding, examined

__all__ = ["examine_local"]

COMMAND: Final = (sys.executable, "-m", "qr_sampler_cli.doctor.local.examination")


def examine_local(request: LocalRequest, *, probe: bool) -> list[Finding]:
    """Returns all findings about an engine; a check that itself fails is a finding, too.

    Args:
        request: What to examine.
        probe: Draw one byte from the configured source.

    Raises:
        ConfigError: When a token is asked for, but no model is named.
    """
    if request.token and request.model is None:
        raise ConfigError("--token needs a model: name it with --model")
    title = request.known.title
    seen = LocalExamination()
    if not request.known.missing:
        typer.echo(f"examining {title} in a separate process ...", err=True)
        seen = _seen(request)
    settings, of_settings = examined_settings()
    return [
        *examined(findings.ENGINE, "installed", lambda: findings.installed_findings(request)),
        *examined(findings.ENGINE, "import", lambda: findings.import_findings(request, seen)),
        *examined(
            findings.ENGINE,
            "our packages",
            lambda: installation.package_findings(findings.ENGINE, needed=findings.LOCAL),
        ),
        *examined(
            findings.ACCELERATORS,
            "device",
            lambda: findings.accelerator_findings(request, seen),
        ),
        *examined(findings.MODEL, "files", lambda: findings.model_findings(request, settings)),
        *of_settings,
        *sources.findings_of_all(settings, sequences=1, drafts=0, probe=probe),
        *examined(findings.TOKEN, "generated", lambda: findings.token_findings(request, seen)),
    ]


def _seen(request: LocalRequest) -> LocalExamination:
    question = json.dumps(dataclasses.asdict(request))
    answer, failure = answer_of(COMMAND, question, timeout_s=TIMEOUT_S)
    return LocalExamination(failure=failure) if answer is None else LocalExamination(**answer)
