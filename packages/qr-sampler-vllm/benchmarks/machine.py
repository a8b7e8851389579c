# SPDX-License-Identifier: Apache-2.0
"""What the numbers depend on, without anything that identifies the machine."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Final

__all__ = ["describe_machine"]

CPUINFO: Final = Path("/proc/cpuinfo")
INSTRUCTION_SETS: Final = ("avx512f", "avx2", "avx", "sve", "asimd", "sse4_2")
"""Largest first."""
LIBRARIES: Final = ("numpy", "torch", "vllm", "grpc")
"""Import names; the distributions of some are called differently for each device."""


def describe_machine() -> list[str]:
    """Returns processor, its instruction set and the versions of what takes part."""
    facts = _cpuinfo()
    model = facts.get("model name") or platform.processor() or platform.machine()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    simd = next((name for name in INSTRUCTION_SETS if name in flags), "unknown")
    versions = ", ".join(f"{name} {import_module(name).__version__}" for name in LIBRARIES)
    return [
        f"{model}, {os.cpu_count()} logical processors, widest SIMD {simd}",
        f"{platform.system()} on {platform.machine()}",
        f"{platform.python_implementation()} {platform.python_version()}, {versions}",
    ]


def _cpuinfo() -> dict[str, str]:
    """Returns what Linux says of the first processor; nothing elsewhere."""
    if not CPUINFO.exists():
        return {}
    first = CPUINFO.read_text("utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
