# SPDX-License-Identifier: Apache-2.0
"""What cannot be derived again is counted by its reason, and never taken for right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler.records.redaction import redact
from qr_sampler_cli.audit.rederivation import gathering, prompts

Fields = dict[str, Any]
Edit = Callable[[list[Fields]], None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unsaid")


@pytest.fixture
def ledger(place: Path, toys: Any) -> Path:
    """A small ledger."""
    found = list((place / "ledger").glob("*.jsonl"))
    return found[0] if found else toys.generated(place, answers=5)


def sequence_with(**more: Any) -> Edit:
    """Returns what changes fields of the first sequence."""

    def edit(lines: list[Fields]) -> None:
        line = next(line for line in lines if line["kind"] == "sequence")
        for name, value in more.items():
            line[name] = {**line[name], **value} if isinstance(value, dict) else value

    return edit


def tokens_of_first(lines: list[Fields]) -> list[int]:
    name = next(line["sequence"] for line in lines if line["kind"] == "sequence")
    return [
        n for n, line in enumerate(lines) if line["kind"] == "token" and line["sequence"] == name
    ]


def judged(toys: Any, path: Path, **more: Any) -> tuple[dict[str, int], int, Any]:
    """Returns what is unsaid with its counts, the number of judged tokens, and the rung."""
    rung = toys.audited(path, **more).rungs[5]
    counts = {what: each.count for what, each in rung.unsaid.items()}
    return counts, rung.figures.get("tokens", 0), rung


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"repetition_penalty": 1.1, "frequency_penalty": 0.0}, "tokens with penalties"),
        ({"logit_bias": {"5": 1.0}}, "tokens with a bias of logits"),
        ({"allowed_token_ids": [1, 2]}, "tokens with allowed tokens"),
        ({"bad_words": [[1, 2]]}, "tokens with bad words"),
        ({"structured_outputs": {"sha256": "0" * 64}}, "tokens with grammars"),
        ({"hologram": 1}, "tokens with the field 'hologram'"),
        ({"min_tokens": "many"}, "tokens before min_tokens, until which some are masked"),
    ],
)
def test_what_changes_logits_is_not_judged(
    ledger: Path, toys: Any, fields: Fields, reason: str
) -> None:
    path = toys.rewritten(ledger, sequence_with(fields=fields))
    count = len(tokens_of_first(toys.lines_of(ledger)))
    unsaid, tokens, rung = judged(toys, path)
    assert unsaid == {reason: count}
    assert tokens == len(toys.tokens_of(toys.lines_of(ledger))) - count
    assert (rung.status, rung.failures) == ("cannot be said", [])


def test_after_min_tokens_nothing_is_masked(ledger: Path, toys: Any) -> None:
    path = toys.rewritten(ledger, sequence_with(fields={"min_tokens": 3}))
    unsaid, tokens, _ = judged(toys, path)
    assert unsaid == {"tokens before min_tokens, until which some are masked": 3}
    assert tokens == len(toys.tokens_of(toys.lines_of(ledger))) - 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"later": 1}, "tokens sampled with parameters that are not recorded, or not known here"),
        ({"top_p": 7.0}, "tokens sampled with parameters that are out of range"),
        (
            {"temperature_strategy": "psychic"},
            "tokens sampled with the temperature strategy 'psychic', not installed here",
        ),
    ],
)
def test_unknown_parameters_are_not_guessed(
    ledger: Path, toys: Any, options: Fields, reason: str
) -> None:
    unsaid, _, _ = judged(toys, toys.rewritten(ledger, sequence_with(options=options)))
    assert unsaid == {reason: len(tokens_of_first(toys.lines_of(ledger)))}


def test_missing_prompts_are_counted(ledger: Path, toys: Any, tmp_path: Path) -> None:
    few = tmp_path / "prompts"
    few.write_text((ledger.parents[1] / "prompts").read_text().splitlines()[1] + "\n")
    unsaid, tokens, _ = judged(toys, ledger, prompts=few)
    (count,) = unsaid.values()
    assert list(unsaid) == ["tokens whose prompt is not here"]
    assert count + tokens == len(toys.tokens_of(toys.lines_of(ledger)))
    assert min(count, tokens) > 0


def test_tokens_after_a_hole_are_not_judged(ledger: Path, toys: Any) -> None:
    gone = tokens_of_first(toys.lines_of(ledger))
    unsaid, tokens, rung = judged(toys, toys.rewritten(ledger, lambda lines: lines.pop(gone[4])))
    assert unsaid == {"tokens after a hole in their sequence": len(gone) - 5}
    assert tokens == len(toys.tokens_of(toys.lines_of(ledger))) - len(gone) + 4
    assert rung.failures == []


def test_tokens_that_continue_another_sequence_are_not_judged(ledger: Path, toys: Any) -> None:
    gone = tokens_of_first(toys.lines_of(ledger))[0]
    unsaid, _, _ = judged(toys, toys.rewritten(ledger, lambda lines: lines.pop(gone)))
    assert list(unsaid) == ["tokens of sequences that continue others"]


def test_a_sequence_without_its_line_is_not_judged(ledger: Path, toys: Any) -> None:
    number = next(n for n, line in enumerate(toys.lines_of(ledger)) if line["kind"] == "sequence")
    unsaid, _, _ = judged(toys, toys.rewritten(ledger, lambda lines: lines.pop(number)))
    assert list(unsaid) == ["tokens of sequences whose line is not here"]


def test_text_without_entropy_is_fed_and_not_judged(ledger: Path, toys: Any) -> None:
    number = tokens_of_first(toys.lines_of(ledger))[-1]

    def undecided(lines: list[Fields]) -> None:
        kept = ("kind", "n", "prev", "sequence", "position", "token_id")
        line = {name: lines[number][name] for name in kept}
        lines[number] = {**line, "kind": "undecided", "reason": "nan", "wall_time_ns": 1}

    unsaid, tokens, rung = judged(toys, toys.rewritten(ledger, undecided))
    assert (unsaid, rung.failures) == ({}, [])
    assert tokens == len(toys.tokens_of(toys.lines_of(ledger))) - 1


def test_redacted_tokens_are_counted(ledger: Path, toys: Any) -> None:
    path = ledger.parents[1] / "redacted" / ledger.name
    path.parent.mkdir(exist_ok=True)
    lines = ledger.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in redact(lines)))
    unsaid, tokens, rung = judged(toys, path)
    assert (tokens, rung.failures) == (0, [])
    (reason,) = unsaid
    assert "redacted lines" in reason


def test_version_1_says_too_little(toys: Any, empty: Path) -> None:
    (old,) = (Path(__file__).parents[1] / "data").glob("*.jsonl")
    unsaid, tokens, rung = judged(toys, old, prompts=empty)
    assert (tokens, rung.failures) == (0, [])
    assert "tokens whose prompt is not here" in unsaid


def test_what_was_dropped_is_replaced(ledger: Path, toys: Any) -> None:
    number = tokens_of_first(toys.lines_of(ledger))[3]

    def twice(lines: list[Fields]) -> None:
        dropped = {**lines[number], "token_id": 1, "emitted": None}
        kept = ("n", "prev", "sequence", "position")
        told = {name: dropped[name] for name in kept}
        more = {"token_id": 1, "emitted": False, "reason": "dropped", "wall_time_ns": 1}
        lines[number:number] = [dropped, {"kind": "emission", **told, **more}]

    unsaid, tokens, rung = judged(toys, toys.rewritten(ledger, twice))
    assert (unsaid, rung.failures) == ({}, [])
    assert tokens == len(toys.tokens_of(toys.lines_of(ledger)))


def test_the_choice_of_several_numbers_is_left_out(ledger: Path, toys: Any) -> None:
    number = tokens_of_first(toys.lines_of(ledger))[3]

    def verified(lines: list[Fields]) -> None:
        line = lines[number]
        own = {"role": "bonus", "u": 0.5, "bytes": line["block_bytes"], "jit": True}
        more = {"source": "device", "fallback": False, "t_request_ns": 1, "t_received_ns": 2}
        place = {name: line[name] for name in ("draw", "offset")}
        line |= {"u": 0.5, "role": "bonus", "uniforms": [{**own, **more, **place}]}

    unsaid, _, rung = judged(toys, toys.rewritten(ledger, verified))
    assert unsaid == {"which token several numbers give; its row is judged": 1}
    assert rung.failures == []


def test_u_of_the_far_side_is_not_derived_from_bytes(ledger: Path, toys: Any) -> None:
    path = toys.rewritten(ledger, sequence_with(options={"signal_amplifier_type": "server"}))
    unsaid, _, rung = judged(toys, path)
    count = len(tokens_of_first(toys.lines_of(ledger)))
    assert unsaid == {"whether bytes give u: the source has made it itself": count}
    assert rung.failures == []


def test_unknown_tokens_are_found(ledger: Path, toys: Any) -> None:
    number = tokens_of_first(toys.lines_of(ledger))[3]

    def unheard(lines: list[Fields]) -> None:
        lines[number]["token_id"] = 64

    unsaid, _, rung = judged(toys, toys.rewritten(ledger, unheard))
    assert "token 64 is none of the 64 that the model has" in rung.failures[0].what
    assert list(unsaid) == ["tokens after an unknown one"]


def test_texts_that_are_too_long_are_cut(ledger: Path, toys: Any) -> None:
    model = toys.model()
    model.longest = 30
    unsaid, tokens, rung = judged(toys, ledger, model=model)
    (count,) = unsaid.values()
    assert list(unsaid) == ["tokens of texts longer than the model was made for"]
    assert count + tokens == len(toys.tokens_of(toys.lines_of(ledger)))
    assert rung.failures == []


def test_memory_of_open_sequences_is_bounded(
    ledger: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MOST_OPEN_TOKENS", 20)
    unsaid, tokens, rung = judged(toys, ledger)
    assert list(unsaid) == [gathering._TOO_MANY]
    assert tokens < len(toys.tokens_of(toys.lines_of(ledger)))
    assert rung.failures == []


def test_rows_without_a_distribution_are_counted(ledger: Path, toys: Any) -> None:
    class Broken(toys.model):  # type: ignore[misc, name-defined]
        def row(self, ids: Any) -> Any:
            row = super().row(ids)
            return row * float("nan") if sum(ids) % 7 == 0 else row

    unsaid, _, rung = judged(toys, ledger, model=Broken())
    assert list(unsaid) == ["rows for which the model gives no finite logits"]
    assert rung.failures == []


def test_errors_that_hide_forgeries_are_said(tmp_path: Path, toys: Any) -> None:
    ledger = toys.generated(tmp_path, answers=5, error=0.12, dtype="bfloat16")
    unsaid, _, rung = judged(toys, ledger)
    assert rung.failures == []
    (reason,) = unsaid
    assert "of forged u would be exposed" in reason


def test_a_run_without_tokens_proves_nothing(tmp_path: Path, toys: Any) -> None:
    engine = toys.engine(tmp_path, toys.model())
    engine.prompts.touch()
    unsaid, _, _ = judged(toys, engine.run())
    assert unsaid == {"whether the model gives the tokens: there are none": 1}


def salted(ledger: Path, salt: bytes, edit: Callable[[Fields], None]) -> Edit:
    """Writes the sidecar of the ledger that is to be; returns what puts digests into it."""
    keys = {}
    for text in (ledger.parents[1] / "prompts").read_text().splitlines():
        line = json.loads(text)
        keys[line["request_key"]] = line["token_ids"]

    def digests(lines: list[Fields]) -> None:
        told = [{"kind": "salt", "run_id": lines[0]["run_id"], "salt": salt.hex()}]
        for line in lines:
            if line["kind"] == "sequence":
                ids = keys[line["request_key"]]
                line["prompt_digest"] = prompts.prompt_digest(salt, ids)
                line["prompt_tokens"] = len(ids)
                names = {name: line[name] for name in ("sequence", "request_key")}
                told.append({"kind": "prompt", **names, "token_ids": ids})
        edit(told[1])
        sidecar = prompts.sidecar_of(ledger.parents[1] / "rewritten" / ledger.name)
        sidecar.parent.mkdir(exist_ok=True)
        sidecar.write_text("".join(f"{json.dumps(line)}\n" for line in told))

    return digests


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A file of prompts that has none, so that those beside the ledger are taken."""
    path = tmp_path / "prompts"
    path.touch()
    return path


def test_prompts_beside_the_ledger_are_taken(ledger: Path, toys: Any, empty: Path) -> None:
    path = toys.rewritten(ledger, salted(ledger, b"s" * 32, lambda line: None))
    unsaid, tokens, rung = judged(toys, path, prompts=empty)
    assert (unsaid, rung.failures) == ({}, [])
    assert tokens == len(toys.tokens_of(toys.lines_of(ledger)))
    assert "only the tokens show" not in " ".join(rung.notes).replace("this, tokens", "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line["token_ids"].append(1), "its prompt has"),
        (lambda line: line["token_ids"].reverse(), "has another digest"),
    ],
)
def test_a_prompt_that_is_not_that_of_the_run_fails(
    ledger: Path, toys: Any, empty: Path, change: Callable[[Fields], None], says: str
) -> None:
    path = toys.rewritten(ledger, salted(ledger, b"s" * 32, change))
    _, _, rung = judged(toys, path, prompts=empty)
    assert rung.failed == 1
    assert says in rung.failures[0].what


def test_a_digest_without_a_salt_leaves_doubt(ledger: Path, toys: Any) -> None:
    path = toys.rewritten(ledger, salted(ledger, b"s" * 32, lambda line: None))
    prompts.sidecar_of(path).unlink()
    unsaid, tokens, _ = judged(toys, path, prompts=ledger.parents[1] / "prompts")
    assert list(unsaid) == ["whether prompts are those of the run: there is no salt"]
    assert tokens > 0


@pytest.mark.parametrize(
    "text",
    ["[]\n", "nothing\n", '{"token_ids":[-1]}\n', '{"kind":"salt","salt":"xyz"}\n', "\xff\n"],
)
def test_other_files_of_prompts_are_refused(
    ledger: Path, toys: Any, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "prompts"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="line 1"):
        toys.audited(ledger, prompts=path)
    with pytest.raises(ConfigError, match="No such file"):
        toys.audited(ledger, prompts=tmp_path / "absent")


def test_a_prompt_of_another_vocabulary_is_refused(ledger: Path, toys: Any) -> None:
    with pytest.raises(ConfigError, match="and the model 16 tokens"):
        toys.audited(ledger, model=toys.model(vocab_size=16))


def test_a_prompt_that_is_being_written_is_not_read(
    ledger: Path, toys: Any, tmp_path: Path
) -> None:
    path = tmp_path / "prompts"
    path.write_text((ledger.parents[1] / "prompts").read_text() + '{"request_key":"x","tok')
    assert judged(toys, ledger, prompts=path)[0] == {}
