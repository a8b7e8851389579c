# SPDX-License-Identifier: Apache-2.0
"""Short answers of servers that nobody here vouches for: bounded in size, time and direction."""

from __future__ import annotations

import re
import time
from typing import Any, Final

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone

__all__ = ["LARGEST_ANSWER", "AnchorError", "Fetcher", "without_secrets"]

LARGEST_ANSWER: Final = 2**16
"""Most bytes of an answer."""

_REDIRECTS: Final = 3
_SCHEMES: Final = ("https", "http")


_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")


def without_secrets(text: str) -> str:
    """Returns *text* whose addresses name no user and no password.

    Examples:
        >>> without_secrets("https://me:secret@example.org/tsr")
        'https://example.org/tsr'
    """
    return _USER.sub("", text)


class AnchorError(QRSamplerError, RuntimeError):
    """A witness cannot be reached, or answers what is no use."""


class Fetcher:
    """Asks servers over HTTP. Certificates are verified, and redirections keep their scheme.

    Args:
        timeout_s: Longest time for one answer, in seconds.

    Raises:
        MissingPackageError: When ``httpx`` is missing.
    """

    def __init__(self, timeout_s: float = 10.0) -> None:
        self._httpx = import_package(
            "httpx",
            needed_for="a witness from outside",
            remedy="install it " + from_clone("qr-sampler-lab[anchors]"),
        )
        self._timeout_s = timeout_s
        self._client = self._httpx.Client(timeout=timeout_s, follow_redirects=False)

    def checked(self, option: str, url: str) -> str:
        """Returns *url* if it can be asked.

        Raises:
            ConfigError: When it cannot.
        """
        try:
            parsed = self._httpx.URL(url)
        except self._httpx.InvalidURL as error:
            shown = without_secrets(url)
            raise ConfigError(f"{option}={shown!r} is no address: {error}") from error
        if parsed.scheme not in _SCHEMES or not parsed.host:
            shown = without_secrets(url)
            raise ConfigError(
                f"{option}={shown!r} is no address; name one that begins with https://"
            )
        return url

    def get(self, url: str) -> bytes:
        """Returns what is at *url*.

        Raises:
            AnchorError: When that cannot be said.
        """
        return self._ask("GET", url, None, {})

    def post(self, url: str, content: bytes, content_type: str) -> bytes:
        """Returns what is answered to *content*.

        Raises:
            AnchorError: When nothing is.
        """
        return self._ask("POST", url, content, {"content-type": content_type})

    def close(self) -> None:
        """Closes connections."""
        self._client.close()

    def _ask(self, method: str, url: str, content: bytes | None, headers: dict[str, str]) -> bytes:
        deadline_s = time.monotonic() + self._timeout_s
        place, shown = self._httpx.URL(url), without_secrets(url)
        try:
            for _ in range(_REDIRECTS + 1):
                request = self._client.build_request(
                    method, place, content=content, headers=headers
                )
                response = self._client.send(request, stream=True)
                try:
                    if response.next_request is None:
                        return self._body(shown, response, deadline_s)
                    following = response.next_request.url
                finally:
                    response.close()
                if following.scheme != place.scheme:
                    raise AnchorError(f"{shown} redirects to {following.scheme}, which is refused")
                place = following
        except self._httpx.HTTPError as error:
            raise AnchorError(f"{shown} cannot be asked: {str(error) or repr(error)}") from error
        raise AnchorError(f"{shown} redirects more than {_REDIRECTS} times")

    def _body(self, shown: str, response: Any, deadline_s: float) -> bytes:
        if response.status_code != 200:
            raise AnchorError(f"{shown} answers with the status {response.status_code}")
        pieces: list[bytes] = []
        size = 0
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_ANSWER:
                raise AnchorError(f"{shown} answers with more than {LARGEST_ANSWER} bytes")
            if time.monotonic() > deadline_s:
                raise AnchorError(f"{shown} takes longer than {self._timeout_s:g} s to answer")
        return b"".join(pieces)
