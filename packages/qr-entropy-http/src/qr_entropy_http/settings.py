# SPDX-License-Identifier: Apache-2.0
"""Settings of the source ``http``: ``QR_HTTP_*`` variables and the ``.env`` file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field, field_validator

from qr_entropy_http.presets.model import NAME, PARAMETER
from qr_sampler.errors import ConfigError
from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.option_models import Options, environment

__all__ = ["HttpOptions", "HttpSettings", "parameters_in", "state_folder"]

_MOST: Final = 10**15


class HttpOptions(Options):
    """Which service is asked, and how; reads no environment."""

    preset: str = Field(
        "",
        description=(
            "The service: anu, anu_legacy, lfd, openentropy, outshift, qrandom, quandela, "
            "quantis_appliance or quanttp."
        ),
    )
    preset_file: Path | None = Field(
        None, description="TOML file that describes another service, instead of a preset's name."
    )
    url: str = Field(
        "",
        description=(
            "Where the service is, as https://host:port, for a device of one's own or a proxy that "
            "stands in for the service; empty for the preset's."
        ),
    )
    parameters: str = Field(
        "",
        description=(
            "What the preset leaves open, as name=value with commas between: device_id for "
            "quanttp, source for openentropy."
        ),
    )
    key_file: Path | None = Field(
        None,
        description=(
            "File with the API key, readable by its owner only (mode 600). There is no variable "
            "for the key itself."
        ),
    )
    ca_file: Path | None = Field(
        None,
        description=(
            "File with the CA certificates (PEM) that are trusted for the service, instead of the "
            "public ones."
        ),
    )
    allow_plain_http: bool = Field(
        False,
        description=(
            "Allow http:// to another machine: whoever is in between can read the key, and read "
            "and replace the numbers."
        ),
    )
    timeout_ms: float = Field(
        10_000.0,
        gt=0.0,
        le=3_600_000.0,
        description="Longest time for one draw with all its requests, in milliseconds.",
    )
    state_dir: Path | None = Field(
        None,
        description=(
            "Folder that remembers what was spent of each quota, shared by the processes of a "
            "machine; by default qr-sampler/http in $XDG_STATE_HOME or ~/.local/state."
        ),
    )
    max_bytes_per_request: int | None = Field(
        None, ge=1, le=2**24, description="Smaller limit of one request than the preset's."
    )
    max_requests_per_second: int | None = Field(
        None, ge=1, le=_MOST, description="Requests a second; the preset's by default."
    )
    max_requests_per_minute: int | None = Field(
        None, ge=1, le=_MOST, description="Requests a minute; the preset's by default."
    )
    max_requests_per_day: int | None = Field(
        None, ge=1, le=_MOST, description="Requests a day; the preset's by default."
    )
    max_requests_per_month: int | None = Field(
        None, ge=1, le=_MOST, description="Requests in 31 days; the preset's by default."
    )
    max_bytes_per_day: int | None = Field(
        None, ge=1, le=_MOST, description="Random bytes a day; the preset's by default."
    )
    max_bytes_per_month: int | None = Field(
        None, ge=1, le=_MOST, description="Random bytes in 31 days; the preset's by default."
    )

    @field_validator("parameters")
    @classmethod
    def _parameters_are_pairs(cls, value: str) -> str:
        parameters_in(value)
        return value


class HttpSettings(EnvironmentSettings, HttpOptions):
    """The options as the environment and the ``.env`` file of the working directory set them."""

    model_config = environment("QR_HTTP_")

    location: ClassVar[str] = "preset"


def parameters_in(text: str) -> dict[str, str]:
    """Returns what *text* sets.

    Raises:
        ValueError: When it is not of the form ``name=value,name=value``.

    Examples:
        >>> parameters_in("device_id=QWR70154")
        {'device_id': 'QWR70154'}
    """
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (equals and re.fullmatch(NAME, name) and re.fullmatch(PARAMETER, value)):
            raise ValueError(f"{pair!r} is not of the form name=value")
        if name in found:
            raise ValueError(f"{name} is set twice")
        found[name] = value
    return found


def state_folder(options: HttpOptions) -> Path:
    """Returns the folder that remembers what was spent; it need not exist.

    Raises:
        ConfigError: When none is named and the user has no home.
    """
    if options.state_dir is not None:
        return options.state_dir
    base = os.environ.get("XDG_STATE_HOME")
    try:
        state = Path(base) if base else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise ConfigError(
            "what is spent of quotas has to be kept, and this user has no home; name a folder in "
            "QR_HTTP_STATE_DIR"
        ) from error
    return state / "qr-sampler" / "http"
