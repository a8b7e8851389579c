# SPDX-License-Identifier: Apache-2.0
"""Time stamps of RFC 3161: what others have seen, and when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone

__all__ = [
    "LONGEST_TOKEN",
    "InvalidTokenError",
    "TimeStamp",
    "TimeStampAuthorities",
    "decode_token",
]

LONGEST_TOKEN: Final = 2**16
"""Most bytes of a token that is read."""

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)
_LARGEST_PEM: Final = 2**20
_NS_PER_S: Final = 1_000_000_000
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_REMEDY: Final = "install it " + from_clone("qr-sampler[anchors]")
_NOT_DER: Final = (
    "its set of certificates is not in the order that DER asks for; ask the authority for a reply "
    "without certificates, or with its own alone"
)


class InvalidTokenError(QRSamplerError, ValueError):
    """A time stamp does not prove what it is for."""


@dataclass(frozen=True, slots=True)
class TimeStamp:
    """A valid time stamp."""

    not_after_ns: int
    """Before when what it covers existed, in nanoseconds since the epoch: the authority's time, the
    second that it may have been cut by, and what the authority says of its accuracy."""
    authority: str
    """The name that its certificate gives the authority."""


class TimeStampAuthorities:
    """Verifies time stamps by the certificates of those who are trusted.

    Args:
        path: Certificates in PEM form: the roots, and intermediate ones that replies leave out.

    Raises:
        ConfigError: When it holds none, or no root among them.
        MissingPackageError: When ``rfc3161-client`` or ``cryptography`` is missing.
    """

    def __init__(self, path: Path) -> None:
        self._x509 = x509 = _package("cryptography.x509")
        self._unreadable = (ValueError, x509.InvalidVersion, x509.DuplicateExtension)
        self._client = _package("rfc3161_client")
        try:
            with path.open("rb") as file:
                pem = file.read(_LARGEST_PEM)
            found = [x509.load_pem_x509_certificate(block) for block in _CERTIFICATE.findall(pem)]
        except OSError as error:
            raise ConfigError(f"--tsa-certificates={path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"--tsa-certificates={path}: {error}") from error
        self._roots = [each for each in found if each.issuer == each.subject]
        self._others = [each for each in found if each.issuer != each.subject]
        if not self._roots:
            raise ConfigError(
                f"--tsa-certificates={path}: name a file with the root certificate of the "
                "time stamping authority in PEM form"
            )

    def verify(self, token: bytes, head: str) -> TimeStamp:
        """Returns what *token* says of a line whose SHA-256 is *head*.

        The certificates have to be valid at the time that it says, not now.

        Args:
            token: The reply of the authority in DER form.
            head: 64 hexadecimal digits.

        Raises:
            InvalidTokenError: When it was not made for *head* by one who is trusted.
        """
        reply = decode_token(token)
        imprint = reply.tst_info.message_imprint
        if imprint.hash_algorithm.dotted_string != _SHA256:
            raise InvalidTokenError("it stamps a digest of another algorithm than SHA-256")
        if imprint.message != bytes.fromhex(head):
            raise InvalidTokenError(f"it stamps {imprint.message.hex()} instead of {head}")
        builder = self._client.VerifierBuilder(
            roots=list(self._roots),
            intermediates=list(self._others),
            tsa_certificate=self._signer_of(reply),
        )
        try:
            builder.build().verify(reply, bytes.fromhex(head))
        except (self._client.VerificationError, *self._unreadable) as error:
            raise InvalidTokenError(str(error)) from error
        names = [*map(self._name_of, reply.signed_data.certificates)]
        if len(set(names)) < len(names):
            # Whose key has signed and whose purpose was judged could be two of them.
            raise InvalidTokenError("it holds two certificates of one issuer and number")
        return _stamp_of(reply)

    def _name_of(self, certificate: bytes) -> tuple[Any, int]:
        """Returns what a signature calls its certificate."""
        read = self._x509.load_der_x509_certificate(certificate)
        return read.issuer, read.serial_number

    def _signer_of(self, reply: Any) -> Any:
        """Returns the certificate of the signer of a reply that holds none, if it is known."""
        if reply.signed_data.certificates:
            return None
        signers = {(each.issuer, each.serial_number) for each in reply.signed_data.signer_infos}
        for each in self._others:
            if (each.issuer, each.serial_number) in signers:
                return each
        raise InvalidTokenError(
            "it holds no certificate; add that of the authority itself to --tsa-certificates"
        )


def decode_token(token: bytes) -> Any:
    """Returns the reply of a time stamping authority, not verified yet.

    Raises:
        InvalidTokenError: When it cannot be read.
        MissingPackageError: When ``rfc3161-client`` is missing.
    """
    client: Any = _package("rfc3161_client")
    if len(token) > LONGEST_TOKEN:
        raise InvalidTokenError(f"it has more than {LONGEST_TOKEN} bytes")
    _ = _package("cryptography.x509")
    try:
        reply = client.decode_timestamp_response(token)
        # Read here, since a reply without a stamp has none of these.
        _ = reply.tst_info.gen_time, reply.signed_data.certificates
    except ValueError as error:
        reason = _NOT_DER if "SetOrdering" in str(error) else str(error)
        raise InvalidTokenError(f"it cannot be read: {reason}") from error
    return reply


def _stamp_of(reply: Any) -> TimeStamp:
    info = reply.tst_info
    accuracy = info.accuracy
    slack_ns = 0
    if accuracy is not None:
        slack_ns = (
            (accuracy.seconds or 0) * _NS_PER_S
            + (accuracy.millis or 0) * 10**6
            + (accuracy.micros or 0) * 10**3
        )
    # The library drops fractions of a second.
    time_ns = (info.gen_time - _EPOCH) // timedelta(seconds=1) * _NS_PER_S + _NS_PER_S
    return TimeStamp(time_ns + slack_ns, _signer_of(reply))


def _signer_of(reply: Any) -> str:
    x509 = _package("cryptography.x509")
    (signer,) = reply.signed_data.signer_infos
    for each in reply.signed_data.certificates:
        certificate = x509.load_der_x509_certificate(each)
        if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
            return str(certificate.subject.rfc4514_string())
    return f"an authority of {signer.issuer.rfc4514_string()}"


def _package(name: str) -> Any:
    return import_package(name, needed_for="a time stamp", remedy=_REMEDY)
