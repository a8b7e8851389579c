# SPDX-License-Identifier: Apache-2.0
"""How a client encrypts its connection and makes sure who is at the other end."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.private_file import warn_of_others

__all__ = ["ClientTls"]


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files in PEM form; they are checked now and read again whenever a channel is opened.

    Raises:
        ConfigError: When a file cannot be read, holds something else, or the key is not the
            certificate's; never quotes a key.
    """

    ca_certificates: Path | None = None
    """Certificates that may vouch for the server; ``None`` for those of the system."""
    client_certificate: Path | None = None
    """Certificate chain of this client, for mutual TLS."""
    client_key: Path | None = None
    """Private key of that certificate, not encrypted."""

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            given = self.client_certificate or self.client_key
            raise ConfigError(
                f"mutual TLS needs the client's certificate and its key, and only {given} is "
                "given; give the other one, too, or neither"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_certificates is not None:
            _check_ca(context, self.ca_certificates)
        if self.client_certificate is not None and self.client_key is not None:
            _check_pair(context, self.client_certificate, self.client_key)

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials of a channel.

        Raises:
            OSError: When a file has become unreadable.
        """
        return grpc.ssl_channel_credentials(
            _contents(self.ca_certificates),
            _contents(self.client_key),
            _contents(self.client_certificate),
        )


def _contents(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _check_ca(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"{path} holds no certificates in PEM form ({error.reason})") from error
    except OSError as error:
        raise ConfigError(f"cannot read the certificates {path}: {error.strerror}") from error


def _check_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    warn_of_others(key, "private key")
    encrypted = False

    def no_password() -> bytes:
        # Without this, OpenSSL would ask for the password on the terminal.
        nonlocal encrypted
        encrypted = True
        return b""

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if encrypted:
            raise ConfigError(
                f"the key {key} is encrypted; decrypt it with `openssl pkey -in` and that file"
            ) from None
        reason = f" ({error.reason})" if error.reason else ""
        raise ConfigError(
            f"{certificate} and {key} are no certificate and key in PEM form that belong together"
            f"{reason}"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot read the client's certificate {certificate} or key {key}: {error.strerror}"
        ) from error
