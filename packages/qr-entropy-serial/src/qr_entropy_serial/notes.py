# SPDX-License-Identifier: Apache-2.0
"""What is known of the devices, for the table of devices. No figure was measured on hardware."""

from __future__ import annotations

from typing import Final

from qr_entropy_serial.devices.device import SerialDevice
from qr_entropy_serial.devices.onerng import GAP_S, OneRng
from qr_entropy_serial.devices.truerng import TrueRng, TrueRngPro, TrueRngProV2
from qr_sampler.entropy import JitClass
from qr_sampler.entropy.device_notes import BLOCK_SIZES, DeviceNote

__all__ = ["NOTES"]


def _note(
    device: str,
    identity: str,
    rate: float,
    conditioning: str,
    family: type[SerialDevice],
    pause_ms: float = 0.0,
) -> DeviceNote:
    """Returns the note on a device, whose times include all that comes before each block."""
    discarded = family.usual_flush_bytes
    return DeviceNote(
        device=device,
        reached_by=f"USB serial port, `QR_SERIAL_PORT={identity}`",
        rate_bytes_per_s=rate,
        ms_per_token={size: pause_ms + 1000 * (discarded + size) / rate for size in BLOCK_SIZES},
        jit_class=JitClass.FLUSHED,
        conditioning=conditioning,
        basis=(
            f"vendor (rate; times with the {discarded} bytes that are discarded first); protocol "
            "checked with the simulator"
        ),
    )


NOTES: Final = (
    _note("TrueRNG v1 to v3 (ubld.it)", "04d8:f5fe", 50_000, "whitened", TrueRng),
    _note(
        "TrueRNGpro (ubld.it)",
        "16d0:0aa0",
        400_000,
        "mersenne-twister; none in raw_binary",
        TrueRngPro,
    ),
    _note(
        "TrueRNGproV2 (ubld.it)",
        "04d8:ebb5",
        400_000,
        "mersenne-twister; none in raw_binary, difference in unwhitened",
        TrueRngProV2,
    ),
    _note(
        "OneRNG (Moonbase Otago)",
        "1d50:6086",
        43_750,
        "crc16; none in the raw modes",
        OneRng,
        1000 * GAP_S,
    ),
    DeviceNote(
        device="Any generator that streams",
        reached_by="serial port, `QR_SERIAL_PORT` and `QR_SERIAL_DEVICE=stream`",
        rate_bytes_per_s=None,
        jit_class=JitClass.FLUSHED,
        conditioning="unknown",
        basis="checked with the simulator; 4,096 bytes are discarded before each block",
    ),
)
"""400 kbit/s for TrueRNG v3, 3.2 Mbit/s for the Pro models and 350 kbit/s for OneRNG."""
