# SPDX-License-Identifier: Apache-2.0
"""The order of a study: test vectors, another language, uniformity, and the plan made of it."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.blinding import StudyKey, aliases_of
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.order import WordStream, order_key, shuffled
from qr_sampler_lab.experiments.plan import PlannedSession, planned_sessions
from qr_sampler_lab.experiments.protocol import Protocol, parse_protocol

SEAL = "5e" * 32
RANDOMNESS = bytes(range(32))
KEY = StudyKey(alias_key=b"a" * 32, order_secret=b"o" * 32)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "experiments.md"

TEXT = """
protocol: 1
name: three-arms
title: Three arms
kind: pilot
hypotheses: [They differ.]
model: {path: tiny}
arms:
  - {name: high, source: system, block_bytes: 1024, intention: HI}
  - {name: low, source: system, block_bytes: 1024, intention: LO, per_block: 2}
  - {name: idle, source: system, block_bytes: 1024}
prompts: [{file: a.txt}, {file: b.txt}, {file: c.txt}]
design: {blocks: 4, tokens_per_request: 20}
primary: {contrast: {high: 1, low: -1}, alpha: 0.05, smallest_effect: 0.1}
schedule:
  - {phase: calibration, arm: idle, at: before, requests: 2}
  - {phase: sham, arm: high, at: every_block, requests: 1}
  - {phase: calibration, arm: idle, at: after, requests: 3}
"""


def plan(text: str = TEXT) -> tuple[Protocol, dict[str, str], list[PlannedSession]]:
    """Returns a protocol, the arms of the aliases of its blocks, and its plan."""
    protocol = parse_protocol(text.encode())
    aliases = aliases_of(protocol, KEY.alias_key)
    arms = {alias: arm for (phase, arm), alias in aliases.items() if phase == "main"}
    return protocol, arms, planned_sessions(protocol, aliases, order_key(SEAL, RANDOMNESS))


def test_the_stream_is_hmac_of_a_counter() -> None:
    key = order_key(SEAL, RANDOMNESS)
    assert key == hashlib.sha256(b"qr-sampler order 1\n" + b"\x5e" * 32 + RANDOMNESS).digest()
    stream = WordStream(key, "block 0")
    digests = b"".join(
        hmac.new(key, b"block 0\n" + i.to_bytes(8, "big"), hashlib.sha256).digest()
        for i in range(3)
    )
    words = [int.from_bytes(digests[i : i + 8], "big") for i in range(0, len(digests), 8)]
    assert [stream.word() for _ in words] == words


def test_vectors() -> None:
    key = order_key(SEAL, RANDOMNESS)
    assert key.hex() == "861b2c751688240c821cb644341aeddb5f05c7e6e85c65bc3887d7a86ed56d0a"
    letters = [shuffled("abcdefgh", key, f"block {block}") for block in range(3)]
    assert ["".join(order) for order in letters] == ["dceabghf", "cbgdhefa", "ghdbfcae"]


def test_the_order_in_another_language() -> None:
    perl = shutil.which("perl")
    if perl is None:
        pytest.skip("there is no Perl")
    (program,) = re.findall(r"```perl\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    _, arms, sessions = plan()
    units = [alias for alias in sorted(arms) for _ in range(2 if arms[alias] == "low" else 1)]
    arguments = [SEAL, RANDOMNESS.hex(), "4", *units]
    found = subprocess.run(
        [perl, "-e", program, *arguments], capture_output=True, text=True, check=True
    )
    blocks = [
        " ".join(request.alias for request in session.requests)
        for session in sessions
        if session.phase == "main"
    ]
    assert found.stdout.splitlines() == blocks


def test_a_seal_and_randomness_have_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        order_key(SEAL, b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        order_key("5e", RANDOMNESS)


def test_words_beyond_the_last_multiple_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    words = iter([2**64 - 1, 2**64 - 2, 5])
    monkeypatch.setattr(WordStream, "word", lambda self: next(words))
    # 2**64 - 1 is a multiple of 3, so that the last word alone has no full round of remainders.
    assert WordStream(b"", "").below(3) == (2**64 - 2) % 3
    assert WordStream(b"", "").below(3) == 2


# Both tests have a fixed key, so that they give one p-value for ever; 1e-9 leaves them able to
# fail: the next test shows that they see a shuffle that is not uniform.
FALSE_ALARM = 1e-9


def p_of_permutations(orders: list[tuple[str, ...]]) -> float:
    """Returns the p-value of Pearson's test of equal counts of all permutations."""
    counts = Counter(orders)
    return float(stats.chisquare([counts[p] for p in itertools.permutations("abcd")]).pvalue)


def test_all_permutations_are_equally_probable() -> None:
    key = order_key(SEAL, RANDOMNESS)
    orders = [tuple(shuffled("abcd", key, f"block {block}")) for block in range(12_000)]
    assert p_of_permutations(orders) > FALSE_ALARM


def test_the_test_sees_the_naive_shuffle() -> None:
    stream = WordStream(order_key(SEAL, RANDOMNESS), "naive")
    orders = []
    for _ in range(12_000):
        order = list("abcd")
        for place in range(4):
            other = stream.below(4)
            order[place], order[other] = order[other], order[place]
        orders.append(tuple(order))
    assert p_of_permutations(orders) < FALSE_ALARM


def test_remainders_are_equally_probable() -> None:
    stream = WordStream(order_key(SEAL, RANDOMNESS), "remainders")
    counts = Counter(stream.below(7) for _ in range(14_000))
    assert sorted(counts) == list(range(7))
    assert stats.chisquare(list(counts.values())).pvalue > FALSE_ALARM


def test_every_block_is_balanced_and_blocks_differ() -> None:
    protocol, arms, sessions = plan()
    blocks = [session for session in sessions if session.phase == "main"]
    assert len(blocks) == 4
    for number, session in enumerate(blocks):
        assert session.block == number
        counts = Counter(arms[request.alias] for request in session.requests)
        assert counts == {"high": 1, "low": 2, "idle": 1}
    assert len({tuple(request.alias for request in block.requests) for block in blocks}) > 1
    tokens = Counter[str]()
    for block in blocks:
        for request in block.requests:
            tokens[arms[request.alias]] += request.tokens
    assert tokens == protocol.tokens_per_arm


def test_the_schedule_runs_around_the_blocks_under_other_aliases() -> None:
    _, arms, sessions = plan()
    phases = [(session.phase, session.block, len(session.requests)) for session in sessions]
    middle = [pair for block in range(4) for pair in (("main", block, 4), ("sham", block, 1))]
    assert phases == [("calibration", None, 2), *middle, ("calibration", None, 3)]
    scheduled = {
        request.alias
        for session in sessions
        if session.phase != "main"
        for request in session.requests
    }
    assert len(scheduled) == 2
    assert not scheduled & arms.keys()


def test_requests_are_numbered_and_share_prompts_evenly() -> None:
    _, _, sessions = plan()
    requests = [request for session in sessions for request in session.requests]
    assert [request.number for request in requests] == list(range(len(requests)))
    assert requests[7].request_key == "request-000007"
    for alias in {request.alias for request in requests}:
        prompts = [request.prompt for request in requests if request.alias == alias]
        assert prompts == [("a.txt", "b.txt", "c.txt")[n % 3] for n in range(len(prompts))]


def test_sessions_of_one_arm() -> None:
    text = TEXT.replace("blocks: 4", "blocks: 4, unit: session, requests_per_session: 5")
    _, arms, sessions = plan(text)
    main = [session for session in sessions if session.phase == "main"]
    assert len(main) == 16
    assert all(len({request.alias for request in session.requests}) == 1 for session in main)
    assert all(len(session.requests) == 5 for session in main)
    counts = Counter(arms[session.requests[0].alias] for session in main if session.block == 2)
    assert counts == {"high": 1, "low": 2, "idle": 1}


def test_another_seal_orders_otherwise() -> None:
    orders = [
        shuffled("abcdefghijklmnop", order_key(seal, RANDOMNESS), "block 0")
        for seal in (SEAL, "5f" * 32)
    ]
    assert orders[0] != orders[1]


def test_aliases_need_the_key() -> None:
    protocol = parse_protocol(TEXT.encode())
    aliases = aliases_of(protocol, KEY.alias_key)
    expected = hmac.new(KEY.alias_key, b"qr-sampler alias 1\nmain\nhigh", hashlib.sha256)
    assert aliases["main", "high"] == f"arm-{expected.hexdigest()[:8]}"
    assert not set(aliases.values()) & set(aliases_of(protocol, b"b" * 32).values())


def test_two_arms_with_one_alias_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac, "digest", lambda key, message, name: b"\0" * 32)
    with pytest.raises(StudyError, match="same alias"):
        aliases_of(parse_protocol(TEXT.encode()), KEY.alias_key)


def test_plans_are_of_bounded_size() -> None:
    text = TEXT.replace("blocks: 4", "blocks: 100000").replace("per_block: 2", "per_block: 10")
    with pytest.raises(ConfigError, match="1,000,000 are the most"):
        parse_protocol(text.encode())
