# SPDX-License-Identifier: Apache-2.0
"""Settings of the source ``serial``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_sampler.settings.environment import EnvironmentSettings

__all__ = ["DEFAULT_TIMEOUT_MS", "DeviceName", "SerialSettings"]

DEFAULT_TIMEOUT_MS = 5_000

DeviceName = Literal["auto", "truerng", "truerng_pro", "truerng_pro_v2", "onerng", "stream"]


class SerialSettings(EnvironmentSettings):
    """Settings of the source ``serial``."""

    model_config = SettingsConfigDict(env_prefix="QR_SERIAL_")

    location: ClassVar[str | None] = "port"

    port: str = Field(
        "",
        max_length=4096,
        description=(
            "Path of the serial port, or USB identity of the device as VENDOR:PRODUCT or "
            "VENDOR:PRODUCT:SERIAL in hexadecimal; empty for the one known device that is plugged "
            "in."
        ),
    )
    device: DeviceName = Field(
        "auto",
        description=(
            "What is behind the port: truerng, truerng_pro, truerng_pro_v2, onerng, or stream for "
            "any other generator that sends without being asked; auto goes by the USB identity."
        ),
    )
    mode: str = Field(
        "",
        max_length=40,
        description=(
            "What the device does to its raw bits. TrueRNGpro: normal, rng1_white, rng2_white (all "
            "with a pseudo-random generator mixed in), raw_binary; TrueRNGproV2 also unwhitened. "
            "OneRNG: avalanche, avalanche_raw, avalanche_rf, avalanche_rf_raw, rf, rf_raw. Empty "
            "for the first of its modes."
        ),
    )
    baud: int | None = Field(
        None,
        ge=50,
        le=4_000_000,
        description="Speed of the port, for real serial lines; USB CDC devices ignore it.",
    )
    flush_bytes: int | None = Field(
        None,
        ge=0,
        le=1 << 20,
        description=(
            "Bytes to read and discard before each draw, after what waited in the port is dropped: "
            "at least as many as device and converter may hold. Unset: 128 for OneRNG, 512 for "
            "TrueRNG, 4,096 for stream."
        ),
    )
    timeout_ms: int = Field(
        DEFAULT_TIMEOUT_MS,
        ge=1,
        le=600_000,
        description=(
            "Time that one draw may take, including opening, flushing and waiting for other draws."
        ),
    )
