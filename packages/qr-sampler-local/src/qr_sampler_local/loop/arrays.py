# SPDX-License-Identifier: Apache-2.0
"""Logits of any library as what selectors take, without a copy where they are on the host."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from qr_sampler_local.loop.access import has_accel

__all__ = ["is_mlx", "is_torch", "readable"]

logger = logging.getLogger("qr_sampler.local")


def is_torch(logits: object) -> bool:
    """Whether *logits* are a tensor of torch, which is not imported for the answer."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(logits, torch.Tensor)


def is_mlx(logits: object) -> bool:
    """Whether *logits* are an array of MLX, which is not imported for the answer."""
    mlx: Any = sys.modules.get("mlx.core")
    return mlx is not None and isinstance(logits, mlx.array)


def readable(logits: Any, *, to_host: bool = False) -> Any:
    """Returns *logits* as a float32 array of the host, complete, or as a tensor on CUDA.

    Float32 of NumPy, of torch in the memory of the host and of MLX is read where it lies; float16,
    bfloat16 and float64 are converted. MLX computes only now what it has put off. A tensor on CUDA
    stays there where qr-sampler-accel is installed; on other accelerators it is copied.

    Args:
        logits: Shape ``(B, V)``.
        to_host: Whether a tensor on CUDA is copied, too.

    Raises:
        TypeError: When they are no floating-point numbers, or in a masked array.
        ValueError: When they have another number of dimensions.
    """
    if is_torch(logits):
        logits = _of_torch(logits, to_host)
        if not isinstance(logits, np.ndarray):
            return _two_dimensional(logits)
    elif is_mlx(logits):
        logits = _of_mlx(logits)
    array = np.asarray(logits)
    if array is not logits and isinstance(logits, np.ma.MaskedArray):
        raise TypeError("logits in a masked array: pass logits.filled(-numpy.inf)")
    if array.dtype != np.float32:
        array = _as_float32(array)
    return _two_dimensional(array)


def _of_torch(logits: Any, to_host: bool) -> Any:
    import torch

    if not logits.dtype.is_floating_point:
        raise TypeError(_no_floats(logits.dtype))
    logits = logits.detach()
    if logits.device.type == "cpu":
        return logits.to(torch.float32).numpy()
    if logits.device.type == "cuda" and has_accel() and not to_host:
        return logits
    _tell_of_copies(logits.device.type)
    return logits.to("cpu", torch.float32).numpy()


def _of_mlx(logits: Any) -> Any:
    import mlx.core as mx

    if not mx.issubdtype(logits.dtype, mx.floating):
        raise TypeError(_no_floats(logits.dtype))
    # NumPy knows no bfloat16.
    logits = logits.astype(mx.float32)
    mx.eval(logits)
    return logits


def _as_float32(array: Any) -> Any:
    if array.dtype.kind != "f":
        raise TypeError(_no_floats(array.dtype))
    # What is beyond float32 is infinite there: a mask below, a defect of the row above.
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _two_dimensional(logits: Any) -> Any:
    if len(logits.shape) == 2:
        return logits
    raise ValueError(
        f"logits of shape {tuple(logits.shape)}: expected one row for each sequence and one column "
        "for each token; pass logits[None] for a single row, logits[:, -1] for those of a model "
        "that returns all positions"
    )


def _no_floats(dtype: object) -> str:
    return f"logits of type {dtype}: expected floating-point numbers; pass what the model returns"


@lru_cache(maxsize=8)
def _tell_of_copies(device: str) -> None:
    """Says once for every kind of device that its logits are copied."""
    advice = "" if device != "cuda" else "; install qr-sampler-local[fast] to select on the device"
    logger.info("logits on %s are copied to the host to select tokens%s", device, advice)
