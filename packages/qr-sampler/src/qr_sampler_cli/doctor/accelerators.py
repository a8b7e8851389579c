# SPDX-License-Identifier: Apache-2.0
"""Optional packages and devices that make sampling faster."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from qr_sampler_cli.doctor.examination import Examination
from qr_sampler_cli.findings.finding import Finding, ReportSection

__all__ = ["SECTION", "accelerator_findings"]

SECTION: Final = ReportSection("accelerators")


def accelerator_findings(examined: Examination) -> Iterator[Finding]:
    """Yields which accelerators can be used.

    Args:
        examined: The result of importing vLLM.
    """
    if find_spec("numba") is not None:
        yield SECTION.ok("numba", "installed; loops on the processor are compiled at start")
    else:
        yield SECTION.warning(
            "numba",
            "not installed; NumPy chooses the same tokens, more slowly",
            "install it with: pip install numba",
        )
    yield _cuda(examined)
    yield _triton(examined)


def _cuda(examined: Examination) -> Finding:
    if examined.cuda_devices is None and find_spec("torch") is None:
        return SECTION.skipped("CUDA", "torch is not installed; it comes with vLLM")
    if examined.cuda_devices is None:
        reason = examined.torch_error or examined.failure
        return SECTION.skipped("CUDA", f"torch could not be queried: {reason}")
    if examined.cuda_devices:
        return SECTION.ok("CUDA", f"{examined.cuda_devices} devices")
    if examined.device_type == "cuda":
        return SECTION.problem(
            "CUDA",
            "this vLLM is built for CUDA, but torch sees no device",
            "check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES",
        )
    return SECTION.ok("CUDA", "no device")


def _triton(examined: Examination) -> Finding:
    installed = find_spec("triton") is not None
    if installed and examined.has_triton is not False:
        return SECTION.ok("Triton", "installed; on CUDA the passes over the logits run in kernels")
    state = "installed, but vLLM cannot use it here" if installed else "not installed"
    if examined.cuda_devices:
        return SECTION.warning(
            "Triton",
            f"{state}; torch operations choose the same tokens, more slowly",
            "install it with: pip install triton",
        )
    return SECTION.ok("Triton", f"{state}; without CUDA only Model Runner V2 needs it")
