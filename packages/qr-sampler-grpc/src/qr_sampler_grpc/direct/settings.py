# SPDX-License-Identifier: Apache-2.0
"""Settings of the ``direct`` source: ``QR_DIRECT_*`` variables and the ``.env`` file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field, field_validator

from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.option_models import Options, environment
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.protocol.attestation import VerificationKey

__all__ = ["DirectOptions", "DirectSettings"]

_MAX_TIMEOUT_MS: Final = 3_600_000.0


class DirectOptions(Options):
    """How to reach a server on this machine, checked; reads no environment."""

    server_address: str = Field(
        "unix:///run/qr-sampler/direct.sock",
        description="Socket at which the server listens: unix:///path.",
    )
    timeout_ms: float = Field(
        5000.0,
        gt=0.0,
        le=_MAX_TIMEOUT_MS,
        description="Longest time for one draw, in milliseconds.",
    )
    max_bytes_per_request: int = Field(
        16 * 2**20,
        ge=1,
        le=2**30,
        description=(
            "Largest single request in bytes; larger draws are split. The default is what the "
            "server kit answers unless it is told otherwise."
        ),
    )
    public_key: str = Field(
        "",
        description=(
            "File with the Ed25519 public key (PEM) that must have signed every answer; empty "
            "asks for no signature."
        ),
    )
    commitment: bool = Field(True, description="Send a digest of what the bytes will decide.")

    @field_validator("server_address")
    @classmethod
    def _address_is_a_socket(cls, value: str) -> str:
        address = Address.parse(value)
        if not address.path:
            raise ValueError("not the path of a Unix domain socket; use unix:///path")
        return str(address)

    @property
    def path(self) -> str:
        """The path of the socket."""
        return Address.parse(self.server_address).path

    def verification_key(self) -> VerificationKey | None:
        """Returns the key that answers are verified with, or ``None`` when there is none.

        Raises:
            ConfigError: When the file holds no such key, or the extra ``signing`` is missing.
        """
        return VerificationKey(Path(self.public_key)) if self.public_key else None


class DirectSettings(EnvironmentSettings, DirectOptions):
    """The options as the environment and the ``.env`` file of the working directory set them."""

    model_config = environment("QR_DIRECT_")
    location: ClassVar[str | None] = "server_address"
