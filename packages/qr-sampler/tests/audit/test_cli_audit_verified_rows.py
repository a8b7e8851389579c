# SPDX-License-Identifier: Apache-2.0
"""Draws that tell themselves of the rows which their requests told of, as verified drafts have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

Fields = dict[str, Any]


def commitment_of(rows: list[bytes]) -> str:
    return hashlib.sha256(b"qr-sampler step 1\n" + b"".join(sorted(rows))).hexdigest()


class Verified:
    """A step with one accepted draft, the token after it, and a row that decides nothing.

    Args:
        made: The run, empty so far.
    """

    def __init__(self, made: Any) -> None:
        self.made = made
        row = made.begin("drafted")
        made.step([row], discarded=False)
        before, blocks = row.link, [bytes(range(8)), bytes(range(8, 16))]
        self.accepted, first = made._decided(row, "token", blocks[0], 0)
        # The request told of both rows, before either token was there.
        row.link, made.draws = before, 2
        self.last, second = made._decided(row, "token", blocks[1], 0)
        rows = [first, second, b"\7" * 32]
        made.draws = 1
        made.now += 5_000_000
        made._draw(blocks[0], [])
        made.lines[-1] |= {"commitment": "", "echo_verified": None}
        made.now += 5_000_000
        made._draw(blocks[1] + bytes(16), rows)
        self.told = made.lines[-1]
        self.told["rows"] = [each.hex() for each in rows]
        self.accepted["row_draw"] = 2
        made.lines += [self.accepted, self.last]
        unused = {"sequence": "drafted", "position": row.position, "reason": "not_needed"}
        made.add(
            "discard",
            **unused,
            draw=2,
            offset=8,
            block_bytes=16,
            source="device",
            u=None,
            wall_time_ns=made.wall,
        )
        made.step([row], discarded=False)
        self.row = row

    def whole(self) -> list[Fields]:
        self.made.end(self.row)
        self.made.lines.append(self.made._clock())
        self.made.close()
        lines: list[Fields] = self.made.lines
        return lines


def test_a_commitment_of_told_rows_is_recomputed(run: Any, save: Any, audit: Any) -> None:
    rungs = audit(save(Verified(run()).whole()))
    assert [rungs[number].failures for number in (1, 2, 3, 4)] == [[]] * 4
    assert rungs[4].status == "holds"


def more_rows(verified: Verified) -> None:
    rows = [*verified.told["rows"], "ab" * 32]
    verified.told |= {"rows": rows, "commitment": commitment_of([*map(bytes.fromhex, rows)])}


def fewer_rows(verified: Verified) -> None:
    rows = verified.told["rows"][1:]
    verified.told |= {"rows": rows, "commitment": commitment_of([*map(bytes.fromhex, rows)])}


def another_row(verified: Verified) -> None:
    verified.told["rows"][2] = "cd" * 32


def no_commitment(verified: Verified) -> None:
    verified.told |= {"commitment": "", "echo_verified": None}


def another_temperature(verified: Verified) -> None:
    verified.accepted["entropy_nats"] += 0.5


def no_digest(verified: Verified) -> None:
    del verified.last["row_digest"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (more_rows, "draw 2 has more rows than numbers"),
        (fewer_rows, "draw 2 was not told of its row"),
        (another_row, "the commitment of draw 2 is not that of its rows"),
        (no_commitment, "the commitment of draw 2 is not that of its rows"),
        (another_temperature, "row_digest is not that of"),
        (no_digest, "its draw has a commitment and the token no row_digest"),
    ],
)
def test_what_contradicts_it_is_exposed(
    run: Any, save: Any, audit: Any, change: Callable[[Verified], None], fault: str
) -> None:
    verified = Verified(run())
    change(verified)
    failures = audit(save(verified.whole()))[4].failures
    assert any(fault in failure.what for failure in failures), failures


def test_a_row_whose_draw_is_nowhere_cannot_be_judged(run: Any, save: Any, audit: Any) -> None:
    verified = Verified(run())
    verified.accepted["row_draw"] = 77
    rungs = audit(save(verified.whole()))
    assert not any("row" in failure.what for failure in rungs[2].failures)
    assert "row digests of tokens whose draws are not here" in " ".join(rungs[4].unsaid)


def test_a_draw_that_is_used_up_may_be_told_of_again(run: Any, save: Any, audit: Any) -> None:
    """A file that refers to it says what it refers to."""
    verified = Verified(run())
    verified.made.lines.append(dict(verified.told))
    rungs = audit(save(verified.whole()))
    assert [rungs[number].failures for number in (1, 2, 4)] == [[]] * 3
    other = Verified(run())
    other.made.lines.append({**other.told, "rows": []})
    failures = audit(save(other.whole()))[2].failures
    assert [failure.what for failure in failures] == ["draw 2 is there already"]
