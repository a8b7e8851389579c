# SPDX-License-Identifier: Apache-2.0
"""Rung 4, digests: what a source was told of the tokens that its bytes were going to decide."""

from __future__ import annotations

from typing import Final

from qr_sampler import RowContext, link_digest, row_digest, step_commitment
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.redacted import REDACTED_ID
from qr_sampler_cli.audit.rungs.open_items import OpenDraw, OpenSequence
from qr_sampler_cli.audit.schema.token_lines import Discard, Draw, End, Token

__all__ = ["Commitments"]

LEAST_BLOCK_BYTES: Final = 8
"""Least number of bytes for each row that a request tells of, where drafts are verified."""

MOST_DRAWS: Final = 4096
"""Number of latest draws whose rows are remembered."""


class Commitments:
    """Recomputes digests of rows, links between tokens, and commitments of draws.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self.run_id = ""
        """Name of the run."""
        self.recomputed = 0
        """Number of commitments that were recomputed."""
        self._rows: dict[int, frozenset[bytes]] = {}
        """By draw, the digests of rows that its own line tells of."""

    def draw(self, draw: OpenDraw) -> None:
        """Judges the commitment of a draw whose own line tells of its rows."""
        if not draw.rows:
            return
        self._rows[draw.number] = draw.rows
        if len(self._rows) > MOST_DRAWS:
            del self._rows[next(iter(self._rows))]
        self.recomputed += 1
        if len(draw.rows) * LEAST_BLOCK_BYTES > draw.bytes:
            self._rung.fail(draw.place, f"draw {draw.number} has more rows than numbers")
        if step_commitment(draw.rows).hex() != draw.commitment:
            self._rung.fail(
                draw.place, f"the commitment of draw {draw.number} is not that of its rows"
            )

    def tells_again(self, line: Draw) -> bool:
        """Whether the line of a draw that is used up tells again of the rows that it told of."""
        rows = self._rows.get(line.draw)
        return rows is not None and rows == frozenset(map(bytes.fromhex, line.rows))

    def token(self, sequence: OpenSequence, draw: OpenDraw | None, line: Token, place: int) -> None:
        """Judges the digest of a token's row, and goes on to the next link."""
        sequence.draw = -1 if draw is None else draw.number
        told = sequence.draw if line.row_draw is None else line.row_draw
        if told != sequence.told or told < 0:
            sequence.earlier_link = sequence.link
        sequence.told = told
        if line.token_id == REDACTED_ID:
            sequence.link = None
            if draw is not None:
                draw.undigested = True
            return
        if not line.row_digest:
            sequence.link = b""
            if draw is not None:
                draw.undigested = True
                if draw.commitment:
                    self._rung.fail(place, "its draw has a commitment and the token no row_digest")
            return
        recorded = bytes.fromhex(line.row_digest)
        self._file(recorded, draw, line, place)
        sequence.link = link_digest(recorded, line.token_id, line.u)
        if sequence.earlier_link is None:
            self._rung.cannot_say(
                "row digests of tokens that follow tokens which are not here", place
            )
            return
        computed = row_digest(
            RowContext(self.run_id, sequence.name, line.position, sequence.earlier_link),
            temperature=line.temperature,
            entropy_nats=line.entropy_nats,
            varentropy_nats2=line.varentropy_nats2,
        )
        if computed != recorded:
            self._rung.fail(
                place,
                "row_digest is not that of its run, sequence, position, temperature, entropy, "
                "varentropy and the tokens before it",
            )

    def _file(self, digest: bytes, draw: OpenDraw | None, line: Token, place: int) -> None:
        """Takes in the digest of a token's row, or looks for it in what a draw tells itself."""
        number = line.row_draw
        if number is None and draw is not None:
            if not draw.rows:
                draw.digests.append(digest)
                return
            number = draw.number
        rows = None if number is None else self._rows.get(number)
        if rows is None:
            self._rung.cannot_say("row digests of tokens whose draws are not here", place)
        elif digest not in rows:
            self._rung.fail(place, f"draw {number} was not told of its row")

    def redacted(self, place: int) -> None:
        """Takes note of a line that lacks the digests of tokens."""
        self._rung.cannot_say("row digests, links and commitments of redacted lines", place)

    def discard(self, draw: OpenDraw, line: Discard) -> None:
        """Takes in the digest of a row that decided no emitted token."""
        if draw.rows:
            return
        if line.row_digest:
            draw.digests.append(bytes.fromhex(line.row_digest))
        else:
            draw.undigested = True

    def used_up(self, draw: OpenDraw) -> None:
        """Judges the commitment of a draw whose rows are all known."""
        commitment = draw.commitment
        if draw.rows:
            # Judged when it began.
            return
        if not commitment:
            if draw.digests:
                self._rung.fail(
                    draw.place, f"draw {draw.number} has digests of rows, but no commitment"
                )
            return
        if draw.undigested:
            # Said of the token already; of discards it cannot be told.
            self._rung.cannot_say("commitments of draws that lack the digest of a row", draw.place)
            return
        self.recomputed += 1
        if step_commitment(draw.digests).hex() != commitment:
            self._rung.fail(
                draw.place,
                f"the commitment of draw {draw.number} is not that of the {len(draw.digests)} rows "
                "which it has decided",
            )

    def end(self, sequence: OpenSequence, line: End, place: int) -> None:
        """Judges the last link of a sequence."""
        if sequence.link is not None and line.link == sequence.link.hex():
            return
        if sequence.link is None or sequence.unsettled:
            self._rung.cannot_say("last links of sequences whose last tokens are not known", place)
        else:
            self._rung.fail(place, "link is not that of the last token of the sequence")
