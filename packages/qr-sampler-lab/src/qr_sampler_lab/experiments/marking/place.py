# SPDX-License-Identifier: Apache-2.0
"""Where marks are taken, and whether that is safe."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError, shown

__all__ = ["Place", "check_exposure", "is_loopback", "tls_context"]

_PLACE: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]@]+)):(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A TCP address."""

    host: str
    """IP address, without brackets, or a name."""
    port: int
    """0 takes a free one."""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Returns the address ``host:port``, where IPv6 is in brackets.

        Raises:
            ConfigError: When it is none.
        """
        found = _PLACE.fullmatch(text)
        if found is None or int(found["port"]) > 65_535:
            raise ConfigError(f"--listen {shown(text)}: expected HOST:PORT, such as 127.0.0.1:8765")
        host = found["ipv6"] or found["host"]
        # Whatever else a file of names says, this name means this machine.
        return cls("127.0.0.1" if host.lower() == "localhost" else host, int(found["port"]))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether *host*, without brackets, is an address of the loopback interface, or its name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(place: Place, *, encrypted: bool, has_key: bool) -> None:
    """Returns if marks may be taken at *place*.

    Raises:
        ConfigError: When other machines could reach it and it is not both encrypted and protected
            by a key.
    """
    if place.is_local or (encrypted and has_key):
        return
    missing = [
        *([] if encrypted else ["nothing would be encrypted"]),
        *([] if has_key else ["everybody could write marks"]),
    ]
    raise ConfigError(
        f"{place} can be reached from other machines and {' and '.join(missing)}; give a "
        "certificate (--certificate, --private-key) and a key (--key-file), or listen on 127.0.0.1"
    )


def tls_context(certificate: Path | None, private_key: Path | None) -> ssl.SSLContext | None:
    """Returns what connections are encrypted with, ``None`` without files.

    Args:
        certificate: PEM file, followed by the intermediate certificates if there are any.
        private_key: PEM file with its key, unencrypted.

    Raises:
        ConfigError: When one is missing or cannot be used; never quotes the key.
    """
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise ConfigError("give both --certificate and --private-key, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the function OpenSSL would ask the terminal for the password of the key.
        context.load_cert_chain(certificate, private_key, password=lambda: "")
    except (OSError, ValueError) as error:
        # Errors of OpenSSL are OSErrors, too; the system's have a number and a text.
        reason = (
            "they are no certificate and its unencrypted private key in PEM form"
            if isinstance(error, (ssl.SSLError, ValueError))
            else str(error.strerror)
        )
        raise ConfigError(f"cannot use {certificate} and {private_key}: {reason}") from None
    return context
