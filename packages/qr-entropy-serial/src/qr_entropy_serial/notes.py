# SPDX-License-Identifier: Apache-2.0
"""What is known of the devices, for the table of devices. No figure was measured on hardware."""

from __future__ import annotations

from typing import Final

from qr_sampler.entropy import JitClass
from qr_sampler.entropy.device_notes import DeviceNote, transfer_ms

__all__ = ["NOTES"]

_BASIS: Final = "vendor (rate); protocol with the simulator"


def _note(
    device: str, identity: str, rate: float, conditioning: str, basis: str = _BASIS
) -> DeviceNote:
    return DeviceNote(
        device=device,
        reached_by=f"USB serial port; QR_SERIAL_PORT={identity}",
        rate_bytes_per_s=rate,
        ms_per_token=transfer_ms(rate),
        jit_class=JitClass.FLUSHED,
        conditioning=conditioning,
        basis=basis,
    )


NOTES: Final = (
    _note("TrueRNG v1 to v3 (ubld.it)", "04d8:f5fe", 50_000, "whitened"),
    _note("TrueRNGpro (ubld.it)", "16d0:0aa0", 400_000, "mersenne-twister; none in raw_binary"),
    _note(
        "TrueRNGproV2 (ubld.it)",
        "04d8:ebb5",
        400_000,
        "mersenne-twister; none in raw_binary, difference in unwhitened",
    ),
    _note("OneRNG (Moonbase Otago)", "1d50:6086", 43_750, "crc16; none in the raw modes"),
    DeviceNote(
        device="any generator that streams",
        reached_by="serial port; QR_SERIAL_PORT and QR_SERIAL_DEVICE=stream",
        rate_bytes_per_s=None,
        jit_class=JitClass.FLUSHED,
        conditioning="unknown",
        basis="measured with the simulator",
    ),
)
"""400 kbit/s for TrueRNG v3, 3.2 Mbit/s for the Pro models and 350 kbit/s for OneRNG."""
