# SPDX-License-Identifier: Apache-2.0
"""The API key that a client sends and a server asks for."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.connection.private_file import warn_of_others

__all__ = ["ApiKey", "check_header", "secret_in", "warn_of_exposure"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")

_HEADER: Final = re.compile(r"[a-z0-9_.-]+")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_REDACTED: Final = "***"


def check_header(header: str) -> str:
    """Returns *header* if it can name a text entry of gRPC metadata.

    Raises:
        ConfigError: When it has upper-case or other forbidden characters, or a reserved name.
    """
    if not _HEADER.fullmatch(header):
        raise ConfigError(
            f"API key header {header!r} is not a metadata key; "
            "use lower-case letters, digits, '-', '_' and '.'"
        )
    if header.startswith("grpc-") or header.endswith("-bin"):
        raise ConfigError(
            f"API key header {header!r} is reserved by gRPC; "
            "choose one without 'grpc-' in front and '-bin' at the end"
        )
    return header


def secret_in(path: Path) -> str:
    """Returns the secret that the file at *path* holds, without the space around it.

    Raises:
        ConfigError: When it cannot be read or is empty; never quotes what is in it.
    """
    nothing = f"the file {path} holds no API key; write the key into it as text"
    warn_of_others(path, "API key")
    try:
        secret = path.read_text("utf-8-sig").strip()
    except UnicodeDecodeError:
        # Raised without its cause, which holds the contents of the file.
        raise ConfigError(nothing) from None
    except OSError as error:
        raise ConfigError(f"cannot read the API key from {path}: {error.strerror}") from error
    if not secret:
        raise ConfigError(nothing)
    return secret


def warn_of_exposure(address: Address, *, encrypted: bool) -> None:
    """Logs a warning when a key that is sent to *address* could be read on its way."""
    if encrypted or address.is_own:
        return
    _LOGGER.warning(
        "THE API KEY TRAVELS UNENCRYPTED to %s: whoever sees the traffic can use it; set "
        "QR_GRPC_TLS_ENABLED=true, or keep to a network that you trust",
        address,
    )


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A secret and the metadata entry that carries it; shows neither in its representation.

    Raises:
        ConfigError: When the header or the secret cannot travel; never quotes the secret.
    """

    header: str
    """Metadata key, lower case."""
    secret: str = field(repr=False)
    """The key itself: printable ASCII without space around it."""

    def __post_init__(self) -> None:
        check_header(self.header)
        if not self.secret or self.secret != self.secret.strip():
            raise ConfigError("the API key is empty or has space around it; remove the space")
        if not _PRINTABLE.fullmatch(self.secret):
            raise ConfigError(
                "the API key has a character that gRPC metadata cannot carry; "
                "use printable ASCII only"
            )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call that carries the key."""
        return ((self.header, self.secret),)

    def is_in(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Returns whether *metadata* carries this very key, in time independent of its contents."""
        expected = self.secret.encode()
        matches = False
        for header, value in metadata:
            if header == self.header:
                given = value if isinstance(value, bytes) else value.encode()
                matches |= hmac.compare_digest(given, expected)
        return matches

    def redact(self, text: str) -> str:
        """Returns *text* with every occurrence of the key masked."""
        return text.replace(self.secret, _REDACTED)
