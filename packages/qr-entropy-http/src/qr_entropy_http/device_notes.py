# SPDX-License-Identifier: Apache-2.0
"""The services in the table of devices, as their presets describe them."""

from __future__ import annotations

from typing import Final

from qr_entropy_http.presets import Preset, load_preset, preset_names
from qr_sampler.entropy import JitClass
from qr_sampler.entropy.device_notes import BLOCK_SIZES, DeviceNote

__all__ = ["DEVICE_NOTES"]

ON_LOOPBACK_MS: Final = {
    "anu": (1.5, 1.5, 1.5),
    "anu_legacy": (1.1, 1.1, 1.4),
    "lfd": (1.0, 1.0, 3.9),
    "openentropy": (1.0, 1.3, 3.4),
    "outshift": (1.1, 3.5, 42.0),
    "qrandom": (1.2, 5.6, 16.0),
    "quandela": (1.5, 1.5, 1.5),
    "quantis_appliance": (1.2, 1.2, 1.2),
    "quanttp": (1.6, 1.6, 1.6),
}
"""Milliseconds for a block of each size, asked of the simulator without encryption: medians of 25
on a busy x86 virtual machine with two cores. A real service is farther away."""


def _note(preset: Preset) -> DeviceNote:
    where = preset.url or "`QR_HTTP_URL`"
    pooled = ", pooled" if preset.pooled else ""
    return DeviceNote(
        device=preset.title,
        reached_by=(
            f"`QR_HTTP_PRESET={preset.name}`, {where}, {preset.bytes_per_request:,} bytes a request"
        ),
        rate_bytes_per_s=None,
        ms_per_token=dict(zip(BLOCK_SIZES, ON_LOOPBACK_MS[preset.name], strict=True)),
        jit_class=JitClass.REMOTE,
        conditioning=preset.conditioning + pooled,
        basis=(
            "measured with the simulator on loopback, without the way to the service; the rest is "
            "its documentation"
        ),
    )


DEVICE_NOTES: Final = tuple(_note(load_preset(name)) for name in preset_names())
"""One for each preset that comes with this package."""
