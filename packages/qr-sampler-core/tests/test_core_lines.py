# SPDX-License-Identifier: Apache-2.0
"""From entries to lines: nothing is said twice, and everything once."""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from qr_sampler import (
    DiscardRecord,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    ForcedRecord,
    GenesisRecord,
    MemorySink,
    Settings,
    TokenSamplingRecord,
    dropped_record,
)
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.host import (
    DrawnNumber,
    EngineFacts,
    Entry,
    RecordedDiscard,
    RecordedToken,
    SamplingSession,
    SequenceEnd,
    TokenSequence,
    UndecidedToken,
    records_of,
)
from qr_sampler.records.entries import kind_of
from qr_sampler.records.lines import LedgerLines, Line
from qr_sampler.records.reader import JoinedLines
from qr_sampler.testing import ToyHost, check_ledger, play_script

GENESIS = GenesisRecord(
    run_id="run",
    engine="toy",
    model="none",
    versions={},
    settings={},
    pid=1,
    monotonic_ns=1,
    wall_time_ns=1,
    schema_version=2,
)


class KeptBytes(EntropySource):
    """Hands out the bytes of a generator, which it keeps; now and then it has none."""

    name = "device"
    blocks = False

    def __init__(self, seed: int, fails: float = 0.0) -> None:
        self._script = Random(seed)
        self._fails = fails
        self.draws: list[bytes] = []
        self.commits = bool(seed % 2)

    def get_random_bytes(self, n: int) -> bytes:
        if self._script.random() < self._fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        self.draws.append(self._script.randbytes(n))
        return self.draws[-1]


class Played:
    """A script that a toy host has played, with every entry of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, seed: int, fails: float = 0.0
    ) -> None:
        self.source = KeptBytes(seed, fails)
        self.entries: list[Entry] = []
        settings = Settings.load(
            entropy_source_type="device",
            fallback_mode="end_request",
            sample_count=16,
            ledger_dir=folder,
        )
        session = SamplingSession(
            EngineFacts(engine="toy", model="none"), settings, sources={"device": self.source}
        )
        monkeypatch.setattr(session, "record", self.entries.extend)
        self.host = ToyHost(session, seed=seed, overlapping=bool(seed % 2))
        play_script(self.host, seed=seed, steps=60)
        session.close()

    @property
    def drawn(self) -> int:
        return sum(map(len, self.source.draws))


@pytest.fixture
def host() -> ToyHost:
    settings = Settings.load(entropy_source_type="device")
    facts = EngineFacts(engine="toy", model="none")
    return ToyHost(SamplingSession(facts, settings, sources={"device": KeptBytes(0)}))


def plain(lines: list[Line]) -> list[dict[str, Any]]:
    """Returns lines as a reader finds them."""
    return [
        {"kind": kind, **msgspec.json.decode(msgspec.json.encode(fields))} for kind, fields in lines
    ]


def joined(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    reader = JoinedLines()
    return [reader.joined(dict(line)) for line in lines]


@pytest.mark.parametrize("fails", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_joined_lines_are_the_records(
    seed: int, fails: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    played = Played(monkeypatch, tmp_path, seed, fails)
    made = LedgerLines(GENESIS)
    lines = plain(made.begin_file() + made.of(played.entries))
    records = [record.as_dict() for record in records_of(played.entries)]
    whole = [line for line in joined(lines) if line["kind"] in {one["kind"] for one in records}]
    assert len(whole) == len(records) > 100
    for line, record in zip(whole, records, strict=True):
        assert {name: line[name] for name in record} == record
    texts = [request.text() for request in played.host.requests if request.sequence is not None]
    check_ledger(lines, texts, bytes_drawn=played.drawn)


def test_draws_are_numbered_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    played = Played(monkeypatch, tmp_path, 1)
    lines = plain(LedgerLines(GENESIS).of(played.entries))
    draws = [line for line in lines if line["kind"] == "draw"]
    assert [line["draw"] for line in draws] == list(range(len(draws)))
    digests = Counter(hashlib.sha256(data).hexdigest() for data in played.source.draws)
    assert Counter(line["data_sha256"] for line in draws) == digests
    assert all(len(line["commitment"]) == 64 for line in draws)
    blocks = [line for line in lines if line.get("draw") is not None and "offset" in line]
    data = {line["draw"]: line["data_sha256"] for line in draws}
    by_digest = {hashlib.sha256(one).hexdigest(): one for one in played.source.draws}
    for line in [block for block in blocks if block["kind"] == "token"]:
        first, size = line["offset"], line["block_bytes"]
        assert sum(by_digest[data[line["draw"]]][first : first + size]) == line["block_sum"]


def test_what_is_named_was_introduced_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    played = Played(monkeypatch, tmp_path, 2, fails=0.1)
    known: set[object] = {None, ""}
    for line in plain(LedgerLines(GENESIS).of(played.entries)):
        if line["kind"] in ("draw", "sequence"):
            assert line[line["kind"]] not in known
            known.add(line[line["kind"]])
        assert {line.get("draw"), line.get("sequence")} <= known


def test_a_further_file_introduces_what_it_names_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    played = Played(monkeypatch, tmp_path, 3)
    middle = len(played.entries) // 2
    made = LedgerLines(GENESIS)
    files = []
    for part, continues in [(slice(middle), None), (slice(middle, None), {"file": "first"})]:
        files.append(plain(made.begin_file(continues) + made.of(played.entries[part])))
    once = plain(LedgerLines(GENESIS).of(played.entries))
    told = {(line["kind"], line[line["kind"]]): line for line in once if line["kind"] == "draw"}
    for file, continues in zip(files, [None, {"file": "first"}], strict=True):
        assert [line["kind"] for line in file[:2]] == ["genesis", "clock"]
        assert file[0]["continues"] == continues
        known: set[object] = {None, ""}
        for line in file:
            if line["kind"] in ("draw", "sequence"):
                known.add(line[line["kind"]])
            if line["kind"] == "draw":
                assert line == told["draw", line["draw"]]
            assert {line.get("draw"), line.get("sequence")} <= known
    tokens = [
        [line for line in part if line["kind"] not in ("draw", "sequence", "genesis", "clock")]
        for part in (once, files[0] + files[1])
    ]
    assert tokens[0] == tokens[1]


def test_fields_that_say_nothing_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    played = Played(monkeypatch, tmp_path, 2)
    lines = plain(LedgerLines(GENESIS).of(played.entries))
    token = next(line for line in lines if line["kind"] == "token" and line["position"])
    assert {"emitted", "role", "outcome", "jit", "uniforms", "row_digest"}.isdisjoint(token)
    assert {"amplifier", "t_logits_ns", "source", "request_key"}.isdisjoint(token)
    assert list(token)[:5] == ["kind", "sequence", "position", "token_id", "draw"]


def test_a_sequence_is_described_by_what_was_asked_for(host: ToyHost) -> None:
    request = host.add(7, request_key="mine", trial="2", top_k=5)
    assert request.sequence is not None
    (_, line), _ = LedgerLines(GENESIS).of([*named(request.sequence)])
    said = msgspec.to_builtins(line)
    assert (said["request_key"], said["trial"], said["condition"]) == ("mine", "2", None)
    assert (said["prompt_tokens"], said["prompt_digest"], said["fields"]) == (None, "", {})
    assert (said["options"]["source"], said["options"]["top_k"]) == ("device", 5)
    assert said["options"]["truncate_first"] is False
    assert said["stop"] == {
        "token_ids": [9],
        "max_tokens": 7,
        "max_length": None,
        "min_tokens": 0,
        "stop_strings": False,
    }
    assert said["wall_time_ns"] > 0


def named(sequence: Any) -> list[Entry]:
    """Returns the entry of an undecided token, which has cost no bytes."""
    return [UndecidedToken(1, 0, "masked").entry(sequence, emitted=True)]


def test_a_sequence_of_which_nothing_is_recorded_has_no_end(host: ToyHost) -> None:
    sequence = host.add(7).sequence
    assert sequence is not None
    made = LedgerLines(GENESIS)
    end = SequenceEnd(sequence, 0, "departed", "", 1)
    assert made.of([end]) == []
    lines = plain(made.of([*named(sequence), end]))
    assert [line["kind"] for line in lines] == ["sequence", "undecided", "end"]
    # What an engine has drawn beyond the end comes after it, and needs no second introduction.
    assert [line["kind"] for line in plain(made.of(named(sequence)))] == ["undecided"]


def test_bytes_drawn_long_after_the_end_need_no_second_introduction(host: ToyHost) -> None:
    made = LedgerLines(GENESIS)
    sequences = [host.add(7).sequence for _ in range(2000)]
    for sequence in sequences:
        assert sequence is not None
        made.of([*named(sequence), SequenceEnd(sequence, 0, "stop", "", 1)])
    assert {kind for one in sequences for kind, _ in made.of(named(one))} == {"undecided"}


def test_what_is_remembered_of_a_sequence_goes_with_it(host: ToyHost) -> None:
    made = LedgerLines(GENESIS)
    kinds = []
    for _ in range(2):
        first = host.add(7).sequence
        assert first is not None
        sequence = TokenSequence(first.options, first.stop, name="its end is lost")
        kinds.append([kind for kind, _ in made.of(named(sequence))])
        del sequence
        gc.collect()
    assert kinds == [["sequence", "undecided"]] * 2


def test_what_an_error_has_made_in_vain_is_counted_and_told_of_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entries = Played(monkeypatch, tmp_path, 2).entries
    kinds = Counter(kind for kind, _ in LedgerLines(GENESIS).of(entries))
    made = LedgerLines(GENESIS)
    with pytest.raises(AttributeError):
        made.of([*entries, RecordedDiscard(None, None, None)])  # type: ignore[arg-type]
    in_vain = made.tell_again()
    assert in_vain == {"draw": kinds["draw"], "sequence": kinds["sequence"]}
    assert in_vain["draw"] > 10
    again = Counter(kind for kind, _ in made.of(entries))
    assert again == kinds
    assert not made.tell_again()


def test_bytes_of_no_token_name_neither_draw_nor_sequence() -> None:
    dropped = dropped_record(DroppedBytes("device", 7, "late", 5))
    (line,) = plain(LedgerLines(GENESIS).of([dropped]))
    assert line == {
        "kind": "discard",
        "sequence": "",
        "position": None,
        "reason": "late",
        "draw": None,
        "offset": None,
        "source": "device",
        "fallback": False,
        "block_bytes": 7,
        "u": None,
        "wall_time_ns": 5,
    }


def test_every_entry_knows_the_kind_of_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    played = Played(monkeypatch, tmp_path, 1, fails=0.1)
    made = LedgerLines(GENESIS)
    for entry in played.entries:
        lines = made.of([entry])
        if lines:
            assert lines[-1][0] == kind_of(entry)
    sink = MemorySink()
    sink.write(records_of(played.entries))
    assert {"token", "discard", "forced", "emission", "bypass"} <= {
        one.kind for one in sink.records
    }


@dataclass(frozen=True, eq=False)
class Numbers:
    """A draw of several numbers, as verified drafts have them."""

    draw: EntropyDraw
    logits_ready_ns: int | None
    draw_bytes: int = 16
    data_sha256: str = "ab"
    data: bytes | None = None
    commitment: str = ""
    rows_told: tuple[str, ...] = ()


def numbers(logits_ready_ns: int | None, **changes: Any) -> Numbers:
    draw = EntropyDraw(
        data=b"", source="device", requested_ns=5, received_ns=6, wall_time_ns=7, **changes
    )
    return Numbers(draw, logits_ready_ns)


TOKEN = TokenSamplingRecord(
    request_key="mine",
    sequence="",
    position=0,
    token_id=3,
    u=0.5,
    statistic=0.5,
    lattice_step=2.0**-53,
    temperature=1.0,
    entropy_nats=1.0,
    varentropy_nats2=1.0,
    running_entropy_nats=None,
    rank=0,
    probability=0.5,
    candidates=4,
    amplifier="upper53",
    baseline="",
    temperature_strategy="fixed",
    source="device",
    source_distribution="",
    source_version="",
    fallback=True,
    fallback_reason="device: gone",
    device_id="",
    device_timestamp_ns=None,
    block_bytes=16,
    block_sum=9,
    block_ones=3,
    draw_bytes=16,
    draw_requests=1,
    t_logits_ns=4,
    t_request_ns=5,
    t_received_ns=6,
    wall_time_ns=7,
    role="proposal",
    outcome="accepted",
    jit=False,
    uniforms=[{"role": "proposal", "fallback": False}, {"role": "accept", "fallback": True}],
)


def test_a_token_of_several_numbers_says_where_each_of_them_is(host: ToyHost) -> None:
    sequence = host.add(7, request_key="mine").sequence
    assert sequence is not None
    drafts, verified = numbers(None), numbers(4, fallback=True, fallback_reason="device: gone")
    places = (DrawnNumber(drafts, 8), DrawnNumber(verified, 0))
    token = replace(TOKEN, sequence=sequence.name)
    unused = DiscardRecord(
        request_key="mine",
        sequence=sequence.name,
        position=1,
        reason="rejected_draft",
        source="device",
        fallback=False,
        block_bytes=8,
        u=0.25,
        t_logits_ns=None,
        t_request_ns=5,
        t_received_ns=6,
        wall_time_ns=7,
        role="proposal",
        jit=False,
    )
    entries: list[Entry] = [
        RecordedToken(token, "device", sequence, places, deciding=0),
        RecordedDiscard(unused, sequence, DrawnNumber(drafts, 0)),
        RecordedDiscard(unused, sequence, DrawnNumber(verified, 8)),
    ]
    lines = plain(LedgerLines(GENESIS).of(entries))
    kinds = ["sequence", "draw", "draw", "token", "discard", "discard"]
    assert [line["kind"] for line in lines] == kinds
    assert [line["t_logits_ns"] for line in lines[1:3]] == [None, 4]
    assert (lines[3]["draw"], lines[3]["offset"], lines[3]["amplifier"]) == (0, 8, "upper53")
    assert lines[3]["t_logits_ns"] == 4
    assert [(one["draw"], one["offset"]) for one in lines[3]["uniforms"]] == [(0, 8), (1, 0)]
    assert [(line["draw"], line["offset"]) for line in lines[4:]] == [(0, 0), (1, 8)]
    whole = joined(lines)
    assert {name: whole[3][name] for name in token.as_dict() if name != "uniforms"} == {
        name: value for name, value in token.as_dict().items() if name != "uniforms"
    }
    first = unused.as_dict()
    assert {name: whole[4][name] for name in first} == first


def test_an_accepted_draft_says_whose_request_told_of_its_row(host: ToyHost) -> None:
    sequence = host.add(7, request_key="mine").sequence
    assert sequence is not None
    draft, told = numbers(None), replace(numbers(4), commitment="c0", rows_told=("a1", "b2"))
    record = replace(TOKEN, sequence=sequence.name, row_digest="a1", commitment="c0")
    uniforms: list[dict[str, Any]] = [{"role": "proposal", "fallback": False}]
    token = replace(record, role="proposal", jit=False, uniforms=uniforms, t_logits_ns=4)
    entry = RecordedToken(token, "", sequence, (DrawnNumber(draft, 8),), 0, told)
    lines = plain(LedgerLines(GENESIS).of([entry]))
    assert [line["kind"] for line in lines] == ["sequence", "draw", "draw", "token"]
    assert [line.get("rows") for line in lines[1:3]] == [None, ["a1", "b2"]]
    assert (lines[3]["draw"], lines[3]["row_draw"], lines[3]["row_digest"]) == (0, 1, "a1")
    whole = joined(lines)[3]
    assert (whole["commitment"], whole["row_digest"], whole["source"]) == ("c0", "a1", "device")


def test_a_record_without_its_sequence_says_everything_itself() -> None:
    record = ForcedRecord(
        request_key="r",
        sequence="s",
        position=0,
        token_id=1,
        reason="gone",
        source="device",
        wall_time_ns=1,
    )
    (line,) = plain(LedgerLines(GENESIS).of([record]))
    assert line == record.as_dict()
