# SPDX-License-Identifier: Apache-2.0
"""What is rare in a ledger: set clocks, several numbers for a token, baselines, repeated lines."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qr_sampler import BitZScoreAmplifier, ZScoreMeanAmplifier
from qr_sampler_cli.audit.blocks.amplifiers import AmplifiedTokens, TokenNumbers
from qr_sampler_cli.audit.findings import Places, Rung

HOUR_NS = 3_600_000_000_000


def moved(lines: list[dict[str, Any]], by: int) -> None:
    """Sets the wall clock of *lines* by some nanoseconds."""
    for line in lines:
        if "wall_time_ns" in line:
            line["wall_time_ns"] += by


@pytest.mark.parametrize("by", [-HOUR_NS, HOUR_NS])
def test_a_clock_that_was_set_is_a_remark(run: Any, save: Any, audit: Any, by: int) -> None:
    lines = run(1).whole(steps=9)
    # The last line but two is a clock line, which tells of it.
    moved(lines[20:], by)
    in_time = audit(save(lines))[3]
    assert in_time.status == "holds"
    assert f"the wall clock was set by {by / 1e9:+.3f} s" in in_time.notes[0]


def test_a_clock_set_after_the_last_clock_line_leaves_doubt(
    run: Any, save: Any, audit: Any
) -> None:
    lines = [line for line in run(1).whole() if line["kind"] != "clock"]
    moved(lines[20:], HOUR_NS)
    assert audit(save(lines))[3].status == "cannot be said"


def test_time_does_not_run_backwards(run: Any, save: Any, audit: Any) -> None:
    lines = run(1).whole()
    [line for line in lines if line["kind"] == "clock"][-1]["monotonic_ns"] = 1
    assert audit(save(lines))[3].status == "fails"


def test_components_of_other_projects_have_one_version(run: Any, save: Any, audit: Any) -> None:
    names = {"component": "signal_amplifier", "name": "tuned", "distribution": "qr-tuned"}
    for version, settings, status in (
        ("1.0", {"gain": 2}, "holds"),
        ("1.1", {"gain": 2}, "fails"),
        # Of what was not chosen nothing took part.
        ("1.1", None, "holds"),
    ):
        lines = run(1).whole()
        lines[0]["versions"]["qr-tuned"] = "1.0"
        lines[0]["components"] = [{**names, "version": version, "settings": settings}]
        assert audit(save(lines))[4].status == status


def verified(run: Any, *, logits_ns: int | None = None) -> Any:
    """Returns a run with a token that two numbers have decided, one of them drawn before."""
    made = run(1, committed=False)
    row = made.begin("sequence", source="device", signal_amplifier_type="zscore_mean")
    made.step([row], discarded=False)
    token = made.lines.pop()
    first = made.lines.pop()
    draft = {**first, "bytes": 8, "t_logits_ns": None}
    number = {"bytes": 8, "source": "device", "fallback": False, "offset": 0}
    asked, told = first["t_request_ns"], first["t_received_ns"]
    second = {**first, "draw": 1, "bytes": 8, "t_logits_ns": logits_ns or told}
    second |= {"t_request_ns": told + 10, "t_received_ns": told + 20, "wall_time_ns": made.wall}
    second["wall_time_ns"] = first["wall_time_ns"] + 20
    second["device_timestamp_ns"] = None
    made.draws = 2
    made.lines += [draft, second]
    uniforms = [
        {**number, "role": "proposal", "u": 0.5, "jit": False, "draw": 0}
        | {"t_request_ns": asked, "t_received_ns": told},
        {**number, "role": "accept", "u": 0.25, "jit": True, "draw": 1}
        | {"t_request_ns": told + 10, "t_received_ns": told + 20},
    ]
    more = {"role": "accept", "outcome": "accepted", "amplifier": "upper53", "uniforms": uniforms}
    made.lines.append({**token, "draw": 1, "offset": 0, "block_bytes": 16, "u": 0.25, **more})
    made.end(row)
    made.lines.append(made._clock())
    made.close()
    return made.lines


def test_a_token_of_several_numbers(run: Any, save: Any, audit: Any) -> None:
    rungs = audit(save(verified(run)))
    assert [rungs[number].failures for number in (1, 2, 3, 4)] == [[]] * 4
    assert [rungs[number].status for number in (2, 3, 4)] == [
        "holds",
        "cannot be said",
        "cannot be said",
    ]
    assert "of drafts, which are drawn before" in " ".join(rungs[3].unsaid)


@pytest.mark.parametrize(
    ("rung", "change"),
    [
        (2, {"block_bytes": 15}),
        (4, {"u": 0.75}),
        (4, {"role": "proposal"}),
        (3, {"t_logits_ns": 2**60}),
    ],
)
def test_a_token_of_several_numbers_that_do_not_fit(
    run: Any, save: Any, audit: Any, rung: int, change: dict[str, Any]
) -> None:
    lines = verified(run)
    next(line for line in lines if line["kind"] == "token").update(change)
    assert audit(save(lines))[rung].status == "fails"


def test_numbers_without_draws_cannot_be_accounted_for(run: Any, save: Any, audit: Any) -> None:
    lines = verified(run)
    (token,) = [line for line in lines if line["kind"] == "token"]
    token["draw"] = token["offset"] = None
    for number in token["uniforms"]:
        number["draw"] = number["offset"] = None
    del lines[3:5]
    rungs = audit(save(lines))
    assert [rungs[number].failures for number in (1, 2, 3, 4)] == [[]] * 4
    assert "bytes of tokens whose draws are not recorded" in rungs[2].unsaid


def numbers_in(token: dict[str, Any], data: bytes) -> None:
    """Has a token decided by the two numbers that *data* is."""
    words = [data[:8], data[8:]]
    for used, word in zip(token["uniforms"], words, strict=True):
        used["u"] = int.from_bytes(word, "little") // 2**11 / 2**53
    token |= {"u": token["uniforms"][1]["u"], "block_sum": sum(data)}
    token["block_ones"] = sum(byte.bit_count() for byte in data)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda token: None, ""),
        (lambda token: token["uniforms"][0].update(u=0.125), "u of its 'proposal' is 0.125"),
        (lambda token: token.update(block_sum=token["block_sum"] + 1), "block_sum is"),
        (lambda token: token.update(block_ones=token["block_ones"] - 1), "block_ones is"),
    ],
)
def test_numbers_that_decide_a_token_together_are_judged_each(
    run: Any, save: Any, audit: Any, change: Any, found: str
) -> None:
    data = Random(5).randbytes(16)
    lines = verified(run)
    draws = [line for line in lines if line["kind"] == "draw"]
    for draw, word in zip(draws, (data[:8], data[8:]), strict=True):
        draw["data_sha256"] = hashlib.sha256(word).hexdigest()
    (token,) = (line for line in lines if line["kind"] == "token")
    numbers_in(token, data)
    change(token)
    path = save(lines)
    pieces = enumerate((data[:8], data[8:]))
    stored = b"QRBLOCKS1\n" + b"".join(struct.pack(">QQ", n, 8) + word for n, word in pieces)
    path.with_suffix(".blocks").write_bytes(stored)
    rung = audit(path)[4]
    assert rung.status == ("fails" if found else "holds")
    assert [failure.what.startswith(found) for failure in rung.failures] == [True] * bool(found)


@pytest.fixture
def rung() -> Rung:
    return Rung(4, "consistent", "", Places())


def numbers_of(amplifier: Any, total: int, ones: int, size: int) -> TokenNumbers:
    """Returns what a record says of bytes with this sum and these ones."""
    import numpy as np

    from qr_sampler import BlockCounts

    class Counts(BlockCounts):
        @property
        def sums(self) -> Any:
            return np.array([total])

        @property
        def ones(self) -> Any:
            return np.array([ones])

    blocks = np.zeros((1, size), dtype=np.uint8)
    result = amplifier.amplify(blocks, Counts(blocks))
    values = (result.u.item(), result.statistic.item(), float(result.lattice_step))
    return TokenNumbers(total, ones, *values, place=0)


def test_figures_are_those_of_the_settings(rung: Rung) -> None:
    tokens = AmplifiedTokens(rung)
    tokens.begin({"population_mean": 120.0, "population_std": 70.0})
    tokens.add(
        "zscore_mean", 64, False, "", numbers_of(ZScoreMeanAmplifier(120, 70), 8000, 250, 64)
    )
    tokens.finish()
    assert (rung.failed, tokens.recomputed) == (0, 1)
    tokens.add("zscore_mean", 64, False, "", numbers_of(ZScoreMeanAmplifier(), 8000, 250, 64))
    tokens.finish()
    assert rung.failed == 3


def test_a_fallback_has_ideal_figures_where_a_baseline_is_used(rung: Rung) -> None:
    tokens = AmplifiedTokens(rung)
    tokens.begin({"baseline_file": "device.json"})
    tokens.add("zscore_mean", 64, True, "", numbers_of(ZScoreMeanAmplifier(), 8000, 250, 64))
    tokens.add("bit_zscore", 64, True, "", numbers_of(BitZScoreAmplifier(), 8000, 250, 64))
    tokens.add("zscore_mean", 64, False, "digest", TokenNumbers(8000, 250, 0.1, 9.0, 0.5, 0))
    tokens.finish()
    assert (rung.failed, tokens.recomputed) == (0, 2)
    assert "u that refers to a baseline, which is not here" in rung.unsaid


@pytest.mark.parametrize(
    "settings", [{"population_mean": "no number"}, {"population_std": 0.0}, {"population_std": []}]
)
def test_settings_that_are_no_figures_leave_doubt(rung: Rung, settings: Any) -> None:
    tokens = AmplifiedTokens(rung)
    tokens.begin(settings)
    tokens.add("zscore_mean", 64, False, "", numbers_of(ZScoreMeanAmplifier(), 8000, 250, 64))
    tokens.finish()
    assert rung.status == "cannot be said"


@pytest.mark.parametrize(
    ("amplifier", "good", "bad"),
    [
        ("uniform53", (0.25, 0.25, 2.0**-53), (0.25, 0.5, 2.0**-53)),
        ("server", (0.25, 0.25, 2.0**-64), (0.25, 0.5, 2.0**-64)),
        ("random_walk", (0.625, 1.0, 0.25), (0.5, 1.0, 0.25)),
        ("another", (0.625, 1.0, 0.25), None),
    ],
)
def test_what_can_be_said_without_the_block(
    rung: Rung, amplifier: str, good: Any, bad: Any
) -> None:
    tokens = AmplifiedTokens(rung)
    tokens.add(amplifier, 64, False, "", TokenNumbers(8000, 250, *good, place=0))
    tokens.finish()
    assert rung.status == "cannot be said"
    if bad is not None:
        tokens.add(amplifier, 64, False, "", TokenNumbers(8000, 250, *bad, place=0))
        tokens.finish()
        assert rung.status == "fails"


def test_many_groups_are_judged_in_turn(rung: Rung) -> None:
    tokens = AmplifiedTokens(rung)
    for size in range(8, 600):
        numbers = numbers_of(BitZScoreAmplifier(), 127 * size, 4 * size, size)
        tokens.add("bit_zscore", size, False, "", numbers)
    assert tokens.recomputed > 500
    tokens.add("bit_zscore", 0, False, "", TokenNumbers(0, 0, 0.5, 0.0, 0.5, 0))
    tokens.finish()
    assert rung.failed == 1


def repeating(run: Any, chain: Any, folder: Path) -> list[Path]:
    """Writes a run whose second file repeats the lines that it refers to."""
    made = run(3, committed=False)
    rows = [made.begin("first"), made.begin("second")]
    made.step(rows, discarded=False)
    late = made.lines.pop()
    made.end(rows[0] if late["sequence"] == "second" else rows[1])
    repeated = [line for line in made.lines if line["kind"] in ("sequence", "draw")]
    made.close(continued_in="two.jsonl")
    lines = chain(made.lines)
    head = hashlib.sha256(lines[-1]).hexdigest()
    genesis = {**made.lines[0], "monotonic_ns": made.now, "wall_time_ns": made.wall}
    genesis["continues"] = {"file": "one.jsonl", "lines": len(lines), "head": head}
    (folder / "one.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    made.lines[:] = [genesis, *repeated, late]
    made.end(rows[1] if late["sequence"] == "second" else rows[0])
    made.lines.append(made._clock())
    made.close()
    told = b"".join(line + b"\n" for line in chain(made.lines, head))
    (folder / "two.jsonl").write_bytes(told)
    return [folder / "one.jsonl", folder / "two.jsonl"]


def test_a_second_file_may_repeat_what_it_refers_to(
    run: Any, chain: Any, audit: Any, tmp_path: Path
) -> None:
    first, second = repeating(run, chain, tmp_path)
    rungs = audit(first, second)
    assert [rungs[number].status for number in (1, 2, 3, 4)] == ["holds"] * 4
    alone = audit(second)
    assert [alone[number].failures for number in (1, 2, 3, 4)] == [[]] * 4
    assert alone[2].status == "cannot be said"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tokens(run: Any, chain: Any, save: Any, audit: Any) -> None:
    peaks = []
    for steps in (400, 900):
        made = run(1, committed=False)
        for index in range(steps // 100):
            rows = [made.begin(f"{index}-{number}") for number in range(32)]
            for _ in range(100):
                made.step(rows, discarded=False)
            for row in rows:
                made.end(row)
        made.lines.append(made._clock())
        made.close()
        path = save(chain(made.lines))
        del made, rows
        tracemalloc.start()
        try:
            audit(path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    fewer, more = peaks
    # 160 sequences more, and nothing of 16,000 tokens more.
    assert more - fewer < 2**20
