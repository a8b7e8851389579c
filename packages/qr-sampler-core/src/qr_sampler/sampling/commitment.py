# SPDX-License-Identifier: Apache-2.0
"""What a source is told, as a digest, about the tokens that its bytes are going to decide.

A digest fixes a choice before the bytes exist, and can be computed again from the records alone.
It binds whoever received it; the holder of the records can compute one for any tokens, so it
convinces others only where the source has kept or signed it. All digests are SHA-256 (FIPS 180-4).

The distribution enters by its temperature and by its entropy and varentropy at temperature 1, each
as the eight bytes of a double. They follow from all of the logits, and unlike these are in the
records; a digest of the logits would cost another pass over the vocabulary, and nobody could
recompute it without the model.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from qr_sampler.entropy.row_context import RowContext

__all__ = ["RowContext", "link_digest", "row_digest", "step_commitment"]

_ROW: Final = b"qr-sampler row 1\n"
_LINK: Final = b"qr-sampler link 1\n"
_STEP: Final = b"qr-sampler step 1\n"


def row_digest(
    context: RowContext, *, temperature: float, entropy_nats: float, varentropy_nats2: float
) -> bytes:
    """Returns the digest of one row, 32 bytes.

    It covers, one after the other: a name, the names of run and sequence in UTF-8 with their
    lengths as four bytes in front, the position as eight bytes, the previous digest with its length
    as one byte, and the three numbers as doubles; all big-endian.

    Args:
        context: Which token it is.
        temperature: Temperature that it will be drawn at.
        entropy_nats: Shannon entropy of the row at temperature 1.
        varentropy_nats2: Varentropy of the row at temperature 1.
    """
    run_id, sequence = context.run_id.encode(), context.sequence.encode()
    previous = context.previous
    return _digest(
        _ROW,
        struct.pack(">I", len(run_id)),
        run_id,
        struct.pack(">I", len(sequence)),
        sequence,
        struct.pack(">qB", context.position, len(previous)),
        previous,
        struct.pack(">3d", temperature, entropy_nats, varentropy_nats2),
    )


def link_digest(row: bytes, token_id: int, u: float) -> bytes:
    """Returns what ties the next row of a sequence to this one, 32 bytes.

    It covers a name, the digest of the row, the token as eight bytes and u as a double, big-endian.

    Args:
        row: :func:`row_digest` of the token.
        token_id: The token that was chosen.
        u: The number that chose it.
    """
    return _digest(_LINK, row, struct.pack(">qd", token_id, u))


def step_commitment(rows: Iterable[bytes]) -> bytes:
    """Returns the digest of all rows that one draw decides, 32 bytes, in whatever order they come.

    Args:
        rows: :func:`row_digest` of each.
    """
    return _digest(_STEP, *sorted(rows))


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
