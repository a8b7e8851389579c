# SPDX-License-Identifier: Apache-2.0
"""What was recorded of a row is handed out for it again, and for nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_sampler import (
    ConfigError,
    EntropyUnavailableError,
    GuardedSource,
    RowContext,
    Settings,
    configured_sources,
    create_source,
)
from qr_sampler.entropy import JitClass
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.files import ledgers_in
from qr_sampler.testing import (
    EntropySourceContract,
    RecordedEntropySource,
    ToyHost,
    records_in,
)
from qr_sampler_lab.replay import Recording, ReplaySource
from qr_sampler_lab.replay import recording as recording_module

KEYS = [f"request {number}" for number in range(6)]
Outputs = dict[str, list[int]]


def session_of(source: Any, **options: Any) -> SamplingSession:
    usual = {
        "entropy_source_type": source.name,
        "fallback_mode": "end_request",
        "sample_count": 24,
        "max_ks_distance": 1.0,
    }
    return SamplingSession(
        EngineFacts(engine="toy", model="none"),
        Settings.load(**{**usual, **options}),
        sources={source.name: GuardedSource(source, 10_000)},
    )


def logits_of(host: ToyHost) -> Any:
    """Returns logits that follow from a request's key and its tokens, as those of a model do."""
    rows = []
    for request in host.running:
        assert request.sequence is not None
        seed = f"{request.sequence.request_key}/{request.output}".encode()
        words = np.frombuffer(hashlib.shake_256(seed).digest(32), np.uint16)
        rows.append(words.astype(np.float32) / 20_000)
    return np.array(rows, np.float32)


def generated(
    session: SamplingSession, schedule: Random, *, overlapping: bool = False, tokens: int = 8
) -> Outputs:
    """Generates the text of every request, which come and pause as *schedule* will have it."""
    host = ToyHost(session, overlapping=overlapping)
    waiting = schedule.sample(KEYS, len(KEYS))
    paused: list[Any] = []
    while waiting or paused or host.running:
        if waiting and schedule.random() < 0.6:
            host.add(tokens, request_key=waiting.pop())
        if paused and schedule.random() < 0.5:
            host.resume(paused.pop())
        running = [request for request in host.running if not request.finished]
        if running and schedule.random() < 0.15:
            paused.append(schedule.choice(running))
            host.preempt(paused[-1], lose=schedule.randint(0, host.unsettled(paused[-1])))
        unfinished = [request for request in host.running if schedule.random() < 0.1]
        host.begin_step()
        if host.running:
            host.step(logits_of(host), unfinished)
    host.close()
    return {request.sequence.request_key: request.output for request in host.requests}  # type: ignore[union-attr]


def recorded(folder: Path, seed: int = 0, **options: Any) -> Outputs:
    """Records a run into *folder*."""
    source = RecordedEntropySource(Random(seed).randbytes(200_000), name="device")
    usual = {"ledger_dir": folder, "ledger_blocks": True}
    overlapping = options.pop("overlapping", False)
    session = session_of(source, **{**usual, **options})
    return generated(session, Random(seed), overlapping=overlapping)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    amplifier=st.sampled_from(["zscore_mean", "exact_sum"]),
    overlapping=st.tuples(st.booleans(), st.booleans()),
    max_bytes=st.sampled_from([0, 20_000]),
)
def test_the_same_requests_give_the_same_tokens(
    seed: int,
    amplifier: str,
    overlapping: tuple[bool, bool],
    max_bytes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("recorded")
    options = {"signal_amplifier_type": amplifier, "overlapping": overlapping[0]}
    outputs = recorded(folder, seed, ledger_max_bytes=max_bytes, **options)
    again = session_of(ReplaySource(Recording(folder)), signal_amplifier_type=amplifier)
    # Others share their steps, at other times, and pause elsewhere.
    assert generated(again, Random(seed + 1), overlapping=overlapping[1]) == outputs


def test_other_bytes_would_give_other_tokens(tmp_path: Path) -> None:
    outputs = recorded(tmp_path / "a", 1)
    other = session_of(RecordedEntropySource(Random(2).randbytes(200_000), name="device"))
    assert generated(other, Random(1)) != outputs


def test_u_alone_gives_the_same_tokens(tmp_path: Path) -> None:
    outputs = recorded(tmp_path, ledger_blocks=False)
    source = ReplaySource(Recording(tmp_path))
    assert source.integrates
    assert source.recorded_settings["replays"] == "u"
    numbers = {"signal_amplifier_type": "server", "sample_count": 8}
    assert generated(session_of(source, **numbers), Random(7)) == outputs


def test_a_replay_is_recorded_as_what_it_is(tmp_path: Path) -> None:
    recorded(tmp_path / "first")
    (ledger,) = ledgers_in(tmp_path / "first")
    source = ReplaySource(Recording(ledger))
    generated(session_of(source, ledger_dir=tmp_path / "again"), Random(0))
    genesis, *lines = records_in(tmp_path / "again")
    (described,) = genesis["sources"]
    assert (described["name"], described["jit_class"]) == ("replay", "P")
    assert described["conditioning"] == "replay of a recording, never live"
    run_id = records_in(tmp_path / "first")[0]["run_id"]
    assert described["settings"] == {"runs": run_id, "replays": "blocks"}
    tokens = [line for line in lines if line["kind"] == "token"]
    assert {line["source"] for line in tokens} == {"replay"}
    assert {line["device_id"] for line in tokens} == {f"recording of run {run_id}"}


def test_a_request_that_was_not_recorded_ends_alone(tmp_path: Path) -> None:
    outputs = recorded(tmp_path)
    host = ToyHost(session_of(ReplaySource(Recording(tmp_path))))
    known = host.add(8, request_key=KEYS[0])
    stranger = host.add(8, request_key="a stranger")
    while host.running:
        host.step(logits_of(host))
    host.close()
    assert known.output == outputs[KEYS[0]]
    assert len(stranger.output) == 1
    assert stranger.sequence is not None
    assert "request 'a stranger', position 0: it was not recorded" in stranger.sequence.failure


def asked(recording: Recording, key: str = KEYS[0], position: int = 0, size: int = 24) -> str:
    """Returns why a row is not served."""
    row = RowContext("run", "sequence", position, b"", key)
    with pytest.raises(EntropyUnavailableError) as caught:
        ReplaySource(recording).draw_rows([row], [size])
    return caught.value.reason


def test_rows_that_do_not_fit_say_which_and_why(tmp_path: Path) -> None:
    recorded(tmp_path)
    recording = Recording(tmp_path)
    assert asked(recording, position=99) == f"request {KEYS[0]!r}, position 99: it was not recorded"
    assert "24 bytes were recorded, and 16 are wanted" in asked(recording, size=16)


def test_samples_under_one_key_cannot_be_told_apart(tmp_path: Path) -> None:
    source = RecordedEntropySource(Random(0).randbytes(10_000), name="device")
    host = ToyHost(session_of(source, ledger_dir=tmp_path, ledger_blocks=True))
    for _ in range(2):
        host.add(2, request_key="both")
    for _ in range(2):
        host.step()
    host.close()
    assert "several sequences were recorded under this key" in asked(Recording(tmp_path), "both")


def test_bytes_that_have_changed_are_not_handed_out(tmp_path: Path) -> None:
    recorded(tmp_path)
    recording = Recording(tmp_path)
    (blocks,) = tmp_path.glob("*.blocks")
    data = blocks.read_bytes()
    blocks.write_bytes(data[:10] + bytes(255 - each for each in data[10:]))
    assert "has changed since it was read" in asked(recording)
    blocks.write_bytes(data[:20])
    assert "has changed since it was read" in asked(recording)
    blocks.unlink()
    assert "No such file" in asked(recording)


def test_bytes_that_were_lost_are_missed(tmp_path: Path) -> None:
    recorded(tmp_path)
    (blocks,) = tmp_path.glob("*.blocks")
    blocks.write_bytes(blocks.read_bytes()[:-1])
    recording = Recording(tmp_path)
    whys = {asked_once(recording, key, position) for key in KEYS for position in range(8)}
    assert any("its bytes were not kept" in why for why in whys)
    assert "" in whys


def asked_once(recording: Recording, key: str, position: int) -> str:
    row = RowContext("run", "sequence", position, b"", key)
    try:
        ReplaySource(recording).draw_rows([row], [24])
    except EntropyUnavailableError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "has no ledgers"),
        ({"run.jsonl": b""}, "no token that could be replayed"),
        ({"run.jsonl": b"\xff\n{]\n" + json.dumps({"kind": "token"}).encode()}, "no token"),
        ({"run.jsonl": b"{}\n", "run.blocks": b"nothing"}, "does not begin like a file of blocks"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    content: dict[str, bytes], reason: str, tmp_path: Path
) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=reason):
        Recording(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("draw", [1]), ("draw", {}), ("offset", 2**70), ("block_bytes", 2**63), ("block_sum", 2**63)],
)
def test_odd_values_are_no_traceback(name: str, value: object, tmp_path: Path) -> None:
    token = {"kind": "token", "sequence": "a", "position": 0, "draw": 0, "offset": 0, "u": 0.5}
    rows = [{**token, "block_bytes": 8, name: value}, {**token, "position": 1, "block_bytes": 8}]
    lines = [{"kind": "sequence", "sequence": "a", "request_key": "k"}, *rows]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert len(Recording(tmp_path)) in (1, 2)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; check QR_REPLAY_LEDGER"):
        Recording(tmp_path / "run.jsonl")


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path)
    monkeypatch.setattr(recording_module, "MOST_TOKENS", 5)
    with pytest.raises(ConfigError, match="more than 5 tokens"):
        Recording(tmp_path)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.integers(2, 30), cut=st.integers(0, 400), junk=st.binary(max_size=8))
def test_damaged_ledgers_never_break_it(
    line: int, cut: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    recorded(folder)
    (ledger,) = ledgers_in(folder)
    lines = ledger.read_bytes().split(b"\n")
    lines[line] = lines[line][:cut] + junk + lines[line][cut:]
    ledger.write_bytes(b"\n".join(lines))
    recording = Recording(folder)
    for key in KEYS:
        asked_once(recording, key, 0)


class TestSource:
    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        recorded(tmp_path)
        monkeypatch.setenv("QR_REPLAY_LEDGER", str(tmp_path))
        return create_source("replay")

    def test_it_says_that_it_is_never_live(self, source: Any) -> None:
        assert source.jit_class is JitClass.PSEUDO
        assert "never live" in source.conditioning
        assert source.status() == source.probe()
        assert source.status().available
        assert "never live: replays blocks of" in source.status().reason

    def test_it_has_bytes_for_recorded_rows_only(self, source: Any) -> None:
        assert source.get_random_bytes(0) == b""
        with pytest.raises(EntropyUnavailableError, match="rows of recorded requests only"):
            source.draw(8)
        with pytest.raises(ValueError, match="negative"):
            source.draw(-1)

    def test_deployments_find_it(self, source: Any) -> None:
        loaded = Settings.load(entropy_source_type="replay", fallback_mode="end_request")
        guarded = configured_sources(loaded)["replay"]
        row = RowContext("run", "sequence", 0, b"", KEYS[0])
        draw = guarded.draw_rows([row], [24])
        assert (len(draw.data), draw.origin.distribution) == (24, "qr-sampler-lab")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a run."""
    folder = tmp_path_factory.mktemp("run")
    recorded(folder)
    return folder


class TestContract(EntropySourceContract):
    """What of the contract applies to a source that has bytes for certain rows only."""

    not_applicable: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "test_length_is_exact",
            "test_answers_share_no_buffer",
            "test_floats_are_uniform_lattice_points",
            "test_floats_fill_the_array_given",
            "test_output_is_not_grossly_defective",
            "test_draws_hold_plain_values",
            "test_draw_carries_its_provenance",
            "test_draw_carries_the_origin",
            "test_draw_respects_the_limits",
            "test_nothing_is_delivered_twice",
            "test_availability_is_true",
            "test_threads_share_no_bytes",
            "test_a_fork_gets_bytes_of_its_own",
            "test_use_after_close_works_or_says_unavailable",
        ),
        "it has bytes for the rows of recorded requests only",
    )

    @pytest.fixture
    def source(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("QR_REPLAY_LEDGER", str(run))
        return create_source("replay")

    @pytest.fixture
    def rows(self) -> Any:
        return [RowContext("run", "sequence", 0, b"", key) for key in KEYS[:2]], [24, 24]


def test_without_a_ledger_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QR_REPLAY_LEDGER", raising=False)
    source = create_source("replay")
    assert not source.status().available
    assert "set QR_REPLAY_LEDGER" in source.status().reason
    assert source.recorded_settings == {}
    with pytest.raises(EntropyUnavailableError, match="QR_REPLAY_LEDGER"):
        source.draw_rows([RowContext("run", "sequence", 0, b"", "a")], [8])
