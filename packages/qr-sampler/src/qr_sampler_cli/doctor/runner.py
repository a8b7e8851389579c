# SPDX-License-Identifier: Apache-2.0
"""Which model runner vLLM will use, and whether qr-sampler serves such an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from qr_sampler_cli.doctor.examination import Examination
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.findings.finding import Finding, ReportSection

__all__ = ["SECTION", "VARIABLE", "Outlook", "outlook", "runner_findings"]

SECTION: Final = ReportSection("engine")

VARIABLE: Final = "VLLM_USE_V2_MODEL_RUNNER"
"""How an operator chooses the model runner; unset leaves it to vLLM."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The model runner to expect."""

    uses_v2: bool | None
    """Whether it is V2; ``None`` if that cannot be known before start."""
    reason: str
    """How it is known, or why it is not."""


def runner_findings(
    request: EngineRequest,
    examined: Examination,
    *,
    has_vllm: bool = True,
    has_v2_interface: bool,
) -> Iterator[Finding]:
    """Yields what to expect of the engine.

    Args:
        request: How vLLM will be started.
        examined: The result of importing vLLM.
        has_vllm: Whether vLLM is installed.
        has_v2_interface: Whether it has logits processors for Model Runner V2.
    """
    if not has_vllm:
        yield SECTION.skipped("model runner", "vLLM chooses it, and is not installed")
        yield from _layout_findings(examined)
        return
    expected = outlook(request, examined)
    if examined.configuration_error:
        yield SECTION.problem(
            "configuration",
            f"vLLM refuses the model or its arguments: {examined.configuration_error}",
            "change what the message names",
        )
    yield _runner_finding(expected, has_v2_interface=has_v2_interface)
    yield from _interface_findings(expected, examined)
    yield from _tsd_findings(request, expected, examined)
    yield from _speculation_findings(request, expected, examined)
    yield from _layout_findings(examined)
    yield from _rank_findings(request, examined)


def outlook(request: EngineRequest, examined: Examination) -> Outlook:
    """Returns the model runner to expect.

    Args:
        request: How vLLM will be started.
        examined: The result of importing vLLM.
    """
    if examined.configuration is not None:
        return Outlook(examined.configuration.uses_v2, "according to vLLM for this model")
    chosen = os.environ.get(VARIABLE)
    if chosen is not None and _is_number(chosen):
        return Outlook(bool(int(chosen)), f"because {VARIABLE}={chosen}")
    if examined.has_triton is False:
        return Outlook(False, "because V2 needs Triton, which vLLM cannot use here")
    needed = "a model that can be configured" if request.model_directory else "a model directory"
    return Outlook(None, f"vLLM decides when it knows model and arguments; it takes {needed} here")


def _runner_finding(expected: Outlook, *, has_v2_interface: bool) -> Finding:
    variable = os.environ.get(VARIABLE)
    if variable is not None and not _is_number(variable):
        return SECTION.problem(
            "model runner", f"{VARIABLE}={variable!r} is not a number", f"set {VARIABLE} to 0 or 1"
        )
    if expected.uses_v2 is None:
        if has_v2_interface:
            both = "cannot be told before start, both are served"
            return SECTION.ok("model runner", f"{both}: {expected.reason}")
        return SECTION.warning(
            "model runner",
            f"cannot be told before start, and this vLLM has no processors for V2: "
            f"{expected.reason}",
            f"set {VARIABLE}=0, or install a newer vLLM",
        )
    if expected.uses_v2 and not has_v2_interface:
        return SECTION.problem(
            "model runner",
            f"V2, {expected.reason}; this vLLM has no logits processors for it",
            f"set {VARIABLE}=0, or install a newer vLLM",
        )
    return SECTION.ok("model runner", f"{'V2' if expected.uses_v2 else 'V1'}, {expected.reason}")


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _interface_findings(expected: Outlook, examined: Examination) -> Iterator[Finding]:
    """Yields the processors that Model Runner V2 refuses to load."""
    if not expected.uses_v2 or examined.vllm_error:
        return
    for processor in examined.processors:
        if not processor.error and not processor.serves_v2:
            yield SECTION.problem(
                "model runner",
                f"{processor.target} has no interface for V2, which keeps vLLM from starting",
                f"uninstall its package, or set {VARIABLE}=0",
            )


def _tsd_findings(
    request: EngineRequest, expected: Outlook, examined: Examination
) -> Iterator[Finding]:
    if not examined.uses_tsd:
        return
    if examined.tsd_refusal:
        yield SECTION.problem(
            "speculation",
            f"TSD, refused at start: {examined.tsd_refusal}",
            "change what the message names; see docs/tsd/vllm.md",
        )
    elif expected.uses_v2 is not False:
        yield SECTION.problem(
            "speculation",
            "TSD works with Model Runner V1 only, which vLLM need not choose by itself",
            f"set {VARIABLE}=0",
        )
    else:
        yield SECTION.ok(
            "speculation",
            f"TSD: {request.drafts} drafts per sequence and step, verified with the entropy source",
        )


def _speculation_findings(
    request: EngineRequest, expected: Outlook, examined: Examination
) -> Iterator[Finding]:
    if examined.uses_tsd:
        return
    if request.speculative_config is None:
        yield SECTION.ok("speculation", "off")
        return
    method = request.speculative_config.get("method", "a method that vLLM chooses")
    without = "start without speculative decoding"
    dropped = (
        "vLLM silently drops every installed logits processor, so qr-sampler refuses such engines "
        "as far as it can"
    )
    if expected.uses_v2:
        yield SECTION.ok(
            "speculation",
            f"{method}: a draft is accepted exactly where it is the token that was chosen; each "
            f"draft draws a block, {1 + request.drafts} per sequence and step, and blocks of "
            "rejected drafts are recorded as discards",
        )
    elif expected.uses_v2 is None:
        yield SECTION.warning(
            "speculation",
            f"{method}: served under Model Runner V2; under V1 {dropped}",
            f"name a model directory to be told which it is, set {VARIABLE}=1, or {without}",
        )
    else:
        yield SECTION.problem(
            "speculation",
            f"{method}: under Model Runner V1 {dropped}",
            f"{without}, or use Model Runner V2 ({VARIABLE}=1; needs Triton)",
        )


def _layout_findings(examined: Examination) -> Iterator[Finding]:
    if examined.failure or examined.layout_error:
        reason = examined.layout_error or "the process that asked ended early"
        yield SECTION.skipped("layout", f"the plugin could not be asked: {reason}")
    elif examined.layout_refusal:
        yield SECTION.problem(
            "layout",
            f"qr-sampler refuses it at start: {examined.layout_refusal}",
            "change what the message names",
        )
    else:
        yield SECTION.ok("layout", "nothing in it that qr-sampler refuses")


def _rank_findings(request: EngineRequest, examined: Examination) -> Iterator[Finding]:
    size = request.tensor_parallel_size
    if size == 1:
        return
    devices = examined.cuda_devices
    if examined.device_type == "cuda" and devices is not None and devices < size:
        yield SECTION.warning(
            "tensor parallel",
            f"{size} ranks, but {devices} CUDA devices on this machine",
            "lower --tensor-parallel-size, unless other machines join in",
        )
    yield SECTION.ok(
        "tensor parallel",
        f"the first of {size} ranks draws and records; the others force what it has chosen",
    )
