# SPDX-License-Identifier: Apache-2.0
"""Settings of the ``quantum_grpc`` source: ``QR_GRPC_*`` variables and the ``.env`` file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from qr_sampler.errors import ConfigError
from qr_sampler.settings import describe_validation_error
from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.option_models import environment
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.connection.credentials import ApiKey, check_header, secret_in
from qr_sampler_grpc.connection.tls import ClientTls
from qr_sampler_grpc.protocol.contract import Contract, field_numbers
from qr_sampler_grpc.protocol.profiles import CUSTOM, DEFAULT_METHOD_PATH, PROFILES
from qr_sampler_grpc.protocol.wire import ANSWER_FIELDS, REQUEST_FIELDS

__all__ = ["GrpcOptions", "GrpcSettings"]

_PREFIX: Final = "QR_GRPC_"
_METHOD_PATH: Final = re.compile(r"(/[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*)?", re.ASCII)
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
    mode: Literal["unary", "server_streaming", "bidi_streaming"] = Field(
        "unary",
        description=(
            "How requests travel: unary (a call each), server_streaming (a call each, answered in "
            "chunks) or bidi_streaming (one stream that stays open; the fastest)."
        ),
    )
    stubs: Literal["sync", "aio"] = Field(
        "sync",
        description="Which of gRPC's Python interfaces to use; sync is faster in every mode.",
    )
    timeout_ms: float = Field(
        5000.0,
        gt=0.0,
        le=_MAX_TIMEOUT_MS,
        description=(
            "Longest time for one draw, in milliseconds; the circuit breaker usually allows less."
        ),
    )
    profile: str = Field(
        "",
        description=(
            "The contract that the server speaks: qr_entropy, qrng, qr_purity or custom. Empty "
            "means custom for a method path of another service, else qr_entropy."
        ),
    )
    method_path: str = Field(
        "",
        description="Unary method, as /package.Service/Method; empty for the profile's.",
    )
    stream_method_path: str = Field(
        "",
        description="Streaming method; empty for the profile's, if it has one.",
    )
    request_fields: str = Field(
        "",
        description=(
            "Only for custom: field numbers of the request, for example "
            f"bytes_needed=1,sequence_id=2. Names: {', '.join(REQUEST_FIELDS)}."
        ),
    )
    answer_fields: str = Field(
        "",
        description=(
            "Only for custom: field numbers of the answer, for example data=1,device_id=3. Names: "
            f"{', '.join(ANSWER_FIELDS)}."
        ),
    )
    source_id: str = Field(
        "", description="Only for qr_purity: which source of the server; empty for its default."
    )
    integrated_bytes: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description=(
            "Only for qr_purity: how many raw bytes the server integrates into one number; 0 "
            "leaves it to the server."
        ),
    )
    max_bytes_per_request: int | None = Field(
        None,
        ge=1,
        le=2**30,
        description=(
            "Largest single request in bytes; larger draws are split. The profile's by default, "
            "13312 for qr_entropy: the smallest limit of the servers in use. Raise it for a server "
            "of your own."
        ),
    )
    max_requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Limit of requests per minute; the profile's by default.",
    )
    max_bytes_per_day: int | None = Field(
        None,
        ge=1,
        description="Daily byte limit; the profile's by default.",
    )
    retry_count: int = Field(
        0,
        ge=0,
        le=10,
        description=(
            "How often a failed draw is retried within its time limit. A lost attempt may have "
            "cost a measurement; bytes of it that arrived are recorded as dropped."
        ),
    )
    commitment: bool = Field(
        True,
        description=(
            "Send a digest of what the bytes will decide, where the contract has a field for it."
        ),
    )
    public_key: Path | None = Field(
        None,
        description=(
            "File with the device's Ed25519 public key (PEM); answers without its signature are "
            "refused. Needs the extra signing."
        ),
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="Key that the server asks for; empty sends none."
    )
    api_key_file: Path | None = Field(
        None, description="File that holds the API key, instead of the variable."
    )
    api_key_header: str = Field(
        "api-key", description="Lower-case metadata key under which the API key is sent."
    )
    tls_enabled: bool = Field(False, description="Encrypt the connection and check the server.")
    tls_ca_cert: Path | None = Field(
        None,
        description=(
            "File with the CA certificates (PEM) that are trusted for the server; the "
            "system's by default."
        ),
    )
    tls_client_cert: Path | None = Field(
        None, description="File with this client's certificate chain (PEM), for mutual TLS."
    )
    tls_client_key: Path | None = Field(
        None, description="File with the private key (PEM) of that certificate."
    )

    _credentials: ApiKey | None = PrivateAttr(default=None)

    @field_validator("server_address")
    @classmethod
    def _address_is_understood(cls, value: str) -> str:
        return str(Address.parse(value))

    @field_validator("profile")
    @classmethod
    def _profile_is_known(cls, value: str) -> str:
        if value and value not in PROFILES:
            raise ValueError(f"no such profile; choose one of {', '.join(PROFILES)}")
        return value

    @field_validator("method_path", "stream_method_path")
    @classmethod
    def _method_path_is_complete(cls, value: str) -> str:
        if not _METHOD_PATH.fullmatch(value):
            raise ValueError(f"not of the form /package.Service/Method, as {DEFAULT_METHOD_PATH}")
        return value

    @field_validator("request_fields")
    @classmethod
    def _request_fields_are_known(cls, value: str) -> str:
        field_numbers(value, REQUEST_FIELDS)
        return value

    @field_validator("answer_fields")
    @classmethod
    def _answer_fields_are_known(cls, value: str) -> str:
        field_numbers(value, ANSWER_FIELDS)
        return value

    @field_validator("api_key_header")
    @classmethod
    def _header_is_a_metadata_key(cls, value: str) -> str:
        return check_header(value)

    # On the model and not on the field: an error of a field carries the field's value.
    @model_validator(mode="after")
    def _parts_fit_together(self) -> GrpcOptions:
        self._credentials = self._read_credentials()
        _ = self.contract
        _ = self.tls
        return self

    @property
    def address(self) -> Address:
        """The parsed server address."""
        return Address.parse(self.server_address)

    @property
    def credentials(self) -> ApiKey | None:
        """The API key with its header, or ``None`` when there is none to send.

        A file is read once, when the options are made.
        """
        return self._credentials

    def _read_credentials(self) -> ApiKey | None:
        secret = self.api_key.get_secret_value()
        if self.api_key_file is not None:
            if secret:
                raise ConfigError(
                    f"the API key is given twice; remove it, or its file {self.api_key_file}"
                )
            secret = secret_in(self.api_key_file)
        return ApiKey(self.api_key_header, secret) if secret else None

    @property
    def tls(self) -> ClientTls | None:
        """How the connection is encrypted, or ``None`` when it is not."""
        files = (self.tls_ca_cert, self.tls_client_cert, self.tls_client_key)
        if self.tls_enabled:
            return ClientTls(*files)
        if any(files):
            raise ConfigError(
                f"certificates are given ({', '.join(map(str, filter(None, files)))}) and TLS is "
                "off; set tls_enabled to true, or remove them"
            )
        return None

    @property
    def _implied_profile(self) -> str:
        services = {path.rpartition("/")[0] for path in (self.method_path, self.stream_method_path)}
        ours = services <= {"", DEFAULT_METHOD_PATH.rpartition("/")[0]}
        return "qr_entropy" if ours else CUSTOM

    @property
    def contract(self) -> Contract:
        """What the server understands, with its limits."""
        return Contract.declared(
            self.profile or self._implied_profile,
            mode=self.mode,
            method_path=self.method_path,
            stream_method_path=self.stream_method_path,
            request_fields=field_numbers(self.request_fields, REQUEST_FIELDS),
            answer_fields=field_numbers(self.answer_fields, ANSWER_FIELDS),
            source_id=self.source_id,
            integrated_bytes=self.integrated_bytes,
            max_bytes_per_request=self.max_bytes_per_request,
            max_requests_per_minute=self.max_requests_per_minute,
            max_bytes_per_day=self.max_bytes_per_day,
        )

    @classmethod
    def checked(cls, **values: Any) -> GrpcOptions:
        """Returns options made of *values*.

        Raises:
            ConfigError: When a value is malformed; names it, and never quotes the API key.
        """
        return _checked(cls, values, prefix="")


class GrpcSettings(EnvironmentSettings, GrpcOptions):
    """The options as the environment and the ``.env`` file of the working directory set them."""

    model_config = SettingsConfigDict(**environment(_PREFIX), hide_input_in_errors=True)
    location: ClassVar[str | None] = "server_address"

    @classmethod
    def load(cls, **overrides: Any) -> GrpcSettings:
        """Returns the settings of this process, with *overrides* taking precedence.

        Raises:
            ConfigError: When a variable is malformed; names it, and never quotes the API key.
        """
        return _checked(cls, overrides, prefix=_PREFIX, names=cls.declared_names)


def _checked(
    kind: type[_Options],
    values: dict[str, Any],
    *,
    prefix: str,
    names: Callable[[], dict[str, str]] = dict,
) -> _Options:
    try:
        return kind(**values)
    except ValidationError as error:
        if any(problem["loc"] == ("api_key",) for problem in error.errors()):
            message = f"{prefix}{'API_KEY' if prefix else 'api_key'} is not text; pass a string"
        else:
            message = describe_validation_error(error, kind, prefix=prefix, names=names())
    # Raised outside the handler: pydantic's error holds the API key and must not travel along.
    raise ConfigError(message)
