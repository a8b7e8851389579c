# SPDX-License-Identifier: Apache-2.0
"""Settings of the ``quantum_grpc`` source: ``QR_GRPC_*`` variables and the ``.env`` file."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from qr_sampler.errors import ConfigError
from qr_sampler.settings import describe_validation_error
from qr_sampler_grpc.address import Address
from qr_sampler_grpc.credentials import ApiKey, check_header

__all__ = ["DEFAULT_METHOD_PATH", "GrpcOptions", "GrpcSettings"]

DEFAULT_METHOD_PATH: Final = "/qr_entropy.EntropyService/GetEntropy"
"""The unary method of the wire contract in ``proto/entropy_service.proto``."""

_PREFIX: Final = "QR_GRPC_"
_MODES: Final = ("unary", "server_streaming", "bidi_streaming")
_METHOD_PATH: Final = re.compile(r"/[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*", re.ASCII)
_MAX_TIMEOUT_MS: Final = 3_600_000.0

_Options = TypeVar("_Options", bound="GrpcOptions")


class GrpcOptions(BaseModel):
    """How to reach an entropy server, checked; reads no environment."""

    # Pydantic would otherwise quote the API key in its own messages.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    server_address: str = Field(
        "localhost:50051",
        description="Where the entropy server listens: host:port or unix:///path.",
    )
    mode: str = Field(
        "unary",
        description=(
            "How requests travel: unary, server_streaming or bidi_streaming; only unary so far."
        ),
    )
    timeout_ms: float = Field(
        5000.0,
        gt=0.0,
        le=_MAX_TIMEOUT_MS,
        description="Longest that one draw may take, in milliseconds.",
    )
    method_path: str = Field(
        DEFAULT_METHOD_PATH,
        description=(
            "Method to call, as /package.Service/Method. Any method whose request field 1 counts "
            "bytes and whose answer field 1 holds them will do."
        ),
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="Key that the server asks for; empty sends none."
    )
    api_key_header: str = Field(
        "api-key", description="Lower-case metadata key under which the API key is sent."
    )
    max_bytes_per_request: int = Field(
        13_312,
        ge=1,
        le=2**30,
        description=(
            "Largest single request in bytes; larger draws are split. The default is the smallest "
            "limit of the servers in use; raise it for a server of your own."
        ),
    )

    @field_validator("server_address")
    @classmethod
    def _address_is_understood(cls, value: str) -> str:
        return str(Address.parse(value))

    @field_validator("mode")
    @classmethod
    def _mode_is_implemented(cls, value: str) -> str:
        if value not in _MODES:
            raise ValueError(f"no such mode; choose one of {', '.join(_MODES)}")
        if value != "unary":
            raise ValueError("this release implements only 'unary'; set it to unary")
        return value

    @field_validator("method_path")
    @classmethod
    def _method_path_is_complete(cls, value: str) -> str:
        if not _METHOD_PATH.fullmatch(value):
            raise ValueError(f"not of the form /package.Service/Method, as {DEFAULT_METHOD_PATH}")
        return value

    @field_validator("api_key_header")
    @classmethod
    def _header_is_a_metadata_key(cls, value: str) -> str:
        return check_header(value)

    # On the model and not on the field: an error of a field carries the field's value.
    @model_validator(mode="after")
    def _api_key_can_travel(self) -> GrpcOptions:
        _ = self.credentials
        return self

    @property
    def address(self) -> Address:
        """The parsed server address."""
        return Address.parse(self.server_address)

    @property
    def credentials(self) -> ApiKey | None:
        """The API key with its header, or ``None`` when there is none to send."""
        secret = self.api_key.get_secret_value()
        return ApiKey(self.api_key_header, secret) if secret else None

    @classmethod
    def checked(cls, **values: Any) -> GrpcOptions:
        """Returns options made of *values*.

        Raises:
            ConfigError: When a value is malformed; names it, and never quotes the API key.
        """
        return _checked(cls, values, prefix="")


class GrpcSettings(BaseSettings, GrpcOptions):
    """The options as the environment and the ``.env`` file of the working directory set them."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @classmethod
    def load(cls, **overrides: Any) -> GrpcSettings:
        """Returns the settings of this process, with *overrides* taking precedence.

        Raises:
            ConfigError: When a variable is malformed; names it, and never quotes the API key.
        """
        return _checked(cls, overrides, prefix=_PREFIX)


def _checked(kind: type[_Options], values: dict[str, Any], *, prefix: str) -> _Options:
    try:
        return kind(**values)
    except ValidationError as error:
        if any(problem["loc"] == ("api_key",) for problem in error.errors()):
            message = f"{prefix}{'API_KEY' if prefix else 'api_key'} is not text; pass a string"
        else:
            message = describe_validation_error(error, kind, prefix=prefix)
    # Raised outside the handler: pydantic's error holds the API key and must not travel along.
    raise ConfigError(message)
