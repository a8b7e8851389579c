# SPDX-License-Identifier: Apache-2.0
"""Rung 4, uniforms: where several numbers decide a token, what each is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.schema.token_lines import Token

__all__ = ["judge_numbers"]

_NUMBER_BYTES: Final = 8
_SPARE_BITS: Final = 11
_ULP: Final = 2.0**-53


def judge_numbers(rung: Rung, line: Token, blocks: Sequence[bytes | None], place: int) -> None:
    """Judges the numbers of a token, its sum and its ones by their bytes.

    Args:
        rung: Takes the findings.
        line: The line of the token.
        blocks: The bytes of each of its ``uniforms``; ``None`` where they are not there.
        place: Where the line stands.
    """
    there = [block for block in blocks if block is not None]
    if len(there) < len(blocks) or not all(map(_holds_numbers, there)):
        rung.cannot_say("u of tokens that several numbers decide", place)
        return
    data = b"".join(there)
    for name, recorded, counted in (
        ("block_sum", line.block_sum, sum(data)),
        ("block_ones", line.block_ones, int.from_bytes(data, "big").bit_count()),
    ):
        if recorded != counted:
            rung.fail(place, f"{name} is {recorded} and that of its bytes is {counted}")
    for used, block in zip(line.uniforms or (), there, strict=True):
        # Of the numbers that drew one draft, the first.
        made = (int.from_bytes(block[:_NUMBER_BYTES], "little") >> _SPARE_BITS) * _ULP
        if used.u != made:
            rung.fail(
                place, f"u of its {used.role[:20]!r} is {used.u!r}, and its bytes are {made!r}"
            )


def _holds_numbers(block: bytes) -> bool:
    return bool(block) and not len(block) % _NUMBER_BYTES
