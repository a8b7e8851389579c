# SPDX-License-Identifier: Apache-2.0
"""All checks of an environment for vLLM, in the order of the report."""

from __future__ import annotations

import typer

from qr_sampler.settings import Settings
from qr_sampler_cli.doctor import (
    accelerators,
    deployment,
    installation,
    model,
    plugin,
    runner,
    sources,
)
from qr_sampler_cli.doctor.examination import Examination
from qr_sampler_cli.doctor.examination_process import examine
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.findings.finding import Finding, examined

__all__ = ["examine_environment"]


def examine_environment(request: EngineRequest, *, probe: bool) -> list[Finding]:
    """Returns all findings; a check that itself fails is a finding, too.

    Args:
        request: How vLLM will be started.
        probe: Draw one byte from the configured source.
    """
    typer.echo("examining vLLM in a separate process, which takes a while ...", err=True)
    seen = examine(request)
    settings, of_settings = deployment.examined_settings()
    return [
        *examined(installation.SECTION, "installed", installation.vllm_findings),
        *examined(installation.SECTION, "import", lambda: installation.import_findings(seen)),
        *examined(installation.SECTION, "our packages", installation.package_findings),
        *examined(plugin.SECTION, "entry point", plugin.plugin_findings),
        *examined(plugin.SECTION, "front end", plugin.front_end_findings),
        *examined(plugin.SECTION, "loads", lambda: plugin.load_findings(seen)),
        *examined(plugin.SECTION, "--logits-processors", lambda: plugin.flag_findings(request)),
        *examined(runner.SECTION, "model runner", lambda: _engine(request, seen)),
        *examined(model.SECTION, "files", lambda: model.model_findings(request, seen, settings)),
        *of_settings,
        *_sources(request, seen, settings, probe=probe),
        *examined(
            accelerators.SECTION, "accelerators", lambda: accelerators.accelerator_findings(seen)
        ),
    ]


def _engine(request: EngineRequest, seen: Examination) -> list[Finding]:
    has_v2 = installation.has_v2_interface()
    has_vllm = installation.vllm_location() is not None
    return list(runner.runner_findings(request, seen, has_vllm=has_vllm, has_v2_interface=has_v2))


def _sources(
    request: EngineRequest, seen: Examination, settings: Settings | None, *, probe: bool
) -> list[Finding]:
    known = None if seen.configuration is None else seen.configuration.max_num_seqs
    return sources.findings_of_all(
        settings, sequences=known or request.max_num_seqs, drafts=request.drafts, probe=probe
    )
