# SPDX-License-Identifier: Apache-2.0
"""The services in the table of devices, as their presets describe them."""

from __future__ import annotations

from typing import Final

from qr_entropy_http.presets import Preset, load_preset, preset_names
from qr_sampler.entropy import JitClass
from qr_sampler.entropy.device_notes import DeviceNote

__all__ = ["DEVICE_NOTES"]


def _note(preset: Preset) -> DeviceNote:
    where = preset.url or "QR_HTTP_URL"
    pooled = ", pooled" if preset.pooled else ""
    return DeviceNote(
        device=preset.title,
        reached_by=f"HTTP, {where}; QR_HTTP_PRESET={preset.name}",
        # What a token takes is the way to the service and back, which nobody can say beforehand.
        rate_bytes_per_s=None,
        jit_class=JitClass.REMOTE,
        conditioning=preset.conditioning + pooled,
        basis="protocol checked with the simulator; the rest is the operator's word",
    )


DEVICE_NOTES: Final = tuple(_note(load_preset(name)) for name in preset_names())
"""One for each preset that comes with this package."""
