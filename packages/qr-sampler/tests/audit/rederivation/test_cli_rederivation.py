# SPDX-License-Identifier: Apache-2.0
"""What rung 6 finds in the ledgers of an engine, and what it leaves unsaid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

Fields = dict[str, Any]


def rung_of(run: Any) -> Any:
    """Returns rung 6."""
    return run.rungs[5]


def where(rung: Any) -> list[int]:
    """Returns the lines of the failures; 0 for those that are about none."""
    return [int(each.where.rpartition(":")[2] or 0) for each in rung.failures]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("honest")


@pytest.fixture
def honest(place: Path, toys: Any) -> Path:
    """A ledger of every filter, strategy and amplifier, about 300 tokens."""
    found = list((place / "ledger").glob("*.jsonl"))
    kinds = [*toys.filters, *toys.strategies, *toys.amplifiers]
    return found[0] if found else toys.generated(place, kinds, answers=1)


def test_every_token_of_an_honest_ledger_is_derived_again(honest: Path, toys: Any) -> None:
    rung = rung_of(toys.audited(honest))
    assert (rung.status, rung.failures, rung.unsaid) == ("holds", [], {})
    figures = rung.figures
    assert figures["tokens"] == len(toys.tokens_of(toys.lines_of(honest))) > 250
    assert (figures["outside_interval"], figures["beyond_tolerance"]) == (0, 0)
    assert figures["entropy_difference_nats"]["max"] < 1e-5
    assert figures["probability_difference"]["max"] < 1e-4
    assert figures["exposed"] > 0.6
    json.dumps(figures, allow_nan=False)


def test_half_precision_is_not_accused(tmp_path: Path, toys: Any) -> None:
    kinds = [*toys.filters, *toys.strategies]
    ledger = toys.generated(tmp_path, kinds, answers=1, error=0.02, dtype="bfloat16")
    rung = rung_of(toys.audited(ledger))
    assert (rung.status, rung.failures) == ("holds", [])
    assert rung.figures["outside_interval"] > 10
    assert rung.figures["logit_error"] == pytest.approx(0.02, rel=0.2)


def test_float32_explains_no_errors_of_half_precision(tmp_path: Path, toys: Any) -> None:
    ledger = toys.generated(tmp_path, error=0.02, dtype="float32")
    rung = rung_of(toys.audited(ledger))
    assert "arithmetic in float32 by 0.001 at most" in rung.failures[0].what
    # The auditor's own arithmetic counts as well.
    assert rung_of(toys.audited(ledger, dtype="bfloat16")).status == "holds"


@pytest.mark.parametrize(("error", "dtype"), [(0.0, "float32"), (0.02, "bfloat16")])
def test_forged_u_are_found_as_often_as_is_said(
    tmp_path: Path, toys: Any, error: float, dtype: str
) -> None:
    ledger = toys.generated(tmp_path, toys.filters, answers=3, error=error, dtype=dtype)
    script = Random(3)
    forged = 0

    def forge(lines: list[Fields]) -> None:
        nonlocal forged
        for line in toys.tokens_of(lines):
            if script.random() < 0.5:
                line["u"] = script.uniform(1e-9, 1.0 - 1e-9)
                forged += 1

    rung = rung_of(toys.audited(toys.rewritten(ledger, forge)))
    exposed = rung.figures["exposed"]
    # Seven standard deviations: a false alarm in 4e-12, and the seeds are fixed.
    allowed = 7.0 * math.sqrt(exposed * (1.0 - exposed) / forged)
    assert rung.failed / forged >= exposed - allowed
    # What is said is for the next larger tolerance of a list, and so a lower bound.
    assert rung.failed / forged <= rung.figures["exposed_at_best"] + allowed
    assert forged > 150
    assert exposed > (0.4 if error else 0.6)


def test_one_forged_u_is_found_at_its_line(honest: Path, toys: Any) -> None:
    lines = toys.lines_of(honest)
    numbers = [n for n, line in enumerate(lines) if line["kind"] == "token"]
    script = Random(4)
    # Of a rare token that is not the most probable, any u outside of its interval is found.
    chosen = [n for n in numbers if lines[n]["rank"] > 0 and lines[n]["probability"] < 0.05]
    for number in script.sample(chosen, 3):
        u = lines[number]["u"]

        def forge(told: list[Fields], number: int = number, u: float = u) -> None:
            told[number]["u"] = u + 0.1 if u < 0.5 else u - 0.1

        rung = rung_of(toys.audited(toys.rewritten(honest, forge)))
        assert where(rung) == [number + 1]
        assert "u lies 0." in rung.failures[0].what


def test_a_swapped_token_is_found(honest: Path, toys: Any) -> None:
    lines = toys.lines_of(honest)
    number = next(n for n, line in enumerate(lines) if line.get("position") == 10)

    def swap(told: list[Fields]) -> None:
        told[number]["token_id"] = (told[number]["token_id"] + 1) % 64

    rung = rung_of(toys.audited(toys.rewritten(honest, swap)))
    assert where(rung)[0] == number + 1
    # The text after it is another, too.
    assert rung.failed > 3


def test_the_last_token_of_a_sequence_is_found_as_well(honest: Path, toys: Any) -> None:
    lines = toys.lines_of(honest)
    last = {line["sequence"]: n for n, line in enumerate(lines) if line["kind"] == "token"}
    number = min(last.values())

    def swap(told: list[Fields]) -> None:
        told[number]["token_id"] = (told[number]["token_id"] + 1) % 64

    assert where(rung_of(toys.audited(toys.rewritten(honest, swap)))) == [number + 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_model_is_found(honest: Path, toys: Any, dtype: str) -> None:
    rung = rung_of(toys.audited(honest, model=toys.model(seed=1), dtype=dtype))
    assert "the model, the prompts or the texts are others" in rung.failures[0].what
    assert rung.failed > 0.9 * rung.figures["tokens"]


def test_another_prompt_is_found(honest: Path, toys: Any, tmp_path: Path) -> None:
    prompts = [
        json.loads(line) for line in (honest.parents[1] / "prompts").read_text().splitlines()
    ]
    prompts[0]["token_ids"][-1] ^= 1
    other = tmp_path / "prompts"
    other.write_text("".join(f"{json.dumps(line)}\n" for line in prompts))
    rung = rung_of(toys.audited(honest, prompts=other))
    lines = toys.lines_of(honest)
    key = prompts[0]["request_key"]
    (name,) = (line["sequence"] for line in lines if line.get("request_key") == key)
    # The toy model looks back eight ids.
    changed = [n for n, line in enumerate(lines) if line.get("sequence") == name and "u" in line]
    assert where(rung) == [n + 1 for n in changed[:8]]


def test_another_temperature_is_found(tmp_path: Path, toys: Any) -> None:
    ledger = toys.generated(tmp_path, answers=6)

    def warm(told: list[Fields]) -> None:
        for line in told:
            if line["kind"] == "sequence":
                line["options"]["fixed_temperature"] = 0.95
            elif line["kind"] == "token":
                line["temperature"] = 0.95

    rung = rung_of(toys.audited(toys.rewritten(ledger, warm)))
    assert rung.failed > 0.6 * rung.figures["tokens"]
    # Without the probabilities, which have not been changed, u would give it away.
    assert rung.figures["outside_interval"] > 5


def edit_token(**fields: Any) -> Callable[[list[Fields]], None]:
    """Returns what changes the fields of the last token that an adaptive temperature has."""

    def edit(told: list[Fields]) -> None:
        names = {
            line["sequence"]
            for line in told
            if line["kind"] == "sequence"
            and line["options"]["temperature_strategy"] == "varentropy"
        }
        line = [each for each in told if each["kind"] == "token" and each["sequence"] in names][-1]
        for field, change in fields.items():
            line[field] = change(line[field])

    return edit


@pytest.mark.parametrize(
    ("field", "change", "says"),
    [
        ("temperature", lambda t: t * 1.01, "temperature is"),
        ("temperature", lambda t: 0.0, "temperature is"),
        ("running_entropy_nats", lambda m: m + 0.01, "running_entropy_nats is"),
        ("entropy_nats", lambda h: h + 0.01, "its entropy is +0.01 nats"),
        ("entropy_nats", lambda h: -1.0, "none of any distribution"),
        ("varentropy_nats2", lambda v: v + 0.01, "its varentropy is another"),
        ("varentropy_nats2", lambda v: 1e300, "none of any distribution"),
        ("probability", lambda p: p / 2, "its probability is -0.5"),
        ("rank", lambda r: r + 1, "the token has another rank"),
        ("rank", lambda r: 2**62, "the token has another rank"),
        ("candidates", lambda k: k + 1, "number of tokens is kept"),
        ("candidates", lambda k: 0, "number of tokens is kept"),
        ("candidates", lambda k: 2**62, "number of tokens is kept"),
        ("u", lambda u: 1.0 - u, "u lies"),
    ],
)
def test_every_number_of_a_token_is_compared(
    honest: Path, toys: Any, field: str, change: Callable[[float], float], says: str
) -> None:
    rung = rung_of(toys.audited(toys.rewritten(honest, edit_token(**{field: change}))))
    assert says in " ".join(each.what for each in rung.failures)


def test_one_row_in_a_thousand_may_be_another_in_half_precision(tmp_path: Path, toys: Any) -> None:
    ledger = toys.generated(tmp_path, answers=30, error=0.02, dtype="bfloat16")
    count = len(toys.tokens_of(toys.lines_of(ledger)))
    assert 1_000 < count < 2_000

    def edit(*numbers: int) -> Callable[[list[Fields]], None]:
        def change(told: list[Fields]) -> None:
            # Of last tokens, on whose entropy no running mean depends.
            last = {line["sequence"]: line for line in toys.tokens_of(told)}
            for number in numbers:
                list(last.values())[number]["entropy_nats"] += 0.5

        return change

    once = rung_of(toys.audited(toys.rewritten(ledger, edit(5))))
    assert once.status == "holds"
    assert "1 rows differ as wholes" in " ".join(once.notes)
    assert rung_of(toys.audited(toys.rewritten(ledger, edit(5, 6)))).failed == 2
