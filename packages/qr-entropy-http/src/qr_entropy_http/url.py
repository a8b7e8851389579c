# SPDX-License-Identifier: Apache-2.0
"""Where a service may be: an origin, read in one way only."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

import httpx

from qr_sampler.errors import shown

__all__ = ["checked_url", "is_loopback"]

# Nothing that two parsers of URLs may read differently: no user, backslash, bracket or escape.
_ORIGIN: Final = re.compile(
    r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9._~/-]*)?", re.IGNORECASE
)


def checked_url(value: str) -> str:
    """Returns *value* without a slash at its end, if it names a server, and perhaps a folder there.

    Raises:
        ValueError: When it has another scheme than http and https, no valid host, a bad port, a
            user, a query or a fragment; does not quote a password.

    Examples:
        >>> checked_url("https://qrng.example:8443/")
        'https://qrng.example:8443'
    """
    if "@" in value:
        raise ValueError(
            "a URL is no place for a password; name a file with the key in QR_HTTP_KEY_FILE"
        )
    if not _ORIGIN.fullmatch(value):
        raise ValueError(f"{shown(value)} is not of the form https://host:port")
    if urlsplit(value).port == 0:  # Reading it checks it.
        raise ValueError(f"{shown(value)}: port 0 is no port")
    try:
        _ = httpx.URL(value).host  # Reading it checks it, too.
    # The second is that of names which are encoded wrongly.
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{shown(value)} has no valid host: {error}") from error
    return value.rstrip("/")


def is_loopback(url: str) -> bool:
    """Returns whether a URL leads to this machine, by its host alone.

    Examples:
        >>> is_loopback("http://[::1]:8000"), is_loopback("http://localhost.example")
        (True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
