# SPDX-License-Identifier: Apache-2.0
"""Ledgers made from the specification, and not by the writer that they are compared with."""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of

Fields = dict[str, Any]
"""A line without ``n`` and ``prev``, its kind first."""

RUN_ID = "0123456789abcdef0123456789abcdef"
PID = 4242
FILE_NAME = f"20261130T120000Z-dp0-{PID}-{RUN_ID[:8]}.jsonl"
WALL_NS = 1_796_000_000_000_000_000
MONOTONIC_NS = 5_000_000_000_000
NO_LINE = "0" * 64
ROUND_1000 = {
    "chain": "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    "round": 1000,
    "signature": (
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125"
        "e342b73a8dd2bacbe47e4b6b63ed5e39"
    ),
}
"""What https://api.drand.sh/52db9ba7…/public/1000 answers."""


def encoded(line: Fields, n: int, prev: str) -> bytes:
    """Returns the bytes of a line, without its newline."""
    kind, *rest = line.items()
    told = dict([kind, ("n", n), ("prev", prev), *rest])
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def chained(lines: Iterable[Fields], first: str = NO_LINE) -> list[bytes]:
    """Returns lines that follow each other; the close gets its head and its totals."""
    told: list[bytes] = []
    totals: Counter[str] = Counter()
    prev = first
    for n, line in enumerate(lines):
        made = line
        if line["kind"] == "close" and isinstance(line["totals"], dict):
            made = {**line, "head": prev, "totals": {**totals, **line["totals"]}}
        told.append(encoded(made, n, prev))
        prev = hashlib.sha256(told[-1]).hexdigest()
        totals[line["kind"]] += 1
    return told


def digest_of_row(
    run_id: str, sequence: str, position: int, previous: bytes, numbers: tuple[float, ...]
) -> bytes:
    """Returns what the specification calls the digest of a row."""
    run, name = run_id.encode(), sequence.encode()
    return hashlib.sha256(
        b"qr-sampler row 1\n"
        + len(run).to_bytes(4, "big")
        + run
        + len(name).to_bytes(4, "big")
        + name
        + position.to_bytes(8, "big")
        + bytes([len(previous)])
        + previous
        + struct.pack(">ddd", *numbers)
    ).digest()


@dataclass
class Row:
    """A sequence while it is being written."""

    name: str
    position: int = 0
    link: bytes = b""
    tokens: list[int] = field(default_factory=list)


class Run:
    """Writes the lines of a run that does everything which an honest one may do.

    Args:
        seed: Of what happens in it.
        committed: Whether the source takes commitments.
        amplifier: ``zscore_mean`` or ``bit_zscore``.
    """

    def __init__(
        self, seed: int = 0, *, committed: bool = True, amplifier: str = "zscore_mean"
    ) -> None:
        self.random = random.Random(seed)
        self.committed = committed
        self.amplifier = amplifier
        self.now = MONOTONIC_NS
        self.draws = 0
        self.data: list[bytes] = []
        """What every draw has brought."""
        self.lines: list[Fields] = [self._genesis(), self._clock()]
        self.received: list[Fields] = []

    def of_every_kind(self) -> list[Fields]:
        """Returns the lines of a run that has lines of all kinds, an unknown one among them."""
        self.add("model", name="none", manifest_sha256=NO_LINE, files=[])
        self.add("anchor", **ROUND_1000, wall_time_ns=self.wall)
        self.add("weather", degrees=21)
        row = self.begin("refused")
        self.unchosen(row, "forced")
        self.end(row, "forced")
        row = self.begin("wasteful")
        self.step([row], discarded=True)
        self.end(row, "departed")
        self.gap({"clock": 2})
        return self.whole(sequences=2, steps=3, lost=2)

    def whole(self, *, sequences: int = 4, steps: int = 8, lost: int = 0) -> list[Fields]:
        """Returns the lines of a run with some sequences and steps, and a clean end."""
        rows = [self.begin(f"sequence-{index}") for index in range(sequences)]
        for _ in range(steps):
            self.step(self.random.sample(rows, self.random.randint(1, len(rows))))
        self.unchosen(rows[0], "undecided")
        self.unsettled(rows[-1])
        for row in rows:
            self.end(row)
        self.lines.append(self._clock())
        self.add("bypass", request_key=None, wall_time_ns=self.wall, trial=None, condition=None)
        self.close(lost=lost)
        return self.lines

    @property
    def wall(self) -> int:
        return WALL_NS + self.now - MONOTONIC_NS

    def add(self, kind: str, **fields: Any) -> None:
        self.lines.append({"kind": kind, **fields})

    def begin(self, name: str, **options: Any) -> Row:
        """Begins a sequence."""
        self.add(
            "sequence",
            sequence=name,
            request_key=f"request of {name}",
            trial=None,
            condition="HI",
            prompt_tokens=7,
            prompt_digest="",
            options={
                "source": "device",
                "sample_count": 16,
                "signal_amplifier_type": self.amplifier,
                "temperature_strategy": "fixed",
                "fixed_temperature": 0.75,
                "top_k": 40,
                **options,
            },
            fields={},
            stop={
                "token_ids": [2],
                "max_tokens": 64,
                "max_length": None,
                "min_tokens": 0,
                "stop_strings": False,
            },
            wall_time_ns=self.wall,
        )
        return Row(name)

    def step(self, rows: list[Row], *, discarded: bool | None = None) -> None:
        """Decides one token for each of *rows*; sometimes one more row that comes to nothing."""
        self.now += 5_000_000
        wasted = self.random.random() < 0.3 if discarded is None else discarded
        kinds = ["token"] * len(rows) + ["discard"] * wasted
        blocks = [self.random.randbytes(self.random.choice((8, 16, 24))) for _ in kinds]
        offset, made = 0, []
        for row, kind, block in zip([*rows, *rows[:1]], kinds, blocks, strict=False):
            made.append(self._decided(row, kind, block, offset))
            offset += len(block)
        self._draw(b"".join(blocks), [digest for _, digest in made])
        self.random.shuffle(made)
        self.lines += [line for line, _ in made]

    def _decided(self, row: Row, kind: str, block: bytes, offset: int) -> tuple[Fields, bytes]:
        entropy, varentropy = self.random.uniform(0.1, 9.0), self.random.uniform(0.1, 4.0)
        position = row.position + (kind == "discard")
        digest = digest_of_row(RUN_ID, row.name, position, row.link, (0.75, entropy, varentropy))
        shown = digest.hex() if self.committed else ""
        total, ones, size = sum(block), sum(b.bit_count() for b in block), len(block)
        if self.amplifier == "zscore_mean":
            deviation = math.sqrt((256**2 - 1) / 12) * math.sqrt(size)
            z = (total - 127.5 * size) / deviation
        else:
            deviation = math.sqrt(2 * size)
            z = (ones - 4 * size) / deviation
        u = 0.5 * math.erfc(-z / math.sqrt(2.0))
        place = {"sequence": row.name, "position": position}
        drawn = {"draw": self.draws, "offset": offset, "block_bytes": size}
        if kind == "discard":
            told = {"kind": kind, **place, "reason": "after_stop", "source": "device", "u": u}
            more = {"row_digest": shown, "wall_time_ns": self.wall}
            return {**told, **drawn, **more}, digest
        token_id = self.random.randrange(50_000)
        self._advance(row, token_id, digest, u)
        return {
            "kind": kind,
            **place,
            "token_id": token_id,
            **drawn,
            "block_sum": total,
            "block_ones": ones,
            "u": u,
            "statistic": z,
            "lattice_step": math.erf(1.0 / deviation / math.sqrt(8.0)),
            "temperature": 0.75,
            "entropy_nats": entropy,
            "varentropy_nats2": varentropy,
            "rank": 1,
            "probability": 0.25,
            "candidates": 30,
            **({"row_digest": shown} if self.committed else {}),
        }, digest

    def _advance(self, row: Row, token_id: int, digest: bytes, u: float) -> None:
        row.position += 1
        row.tokens.append(token_id)
        if self.committed:
            row.link = hashlib.sha256(
                b"qr-sampler link 1\n" + digest + token_id.to_bytes(8, "big") + struct.pack(">d", u)
            ).digest()

    def _draw(self, data: bytes, digests: list[bytes]) -> None:
        step = hashlib.sha256(b"qr-sampler step 1\n" + b"".join(sorted(digests))).hexdigest()
        self.add(
            "draw",
            draw=self.draws,
            source="device",
            source_distribution="qr-entropy-device",
            source_version="1.0",
            fallback=False,
            fallback_reason="",
            bytes=len(data),
            requests=1,
            data_sha256=hashlib.sha256(data).hexdigest(),
            device_id="QRNG 7",
            device_timestamp_ns=self.now + 2_000_000 - MONOTONIC_NS,
            commitment=step if self.committed else "",
            echo_verified=True if self.committed else None,
            signature="",
            signature_verified=None,
            t_logits_ns=self.now,
            t_request_ns=self.now + 1_000_000,
            t_received_ns=self.now + 3_000_000,
            wall_time_ns=self.wall + 3_000_000,
        )
        self.draws += 1
        self.data.append(data)

    def unchosen(self, row: Row, kind: str) -> None:
        """Gives *row* a token that no entropy decided."""
        more = {"source": "device"} if kind == "forced" else {}
        self.add(
            kind,
            sequence=row.name,
            position=row.position,
            token_id=2,
            reason="masked",
            **more,
            wall_time_ns=self.wall,
        )
        row.position += 1
        row.tokens.append(2)

    def unsettled(self, row: Row) -> None:
        """Gives *row* a token of which only later shows that it was not emitted, and another."""
        before = row.link
        self.step([row], discarded=False)
        line = self.lines[-1]
        line["emitted"] = None
        row.position, row.link = row.position - 1, before
        row.tokens.pop()
        self.add(
            "emission",
            sequence=row.name,
            position=row.position,
            token_id=line["token_id"],
            emitted=False,
            reason="dropped_on_resumption",
            wall_time_ns=self.wall,
        )
        self.step([row], discarded=False)

    def end(self, row: Row, reason: str = "stop") -> None:
        """Ends a sequence."""
        self.add(
            "end",
            sequence=row.name,
            tokens=row.position,
            reason=reason,
            link=row.link.hex(),
            wall_time_ns=self.wall,
        )
        self.received.append(
            {"request_key": f"request of {row.name}", "token_ids": list(row.tokens)}
        )

    def gap(self, missing: dict[str, int], *, torn_bytes: int = 0) -> None:
        """Says that lines are missing."""
        self.add(
            "gap",
            reason="refused",
            missing=missing,
            since_wall_ns=self.wall,
            torn_bytes=torn_bytes,
            wall_time_ns=self.wall,
        )

    def close(self, *, lost: int = 0, continued_in: str | None = None) -> None:
        """Ends the file; :func:`chained` fills in what it counts."""
        self.add(
            "close",
            totals={},
            lost=lost,
            head=NO_LINE,
            wall_time_ns=self.wall,
            continued_in=continued_in,
        )

    def _clock(self) -> Fields:
        return {
            "kind": "clock",
            "monotonic_ns": self.now,
            "boottime_ns": self.now + 9,
            "wall_time_ns": self.wall,
            "synchronized": True,
        }

    def _genesis(self) -> Fields:
        return {
            "kind": "genesis",
            "run_id": RUN_ID,
            "engine": "specification 2",
            "model": "none",
            "versions": {"qr-sampler-core": "1.0"},
            "settings": {"sample_count": 16},
            "pid": PID,
            "monotonic_ns": self.now,
            "wall_time_ns": self.wall,
            "schema_version": 2,
            "sources": [
                {
                    "name": "device",
                    "distribution": "qr-entropy-device",
                    "version": "1.0",
                    "jit_class": "A",
                    "conditioning": "none",
                    "limits": {},
                    "settings": {},
                }
            ],
            "host": {},
            "files": {"qr-sampler-core": NO_LINE},
            "boot_id": "boot",
            "continues": None,
            "seal": None,
            "public_key": None,
        }


def audited(*paths: Path) -> dict[int, Any]:
    """Returns the rungs of the only run in *paths*, by number."""
    (result,) = audit_runs(ledgers_of(paths))
    return {rung.number: rung for rung in result.rungs}


@pytest.fixture
def audit() -> Callable[..., dict[int, Any]]:
    """Audits files of one run."""
    return audited


@pytest.fixture
def audited_head() -> Callable[[Path], str]:
    """Audits a file and returns its head."""
    return lambda path: audit_runs(ledgers_of([path]))[0].head


@pytest.fixture
def run() -> type[Run]:
    """Makes the lines of runs."""
    return Run


@pytest.fixture
def chain() -> Callable[..., list[bytes]]:
    """Ties lines together."""
    return chained


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines, as bytes or as fields that are first tied together, to a file."""

    def written(lines: list[bytes] | list[Fields], name: str = FILE_NAME) -> Path:
        told = [line for line in lines if isinstance(line, bytes)]
        told = told or chained(line for line in lines if isinstance(line, dict))
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in told))
        return path

    return written
