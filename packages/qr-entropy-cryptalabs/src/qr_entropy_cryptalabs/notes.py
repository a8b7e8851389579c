# SPDX-License-Identifier: Apache-2.0
"""What is known of the devices, for the table of devices. No figure was measured on hardware."""

from __future__ import annotations

from typing import Final

from qr_sampler.entropy import JitClass
from qr_sampler.entropy.device_notes import DeviceNote, transfer_ms

__all__ = ["LARGEST_REQUEST", "NOTES"]

LARGEST_REQUEST: Final = {"qcicada": 13_440, "firefly": 35_200}
"""Largest number of bytes of one request, by device."""

_RATE: Final = 100_000
"""Bytes in a second of a serial line of 1,000,000 baud: ten bits to the byte."""

NOTES: Final = tuple(
    DeviceNote(
        device=device,
        reached_by=f"{port}, `QR_CRYPTALABS_PORT`",
        rate_bytes_per_s=_RATE,
        ms_per_token=transfer_ms(_RATE),
        jit_class=JitClass.ATTESTED,
        conditioning="sha256; raw-noise; none in raw_samples",
        basis=(
            "vendor (the speed of the serial line, the most that it can do; what it has ready is "
            "discarded first); protocol checked with the simulator"
        ),
    )
    for device, port in (
        ("QCicada (Crypta Labs)", "USB serial port, FTDI"),
        ("Firefly (Crypta Labs)", "USB serial port, CDC"),
    )
)
