# SPDX-License-Identifier: Apache-2.0
"""Which engine suits a model and a machine best, where the user names none."""

from __future__ import annotations

import platform
import sys

__all__ = ["preferred_engines"]


def preferred_engines(
    model: str, *, system: str = sys.platform, machine: str | None = None
) -> tuple[str, ...]:
    """Returns the names of the engines that can read a model, the best one first.

    A ``.gguf`` file is read by llama.cpp, and anything else by MLX and by Transformers. MLX comes
    first on Apple's own processors, whose graphics unit it was written for. Elsewhere it computes
    on the processor, and Transformers comes first, because it runs more models.

    Args:
        model: Path or name of the model.
        system: The operating system, as :data:`sys.platform` has it.
        machine: The processor, as :func:`platform.machine` has it; this one if not given.
    """
    if model.lower().endswith(".gguf"):
        return ("llama-cpp",)
    if system == "darwin" and (machine or platform.machine()) == "arm64":
        return ("mlx", "transformers")
    return ("transformers", "mlx")
