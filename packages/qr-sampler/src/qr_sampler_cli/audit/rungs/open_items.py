# SPDX-License-Identifier: Apache-2.0
"""What has to be remembered of a sequence until it ends, and of a draw until it is used up."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

from qr_sampler_cli.audit.blocks.stored import StoredDraw
from qr_sampler_cli.audit.schema.token_lines import Draw, Sequence

__all__ = ["OpenDraw", "OpenSequence", "UnsettledToken"]


class UnsettledToken(NamedTuple):
    """A token of which it is not known yet whether it was emitted."""

    token_id: int
    """The token."""
    link: bytes | None
    """The link that its row began with."""


class OpenSequence:
    """A sequence that has not ended.

    Args:
        name: Its name.
        line: Its line; ``None`` if that is lost.
        place: Where that stands.
        part: Number of the part of the ledger that it stands in.
    """

    __slots__ = (
        "amplifier",
        "draw",
        "earlier_link",
        "emitted",
        "first",
        "fixed_temperature",
        "ids",
        "link",
        "name",
        "next",
        "part",
        "place",
        "received_ns",
        "request_key",
        "source",
        "sure",
        "told",
        "top_k",
        "unsettled",
    )

    def __init__(self, name: str, line: Sequence | None, place: int, part: int) -> None:
        options: dict[str, Any] = {} if line is None else line.options
        self.name = name
        self.place = place
        self.part = part
        self.request_key = "" if line is None else line.request_key
        self.source = _scalar(options.get("source"))
        self.amplifier = _scalar(options.get("signal_amplifier_type"))
        self.top_k = _scalar(options.get("top_k"))
        self.fixed_temperature = (
            _scalar(options.get("fixed_temperature"))
            if options.get("temperature_strategy") == "fixed"
            else None
        )
        self.first = -1
        """Position of its first token; -1 before that."""
        self.next = 0
        """Position that its next token takes."""
        self.sure = 0
        """Position after its last token that was certainly emitted."""
        self.emitted = 0
        """Number of tokens that were certainly emitted."""
        self.unsettled: dict[int, UnsettledToken] = {}
        self.draw = -1
        """Number of the draw that decided its latest token."""
        self.received_ns = 0
        """When that draw was complete."""
        self.told = -1
        """Number of the draw whose request told of its latest row, if any did."""
        self.link: bytes | None = b""
        """What ties its next row to its latest token; ``None`` if that is not here."""
        self.earlier_link: bytes | None = b""
        """The link that the rows began with of which the latest request told."""
        self.ids: array[int] | None = None
        """Its tokens, if they are to be compared with those that a client has received."""


class OpenDraw:
    """A draw whose bytes are not all accounted for.

    Args:
        line: Its line.
        place: Where that stands.
        part: Number of the part of the ledger that it stands in.
    """

    __slots__ = (
        "bytes",
        "commitment",
        "digests",
        "fallback",
        "left",
        "number",
        "part",
        "place",
        "rows",
        "source",
        "spans",
        "stored",
        "t_logits_ns",
        "t_received_ns",
        "t_request_ns",
        "undigested",
    )

    def __init__(self, line: Draw, place: int, part: int) -> None:
        self.number = line.draw
        self.bytes = line.bytes
        self.source = line.source
        self.fallback = line.fallback
        self.commitment = line.commitment
        self.t_logits_ns = line.t_logits_ns
        self.t_request_ns = line.t_request_ns
        self.t_received_ns = line.t_received_ns
        self.place = place
        self.part = part
        self.left = line.bytes
        """Bytes that no line has accounted for yet."""
        self.spans: list[tuple[int, int, int]] = []
        """Offset, length and place of every part that a line has accounted for."""
        self.stored: StoredDraw | None = None
        """Its bytes, if they are there."""
        self.digests: list[bytes] = []
        """Digests of the rows that it has decided."""
        self.rows = frozenset(map(bytes.fromhex, line.rows))
        """Digests of the rows that its request told of, if its own line says so."""
        self.undigested = False
        """Whether a row of it has no digest."""


def _scalar(value: Any) -> Any:
    """Returns *value* unless it is a list or an object, which no such option is."""
    return None if isinstance(value, list | dict) else value
