# SPDX-License-Identifier: Apache-2.0
"""Whatever a host does to its sequences, the ledger holds what it has emitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import EmittedText, ToyHost, check_ledger, play_script


class SeededSource(EntropySource):
    """Hands out the bytes of a generator; now and then it has none.

    Args:
        seed: Of the bytes and of the failures.
        fails: Share of the requests that fail.
    """

    name = "device"
    blocks = False

    def __init__(self, seed: int, fails: float = 0.0) -> None:
        self._script = Random(seed)
        self._fails = fails
        self.drawn = 0
        self.commits = bool(seed % 2)

    def get_random_bytes(self, n: int) -> bytes:
        if self._script.random() < self._fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        self.drawn += n
        return self._script.randbytes(n)


def session_of(source: EntropySource, tmp_path: Path, **settings: Any) -> SamplingSession:
    return SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(
            entropy_source_type="device",
            fallback_mode="end_request",
            sample_count=16,
            ledger_dir=tmp_path,
            **settings,
        ),
        sources={"device": source},
    )


def lines_of(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("*.jsonl")
    return list(read_ledger(file))


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("fails", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(6))
def test_the_ledger_of_any_script_is_what_was_emitted(
    seed: int, fails: float, overlapping: bool, tmp_path: Path
) -> None:
    source = SeededSource(seed, fails)
    session = session_of(source, tmp_path)
    host = ToyHost(session, seed=seed, overlapping=overlapping)
    play_script(host, seed=seed)
    session.close()
    lines = lines_of(tmp_path)
    texts = [request.text() for request in host.requests if request.sequence is not None]
    check_ledger(lines, texts, bytes_drawn=source.drawn)
    assert sum(len(text.tokens) for text in texts) > 100


def test_scripts_reach_what_can_happen_to_a_token(tmp_path: Path) -> None:
    """Or else the property above would say little."""
    found: Counter[tuple[Any, ...]] = Counter()
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        session = session_of(SeededSource(seed, 0.05), folder)
        host = ToyHost(session, seed=seed, overlapping=bool(seed % 2))
        play_script(host, seed=seed)
        session.close()
        found.update(
            (line["kind"], line.get("emitted"), line.get("reason") if "u" in line else None)
            for line in lines_of(folder)
        )
        assert any(request.first for request in host.requests)
    for outcome in [
        ("token", True, None),
        ("token", None, None),
        ("forced", True, None),
        ("emission", True, None),
        ("emission", False, None),
        ("bypass", None, None),
        ("discard", None, "not_emitted"),
        ("discard", None, "after_stop"),
    ]:
        assert found[outcome], outcome


@pytest.fixture
def ledger(tmp_path: Path) -> tuple[list[dict[str, Any]], list[EmittedText], int]:
    source = SeededSource(1)
    session = session_of(source, tmp_path)
    host = ToyHost(session, seed=1, overlapping=True)
    play_script(host, seed=1, steps=40)
    session.close()
    return lines_of(tmp_path), [one.text() for one in host.requests if one.sequence], source.drawn


def first(lines: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == kind)


def first_token(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "token" and line["emitted"])


DAMAGE: dict[str, tuple[Callable[[list[dict[str, Any]]], None], str]] = {
    "a record too few": (lambda lines: lines.remove(first_token(lines)), "positions|records"),
    "a record too many": (lambda lines: lines.append(dict(first_token(lines))), "positions"),
    "another token": (lambda lines: first_token(lines).update(token_id=99), "recorded"),
    "another label": (lambda lines: first_token(lines).update(trial="another"), "another"),
    "a draw before the logits": (lambda lines: first_token(lines).update(t_request_ns=0), "times"),
    "bytes of nobody": (lambda lines: first_token(lines).update(block_bytes=7), "bytes"),
    "bytes that are nowhere": (lambda lines: first_token(lines).update(offset=7), "block"),
    "a draw of which nothing is told": (lambda lines: lines.remove(first(lines, "draw")), "tells"),
    "an end too many": (lambda lines: lines.append(first(lines, "end")), "two ends"),
    "an end of too few": (lambda lines: first(lines, "end").update(tokens=99), "an end of 99"),
    "a token after the end": (
        lambda lines: lines.insert(0, {**first(lines, "end")}),
        "after its end",
    ),
    "a sequence of nobody": (lambda lines: first_token(lines).update(sequence="x"), "."),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_ledger_that_is_wrong_is_refused(
    damage: str, ledger: tuple[list[dict[str, Any]], list[EmittedText], int]
) -> None:
    lines, texts, drawn = ledger
    check_ledger(lines, texts, bytes_drawn=drawn)
    change, message = DAMAGE[damage]
    change(lines)
    with pytest.raises(AssertionError, match=message):
        check_ledger(lines, texts, bytes_drawn=drawn)
