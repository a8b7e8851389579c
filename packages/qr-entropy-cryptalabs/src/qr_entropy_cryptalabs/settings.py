# SPDX-License-Identifier: Apache-2.0
"""Settings of the source ``cryptalabs``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_sampler.settings.environment import EnvironmentSettings

__all__ = ["CryptaLabsSettings", "ModeName"]

ModeName = Literal["sha256", "raw_noise", "raw_samples"]


class CryptaLabsSettings(EnvironmentSettings):
    """Settings of the source ``cryptalabs``."""

    model_config = SettingsConfigDict(env_prefix="QR_CRYPTALABS_")

    location: ClassVar[str | None] = "port"

    port: str = Field(
        "",
        max_length=4096,
        description=(
            "Path of the serial port, or USB identity as VENDOR:PRODUCT or VENDOR:PRODUCT:SERIAL "
            "in hexadecimal; empty for the only port of the kind that a QCicada has."
        ),
    )
    device: Literal["qcicada", "firefly"] = Field(
        "qcicada",
        description="Which device it is: a QCicada gives 13,440 bytes at once, a Firefly 35,200.",
    )
    serial_number: str = Field(
        "",
        max_length=24,
        description=(
            "Serial number that the device has to state, for example QC0000000217; empty for any."
        ),
    )
    mode: ModeName = Field(
        "sha256",
        description=(
            "What the device does to its raw bits: sha256 hashes them, raw_noise gives those that "
            "its health tests have passed, raw_samples the samples as they are."
        ),
    )
    signed: bool = Field(
        True,
        description=(
            "Whether the device signs what it sends, which takes firmware 5.13; the signatures are "
            "verified and kept in the records."
        ),
    )
    public_key: Path | None = Field(
        None,
        description=(
            "File with the device's public key (P-256; PEM or 128 hexadecimal digits), which must "
            "have signed every answer."
        ),
    )
    ca_public_key: Path | None = Field(
        None,
        description=(
            "File with the vendor's public key (as above), which must have certified that of the "
            "device."
        ),
    )
    flush: bool = Field(
        True,
        description=(
            "Whether to read and discard before each draw what the device has ready, since it was "
            "made before."
        ),
    )
    timeout_ms: int = Field(
        5_000,
        ge=1,
        le=600_000,
        description=(
            "Time that one draw may take, including opening, flushing and waiting for other draws."
        ),
    )
