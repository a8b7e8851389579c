# SPDX-License-Identifier: Apache-2.0
"""Time stamps of RFC 3161, as an authority gives them."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

from qr_sampler_cli.audit.anchors.timestamps import InvalidTokenError, decode_token
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone
from qr_sampler_lab.anchors.fetching import AnchorError, Fetcher, without_secrets

__all__ = ["TimeStampAuthority"]

_LOGGER: Final = logging.getLogger("qr_sampler_lab.anchors")
_QUERY: Final = "application/timestamp-query"


class TimeStampAuthority:
    """An authority that stamps digests.

    It is asked for a reply with its own certificate. One that adds others in another order than DER
    asks for, which the library refuses to read, is asked for replies without any: then its
    certificate has to be among those that verify.

    Args:
        fetcher: Asks it.
        url: Its address.

    Raises:
        ConfigError: When *url* is no address.
        MissingPackageError: When ``rfc3161-client`` is missing.
    """

    def __init__(self, fetcher: Fetcher, url: str) -> None:
        self._client: Any = import_package(
            "rfc3161_client",
            needed_for="a time stamp",
            remedy="install it " + from_clone("qr-sampler-lab[anchors]"),
        )
        self._fetcher = fetcher
        self._asked = fetcher.checked("--tsa", url)
        self.url = without_secrets(url)
        """Its address, without a password."""
        self._with_certificate = True

    def stamp(self, line: bytes) -> bytes:
        """Returns the authority's reply, in DER form, to the SHA-256 of *line*.

        That is the head of what ends with the line. The signature is not verified here.

        Raises:
            AnchorError: When there is no reply, or one to something else.
        """
        try:
            return self._stamp(line)
        except InvalidTokenError as error:
            if not self._with_certificate or "order" not in str(error):
                raise AnchorError(f"{self.url}: {error}") from error
            _LOGGER.warning("%s: %s; it is asked for none from now on", self.url, error)
        self._with_certificate = False
        try:
            return self._stamp(line)
        except InvalidTokenError as error:
            raise AnchorError(f"{self.url}: {error}") from error

    def _stamp(self, line: bytes) -> bytes:
        query = (
            self._client.TimestampRequestBuilder()
            .data(line)
            .hash_algorithm(self._client.HashAlgorithm.SHA256)
            .cert_request(cert_request=self._with_certificate)
            .build()
        )
        token = self._fetcher.post(self._asked, query.as_bytes(), _QUERY)
        reply = decode_token(token)
        info = reply.tst_info
        if info.message_imprint.message != hashlib.sha256(line).digest():
            raise AnchorError(f"{self.url} has stamped something else than it was asked to")
        if info.nonce != query.nonce:
            raise AnchorError(f"{self.url} answers with an older reply: its nonce is another one")
        return token
