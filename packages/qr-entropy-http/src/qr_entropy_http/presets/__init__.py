# SPDX-License-Identifier: Apache-2.0
"""What is known of each service, as data."""

from __future__ import annotations

from qr_entropy_http.presets.loading import (
    load_preset,
    preset_digest,
    preset_names,
    read_preset,
)
from qr_entropy_http.presets.model import Preset

__all__ = ["Preset", "load_preset", "preset_digest", "preset_names", "read_preset"]
