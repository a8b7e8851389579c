# SPDX-License-Identifier: Apache-2.0
"""Deprecated: :mod:`qr_sampler_grpc.protocol.attestation` has what was here."""

from __future__ import annotations

import warnings
from typing import Any

from qr_sampler_grpc.protocol import attestation as _moved

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    value = getattr(_moved, name)
    warnings.warn(
        f"import {name} from {_moved.__name__} instead of {__name__}",
        DeprecationWarning,
        stacklevel=2,
    )
    return value
