# SPDX-License-Identifier: Apache-2.0
"""The options of ``qr-sampler audit`` that name what others say of a ledger."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import MissingPackageError

if TYPE_CHECKING:
    from qr_sampler_cli.audit.anchors.drand import Round
    from qr_sampler_cli.audit.rungs.anchors import OutsideWitnesses
    from qr_sampler_cli.audit.rungs.witnesses import Evidence

__all__ = ["WitnessOptions"]

_LARGEST_SEAL: Final = 2**22


@dataclass(frozen=True, slots=True)
class WitnessOptions:
    """What the files are that others have made."""

    keys: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Public keys of devices that sign draws: Ed25519, P-256."),
    ] = None
    witness: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Log that the server of the entropy wrote with --witness-log: every draw must be "
            "in it, in order.",
        ),
    ] = None
    tsa_certificates: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM", help="Root certificates of the authorities that stamp times (RFC 3161)."
        ),
    ] = None
    anchors: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory with copies of anchors (of a deposit, for example), compared as well "
            "as those beside the ledgers.",
        ),
    ] = None
    seal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sealed plan that the ledger begins with; its round of drand tells since when.",
        ),
    ] = None

    def evidence(self) -> Evidence:
        """Returns what is in the files.

        Raises:
            ConfigError: When one is not what it is to be.
            MissingPackageError: When ``--keys`` is given and ``cryptography`` is missing.
        """
        from qr_sampler_cli.audit.rungs.public_keys import PublicKeys
        from qr_sampler_cli.audit.rungs.server_log import ServerLog
        from qr_sampler_cli.audit.rungs.witnesses import Evidence

        return Evidence(
            keys=None if self.keys is None else PublicKeys(self.keys),
            log=None if self.witness is None else ServerLog(self.witness),
            outside=self._outside(),
        )

    def _outside(self) -> OutsideWitnesses:
        from qr_sampler_cli.audit.anchors.timestamps import TimeStampAuthorities
        from qr_sampler_cli.audit.rungs.anchors import OutsideWitnesses

        if self.anchors is not None and not self.anchors.is_dir():
            raise ConfigError(f"--anchors={self.anchors} is no directory")
        folders = () if self.anchors is None else (self.anchors,)
        seal = None if self.seal is None else _seal(self.seal)
        if self.tsa_certificates is None:
            return OutsideWitnesses(folders=folders, seal=seal)
        try:
            authorities = TimeStampAuthorities(self.tsa_certificates)
        except MissingPackageError as error:
            # What needs no package is still judged.
            return OutsideWitnesses(missing=str(error), folders=folders, seal=seal)
        return OutsideWitnesses(authorities, folders=folders, seal=seal)


def _seal(path: Path) -> tuple[str, Round | None]:
    """Returns the digest of a sealed plan, and the round of the beacon that it names."""
    from qr_sampler_cli.audit.anchors.drand import Round
    from qr_sampler_cli.audit.anchors.files import read_small

    try:
        data = read_small(path, _LARGEST_SEAL)
        told = json.loads(data)
    except OSError as error:
        raise ConfigError(f"--seal={path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--seal={path}: it is no sealed plan: {error}") from error
    beacon = told.get("witness") if isinstance(told, dict) else None
    found = Round.of(beacon) if isinstance(beacon, dict) else None
    return hashlib.sha256(data).hexdigest(), found
