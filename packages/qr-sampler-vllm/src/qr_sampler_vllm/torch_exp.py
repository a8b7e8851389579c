# SPDX-License-Identifier: Apache-2.0
"""Exponentials for the fast selector on the host: PyTorch's are faster than NumPy's."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray


__all__ = ["torch_exp"]

LOG2_E: Final = math.log2(math.e)

PIECE: Final = 32_000
"""Numbers at a time: few enough for PyTorch to stay on the calling thread instead of waking up
others, which may be busy."""


def torch_exp(distance: NDArray[Any], scale: float, out: NDArray[Any]) -> None:
    """Writes exp(scale * distance) into *out*.

    An :data:`qr_sampler.selection.passes.Exp`: 2**x is off by one unit in the last place at most,
    and the exponent by two roundings.
    """
    np.multiply(distance, out.dtype.type(scale * LOG2_E), out=out)
    values = torch.from_numpy(out)
    if torch.get_num_threads() == 1:
        torch.exp2(values, out=values)
        return
    for piece in values.split(PIECE):
        torch.exp2(piece, out=piece)
