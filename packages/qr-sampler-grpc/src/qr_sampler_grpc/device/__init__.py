# SPDX-License-Identifier: Apache-2.0
"""The one device behind every listener of a server: its turn, its quotas and its answers.

Nothing here knows of gRPC; the listeners of :mod:`qr_sampler_grpc.server` and
:mod:`qr_sampler_grpc.direct` share it.
"""

from __future__ import annotations

from qr_sampler_grpc.device.device import (
    MAX_COMMITMENT_BYTES,
    MAX_DEVICE_ID_BYTES,
    Device,
    Measured,
    MeasurementRefusedError,
    Refusal,
)

__all__ = [
    "MAX_COMMITMENT_BYTES",
    "MAX_DEVICE_ID_BYTES",
    "Device",
    "Measured",
    "MeasurementRefusedError",
    "Refusal",
]
