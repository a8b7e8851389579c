# SPDX-License-Identifier: Apache-2.0
"""What a preset says of a service: how it is asked, what it answers, what it allows."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from qr_entropy_http.presets.path import PATTERN
from qr_entropy_http.presets.template import AMOUNTS, places_in
from qr_entropy_http.url import checked_url

__all__ = ["AnswerRule", "ErrorRule", "KeyRule", "Limits", "Preset"]

NAME: Final = r"^[a-z][a-z0-9_]*$"
HEADER: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
PARAMETER: Final = r"[\x21-\x7e]{1,200}"
"""What may fill a place of a request, wherever it is."""

OWN_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that decide how an answer travels; this package sets them itself."""

LARGEST_REQUEST: Final = 2**24
"""Number of bytes of the largest request."""

LARGEST_ANSWER: Final = 2**27
"""Number of characters of the largest answer, which is held in memory."""

BYTES_OF_FORM: Final = {"uint8": 1, "uint16": 2, "decimal": 1}
"""Forms whose numbers have a fixed size in bytes."""

Text = Annotated[str, Field(max_length=1000)]
Amount = Annotated[int, Field(ge=1, le=10**15)]


class Part(BaseModel):
    """A table of a preset; unknown keys and values of another type are errors."""

    # Errors quote nothing: a file may hold a password where none belongs.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class KeyRule(Part):
    """How a service learns the API key."""

    header: str = Field(pattern=HEADER)
    """Header that carries it."""
    prefix: Text = ""
    """What stands before it in that header, such as ``"Bearer "``."""
    required: bool = True
    """Whether the service serves nobody without one."""

    @model_validator(mode="after")
    def _header_can_be_sent(self) -> KeyRule:
        _check_header(self.header, self.prefix)
        return self


class AnswerRule(Part):
    """Where the numbers are in an answer, and how they are written."""

    format: Literal["json", "raw"] = "json"
    """Whether the answer is a JSON document, or nothing but the bytes."""
    content_types: Annotated[tuple[Text, ...], Field(strict=False, max_length=16)] = ()
    """Media types that an answer may have; empty for ``application/json``, or for a raw answer any
    but HTML and JSON, which are what errors look like."""
    numbers: str = Field("", max_length=200, pattern=f"^{PATTERN}$")
    """Path of the numbers; empty for the whole answer."""
    form: Literal["hex", "base64", "uint8", "uint16", "bits", "decimal", "raw"]
    """How they are written: texts (``hex``, ``base64``, ``bits``: digits 0 and 1, the high bit
    first; ``decimal``: 0 to 255), integers (``uint8``, ``uint16``, ``bits``), or ``raw``.

    Each is taken for all of the values that it has, leading zeros included: a service whose numbers
    have another range, or lack these zeros, has no form. None is scaled."""
    byte_order: Literal["big", "little"] = "big"
    """Which byte of a ``uint16`` comes first."""
    bytes_per_number: int = Field(1, ge=1, le=2**16)
    """What one number holds; requests ask for whole numbers, and what is left over is dropped."""
    characters_per_byte: int = Field(8, ge=1, le=4096)
    """How many characters of an answer one byte may cost, which bounds its size."""
    require: Annotated[dict[str, str | int | bool], Field(max_length=16)] = Field(
        default_factory=dict
    )
    """What else an answer must say, by its path."""

    @model_validator(mode="after")
    def _form_fits(self) -> AnswerRule:
        if (self.format == "raw") != (self.form == "raw"):
            raise ValueError("format 'raw' goes with form 'raw', and with no other")
        if self.format == "raw" and (self.numbers or self.require):
            raise ValueError("a raw answer has no paths: leave out 'numbers' and 'require'")
        size = BYTES_OF_FORM.get(self.form, self.bytes_per_number)
        if size != self.bytes_per_number:
            raise ValueError(f"form {self.form!r} needs bytes_per_number = {size}")
        if not all(re.fullmatch(PATTERN, path) for path in self.require):
            raise ValueError("a key of 'require' is no path such as 'success' or 'data[].ok'")
        return self


class Limits(Part):
    """What a service allows; what is left out is unlimited."""

    numbers_per_request: Amount
    """Largest single request."""
    requests_per_second: Amount | None = None
    requests_per_minute: Amount | None = None
    requests_per_day: Amount | None = None
    requests_per_month: Amount | None = None
    bytes_per_day: Amount | None = None
    bytes_per_month: Amount | None = None


class ErrorRule(Part):
    """What an answer without numbers means; the first rule that fits counts."""

    status: int = Field(ge=200, le=599)
    contains: Text = ""
    """Text that it must contain, in any case of letters."""
    means: Literal["quota", "key", "empty", "refused"]
    """A used-up quota, a key that is not accepted, a pool without bytes, or anything else."""
    retry_after_s: float | None = Field(None, gt=0.0, le=2_678_400.0)
    """How long the service is left alone where it does not say so itself."""


class Preset(Part):
    """Everything that is known of one service."""

    name: str = Field(pattern=NAME, max_length=64)
    title: Text = Field(min_length=1)
    """The service as its operator calls it."""
    documentation: Text = ""
    """Where what is said here comes from."""
    price: Text = ""
    """What numbers cost, in words; empty if unknown."""
    url: Text = ""
    """Scheme, host and port; empty for a device of one's own, which ``QR_HTTP_URL`` names."""
    path: Text = Field("/", pattern=r"^/[\x21-\x7e]*$")
    method: Literal["GET", "POST"] = "GET"
    query: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    headers: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    body: Annotated[dict[str, str | int | bool], Field(max_length=32)] | None = None
    """JSON object that a POST sends."""
    parameters: Annotated[dict[str, str], Field(max_length=16)] = Field(default_factory=dict)
    """Further places and what fills them; an empty one has to be set by ``QR_HTTP_PARAMETERS``."""
    key: KeyRule | None = None
    answer: AnswerRule
    limits: Limits
    errors: Annotated[tuple[ErrorRule, ...], Field(strict=False, max_length=32)] = ()
    pooled: bool = False
    """Whether it is known to serve bytes from a store that was filled earlier."""
    conditioning: Text = Field("unknown", min_length=1)
    """What is done to the raw bits: ``"none"``, ``"unknown"``, or what it is. Health tests expect
    full entropy of bytes to which something is done."""

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            _check_header(name, text)
        return value

    @field_validator("parameters")
    @classmethod
    def _parameters_can_be_sent(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if text and not re.fullmatch(PARAMETER, text):
                raise ValueError(f"{name} is not of 1 to 200 printable ASCII characters")
        return value

    @field_validator("url")
    @classmethod
    def _url_is_an_origin(cls, value: str) -> str:
        return checked_url(value) if value else value

    @model_validator(mode="after")
    def _request_is_complete(self) -> Preset:
        if self.body is not None and self.method != "POST":
            raise ValueError("only method 'POST' has a 'body'")
        clash = set(self.parameters) & set(AMOUNTS)
        if clash or not all(re.fullmatch(NAME, name) for name in self.parameters):
            raise ValueError(f"parameters {sorted(self.parameters)} are no free names")
        asked = places_in([self.path, *self.query.values(), *(self.body or {}).values()])
        used = asked | places_in(self.headers.values())
        unknown = used - set(AMOUNTS) - set(self.parameters)
        if unknown:
            raise ValueError(f"nothing fills the places {sorted(unknown)}")
        unused = set(self.parameters) - used
        if unused:
            raise ValueError(f"the parameters {sorted(unused)} have no place")
        if not asked & set(AMOUNTS) and self.limits.numbers_per_request != 1:
            raise ValueError("the request does not say how much it asks for, as with {numbers}")
        return self

    @model_validator(mode="after")
    def _exchange_is_bounded(self) -> Preset:
        if self.bytes_per_request > LARGEST_REQUEST:
            raise ValueError(f"a request may have {LARGEST_REQUEST} bytes at most")
        if self.bytes_per_request * self.answer.characters_per_byte > LARGEST_ANSWER:
            raise ValueError(
                f"an answer may have {LARGEST_ANSWER} characters at most; lower numbers_per_request"
            )
        return self

    @property
    def bytes_per_request(self) -> int:
        """Size of the largest request in bytes."""
        return self.limits.numbers_per_request * self.answer.bytes_per_number


def _check_header(name: str, text: str) -> None:
    if not re.fullmatch(HEADER, name) or name.lower() in OWN_HEADERS:
        raise ValueError(f"{name!r} is no header that a preset may set")
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"header {name!r} has characters that none can carry")
