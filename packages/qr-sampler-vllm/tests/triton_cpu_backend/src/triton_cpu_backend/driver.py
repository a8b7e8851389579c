# SPDX-License-Identifier: Apache-2.0
"""The driver half of the ``cpu`` backend: always active, never launching."""

from __future__ import annotations

from typing import NoReturn

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase


class InterpretedDriver(DriverBase):
    """A driver that reports the CPU as Triton's active device."""

    @classmethod
    def is_active(cls) -> bool:
        """Return true: the CPU is always there."""
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Return ``ty`` unchanged, since no launcher is generated."""
        return ty

    def get_current_target(self) -> GPUTarget:
        """Return the target ``cpu``, with the warp size of one that a scalar device has."""
        return GPUTarget("cpu", 0, 1)

    def get_active_torch_device(self) -> torch.device:
        """Return the CPU device."""
        return torch.device("cpu")

    def get_benchmarker(self) -> NoReturn:
        """Refuse: interpreted kernels are not worth timing.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("kernels interpreted on the CPU cannot be benchmarked")
