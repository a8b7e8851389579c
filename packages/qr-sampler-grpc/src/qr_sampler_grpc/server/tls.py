# SPDX-License-Identifier: Apache-2.0
"""The certificate of a server, and the authority of the certificates that its clients show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.private_file import warn_of_others

__all__ = ["ServerTls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Where the files are that connections are encrypted with; all in PEM form."""

    certificate: Path
    """The server's certificate, followed by the intermediate ones if there are any."""
    private_key: Path
    """Its private key, unencrypted."""
    client_ca: Path | None = None
    """Certificates of the authorities that sign the clients'; without it clients show none."""

    def credentials(self) -> grpc.ServerCredentials:
        """Returns what the files hold, in gRPC's form. The files are read once.

        Raises:
            ConfigError: When a file is missing, unreadable or malformed, or the key belongs to
                another certificate; never quotes the key.
        """
        certificate = _read(self.certificate, "certificate")
        warn_of_others(self.private_key, "private key")
        private_key = _read(self.private_key, "private key")
        client_ca = None
        if self.client_ca is not None:
            client_ca = _read(self.client_ca, "certificate of the client authority")
            _check_certificates(self.client_ca, client_ca)
        _check_certificates(self.certificate, certificate)
        self._check_pair()
        return grpc.ssl_server_credentials(
            [(private_key, certificate)],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )

    def _check_pair(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without the function OpenSSL would ask the terminal for the password of the key.
            context.load_cert_chain(self.certificate, self.private_key, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            if "MISMATCH" in (getattr(error, "reason", None) or ""):
                raise ConfigError(
                    f"the private key {self.private_key} does not belong to the certificate "
                    f"{self.certificate}; name the files of one pair"
                ) from None
            raise ConfigError(
                f"{self.private_key} holds no unencrypted private key in PEM form"
            ) from None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error


def _check_certificates(path: Path, pem: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        # The file may be the key, named here by mistake, and must not be quoted.
        raise ConfigError(f"{path} holds no certificate in PEM form") from None
