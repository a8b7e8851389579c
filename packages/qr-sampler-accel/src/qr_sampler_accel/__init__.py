# SPDX-License-Identifier: Apache-2.0
"""Fast token selection for qr-sampler: compiled loops on the host, torch and Triton on devices.

All of it selects the very tokens that :class:`~qr_sampler.ReferenceSelector` selects.

* :func:`host_selector` returns the fastest selector for logits in the memory of the host.
* :func:`device_selector` returns the selector for tensors on an accelerator.
* :class:`TensorLogits` lets a session of the core work on an engine's tensors, wherever they are.
* :func:`block_counts` returns what counts the bytes of blocks fastest.
* :func:`health_monitor` returns the health tests of a source.
* :func:`warm_up` compiles everything ahead of the first token.

The import needs neither Numba nor torch. What is missing costs time, never a token: without Numba
the host works in NumPy, without Triton an accelerator in torch operations.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from qr_sampler_accel.device.tensor_logits import TensorLogits
from qr_sampler_accel.factories import (
    block_counts,
    device_selector,
    has_compiler,
    health_monitor,
    host_selector,
    warm_up,
)

__all__ = [
    "TensorLogits",
    "block_counts",
    "device_selector",
    "has_compiler",
    "health_monitor",
    "host_selector",
    "warm_up",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        return _version("qr-sampler-accel")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
