# SPDX-License-Identifier: Apache-2.0
"""The table of tokens: what was chosen, by which number, from which source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from qr_sampler_cli.generation.ledger_reader import TokenLine
from qr_sampler_cli.terminal.consoles import printable

__all__ = ["token_table"]

FALLBACK_STYLE: Final = "bold yellow"

_COLUMNS: Final = (
    ("#", "right"),
    ("token", "left"),
    ("id", "right"),
    ("u", "right"),
    ("rank", "right"),
    ("prob.", "right"),
    ("temp.", "right"),
    ("nats", "right"),
    ("source", "left"),
    ("fallback", "left"),
)
_FOLDED: Final = ("token", "source")
"""Columns that wrap to another line in a narrow window, so that no number is cut."""


def token_table(
    token_ids: Sequence[int],
    token_texts: Sequence[str],
    records: Sequence[TokenLine],
    *,
    without_entropy: Mapping[int, str],
    fancy: bool,
) -> Table:
    """Returns a table with one row per emitted token; "nats" is the entropy of its row of logits.

    Rows that the configured source did not decide stand out.

    Args:
        token_ids: The emitted tokens, in order.
        token_texts: The text of each.
        records: Records of the request, in any order; a token without one gets an empty row, and of
            several for one token the last is shown.
        without_entropy: Positions of tokens that no entropy decided, each with the kind of its
            record.
        fancy: Draw lines; leave them out where output is not a terminal.
    """
    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, justify in _COLUMNS:
        table.add_column(
            heading,
            justify=justify,  # type: ignore[arg-type]
            no_wrap=heading not in _FOLDED,
            overflow="fold",
        )
    by_position = {record.position: record for record in records}
    for position, (token_id, text) in enumerate(zip(token_ids, token_texts, strict=True)):
        record = by_position.get(position)
        cells = [
            str(position),
            repr(text),
            str(token_id),
            *_decision(record, without_entropy.get(position, "").upper() or "no record"),
        ]
        marked = position in without_entropy or (record is not None and record.fallback)
        style = FALLBACK_STYLE if marked else ""
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
    return table


def _decision(record: TokenLine | None, otherwise: str) -> tuple[str, ...]:
    if record is None:
        return (otherwise, "", "", "", "", "", "")
    return (
        f"{record.u:.6f}",
        str(record.rank),
        f"{record.probability:.3g}",
        f"{record.temperature:.4g}",
        f"{record.entropy_nats:.3f}",
        record.source or "unknown",
        "unknown" if record.fallback is None else "FALLBACK" if record.fallback else "no",
    )
