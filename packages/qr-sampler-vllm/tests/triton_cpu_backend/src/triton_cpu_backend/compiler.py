# SPDX-License-Identifier: Apache-2.0
"""The compiler half of the ``cpu`` backend, which refuses to compile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from triton.backends.compiler import BaseBackend, GPUTarget

if TYPE_CHECKING:
    from types import ModuleType

# vLLM treats a Triton that cannot be imported as absent and then runs Model Runner V1 on plain
# torch, just as in an environment without Triton: one environment serves both runners.
if os.environ.get("TRITON_INTERPRET") != "1":
    raise ImportError("the test-only Triton backend 'cpu' works only with TRITON_INTERPRET=1")


class InterpretedBackend(BaseBackend):
    """A backend for the target ``cpu`` whose kernels are interpreted, never compiled."""

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Return whether ``target`` is this backend's own."""
        return target.backend == "cpu"

    def hash(self) -> str:
        """Return the identifier that Triton's caches would use."""
        return "qr-triton-cpu-backend"

    def parse_options(self, options: dict[str, object]) -> NoReturn:
        """Refuse: reaching this means that a kernel is being compiled.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "a Triton kernel is being compiled for the CPU, which this backend cannot do: "
            "set TRITON_INTERPRET=1 before the first import of triton"
        )

    def add_stages(self, stages: dict[str, object], options: object) -> None:
        """Add no compilation stage."""

    def load_dialects(self, context: object) -> None:
        """Load no dialect."""

    def get_module_map(self) -> dict[str, ModuleType]:
        """Return no replacement of a device library."""
        return {}
