# SPDX-License-Identifier: Apache-2.0
"""Rung 5: what others have signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from array import array
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rungs.anchors import OutsideWitnesses
from qr_sampler_cli.audit.rungs.public_keys import PublicKeys
from qr_sampler_cli.audit.rungs.server_log import ServerLog, ServerLogWitness
from qr_sampler_cli.audit.schema.token_lines import Draw

__all__ = ["PREAMBLE", "Evidence", "Witnesses", "signed_message"]

PREAMBLE: Final = b"qr-entropy-v2: "
"""What a message begins with that is signed for records."""

_INCOMPLETE: Final = "signatures of draws whose sequence_id or device time is not recorded"


def signed_message(draw: Draw) -> bytes | None:
    """Returns what the device has signed, or ``None`` if the record does not have all of it.

    It is the preamble, the sequence id and the device's time as eight bytes each, the identity of
    the device and the commitment with their lengths as four bytes in front, and the SHA-256 of the
    data; all big-endian.
    """
    if draw.sequence_id is None or draw.device_timestamp_ns is None:
        return None
    device, commitment = draw.device_id.encode(), bytes.fromhex(draw.commitment)
    return b"".join(
        (
            PREAMBLE,
            struct.pack(">qqI", draw.sequence_id, draw.device_timestamp_ns, len(device)),
            device,
            struct.pack(">I", len(commitment)),
            commitment,
            bytes.fromhex(draw.data_sha256),
        )
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an audit is given to compare ledgers with."""

    keys: PublicKeys | None = None
    """The keys of the devices."""
    log: ServerLog | None = None
    """What the server that answered has written down."""
    outside: OutsideWitnesses = field(default_factory=OutsideWitnesses)
    """Who is trusted about times."""


class Witnesses:
    """Judges what devices and their servers say of draws.

    Args:
        rung: Takes the findings.
        evidence: What they say.
    """

    def __init__(self, rung: Rung, evidence: Evidence) -> None:
        self._rung = rung
        self._keys = evidence.keys
        self._log = None if evidence.log is None else ServerLogWitness(rung, evidence.log)
        self._messages = array("Q")
        """First 64 bits of the digests of the messages that are signed."""
        self._places = array("Q")
        self._redacted = 0

    @property
    def verified(self) -> int:
        """Number of signatures that are valid."""
        return len(self._messages)

    def redacted(self, place: int) -> None:
        """Takes note that the line at *place* lacks its commitment and its signature."""
        self._redacted = place

    def draw(self, line: Draw, place: int) -> None:
        """Judges the signature of a draw, and looks for it in the log of the server."""
        if place == self._redacted:
            self._rung.cannot_say("who delivered the bytes of redacted draws", place)
            return
        if self._log is not None:
            self._log.draw(line, place)
        if not line.signature:
            self._rung.cannot_say("who delivered the bytes of draws without a signature", place)
        elif self._keys is None:
            self._rung.cannot_say("whether signatures are valid: --keys names no public key", place)
        elif line.requests != 1:
            self._rung.cannot_say("signatures of draws that were split into requests", place)
        elif (message := signed_message(line)) is not None:
            valid = self._keys.verify(_signature(line), message)
            self._judge(valid, message, line, place)
        elif self._keys.by_devices:
            self._judge_digest(self._keys, line, place)
        else:
            self._rung.cannot_say(_INCOMPLETE, place)

    def _judge_digest(self, keys: PublicKeys, line: Draw, place: int) -> None:
        """Judges a signature that covers nothing but the bytes."""
        digest = bytes.fromhex(line.data_sha256)
        valid = keys.verify_digest(_signature(line), digest)
        if valid or not keys.by_servers:
            self._judge(valid, digest, line, place)
        else:
            # A server may have signed what the record does not have.
            self._rung.cannot_say(_INCOMPLETE, place)

    def _judge(self, valid: bool, message: bytes, line: Draw, place: int) -> None:
        if valid:
            self._messages.append(int.from_bytes(hashlib.sha256(message).digest()[:8], "big"))
            self._places.append(place)
        else:
            self._rung.fail(place, f"draw {line.draw}: no key given has signed it")

    def finish(self) -> None:
        """Says how many signatures are valid."""
        if self._log is not None:
            self._log.finish()
        if self.verified:
            self._rung.note(f"{self.verified:,} draws are signed by a key given")
            self._judge_copies()

    def _judge_copies(self) -> None:
        """Fails draws with a message that another has: a device signs every answer once."""
        messages = np.frombuffer(self._messages, dtype=np.uint64)
        order = np.argsort(messages, kind="stable")
        for index in np.flatnonzero(np.diff(messages[order]) == 0).tolist():
            first, second = (self._places[int(order[at])] for at in (index, index + 1))
            self._rung.fail(
                second, f"{self._rung.places.name(first)} has the same signed answer already"
            )


def _signature(line: Draw) -> bytes:
    try:
        return base64.b64decode(line.signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
