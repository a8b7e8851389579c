# SPDX-License-Identifier: Apache-2.0
"""What a session remembers of sequences, and what becomes of those that get no entropy."""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    EntropyUnavailableError,
    RowContext,
    RunningMean,
    Settings,
    StepResult,
    link_digest,
    row_digest,
    step_commitment,
)
from qr_sampler.host import (
    UNKNOWN_TOKEN,
    DepartedSequences,
    EngineFacts,
    NumpyLogits,
    SamplingSession,
    StopConditions,
    TokenSequence,
)
from qr_sampler.records.long_values import MOST_IDS
from qr_sampler.testing import ConstantEntropySource, ToyHost, records_in
from qr_sampler.testing.toy_host import END_TOKEN, VOCAB_SIZE


class LapsingSource(ConstantEntropySource):
    """Is too late with every draw of more than so many bytes.

    Args:
        largest: How many.
    """

    def __init__(self, largest: int) -> None:
        super().__init__(name="device")
        self._largest = largest

    def get_random_bytes(self, n: int) -> bytes:
        data = super().get_random_bytes(n)
        if n > self._largest:
            raise EntropyUnavailableError(self.name, "too late")
        return data


class NotedLogits(NumpyLogits):
    """Notes the running means of each step."""

    def __init__(self) -> None:
        self.running_entropy: list[list[float]] = []

    def sample(self, pipeline: Any, logits: Any, lines: Any, rows: Any, contexts: Any) -> Any:
        self.running_entropy.append(rows.running_entropy.tolist())
        return super().sample(pipeline, logits, lines, rows, contexts)


class World:
    """A toy host with two sources and a ledger."""

    def __init__(
        self,
        folder: Path,
        *,
        device: ConstantEntropySource | None = None,
        overlapping: bool = False,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.device = device or ConstantEntropySource(name="device")
        self.other = ConstantEntropySource(name="other")
        settings.setdefault("fallback_mode", "end_request")
        loaded = Settings.load(
            entropy_source_type="device",
            request_entropy_sources="other",
            sample_count=4,
            max_ks_distance=1,
            ledger_dir=folder,
            **settings,
        )
        self.seen = NotedLogits()
        self.session = SamplingSession(
            EngineFacts(engine="toy", model="none"),
            loaded,
            access=self.seen,
            sources={"device": self.device, "other": self.other},
        )
        self.host = ToyHost(self.session, overlapping=overlapping)

    def step(self, rows: Any = None) -> Any:
        """Makes a step of the whole batch and shows that the host goes on from it."""
        rows = logits(len(self.host.running)) if rows is None else rows
        self.host.step(rows)
        self.host.begin_step()
        return rows

    def records(self) -> list[dict[str, Any]]:
        """All records by now, the first one left out."""
        self.host.flush()
        return records_in(self.folder)[1:]

    def kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.records() if line["kind"] == kind]

    def tokens(self) -> list[dict[str, Any]]:
        return self.kind("token")


def logits(rows: int) -> Any:
    made = np.random.default_rng(0).normal(size=(rows, VOCAB_SIZE)).astype(np.float32)
    made[:, END_TOKEN] -= 9.0
    return made


@pytest.fixture(autouse=True)
def _sources_deliver_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qr_sampler.components.pairing._integrates", lambda *_: False)


@pytest.fixture
def world_of(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a world; its ledger is closed when the test is over."""
    made: list[World] = []

    def make(**options: Any) -> World:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(World(folder, **options))
        return made[-1]

    yield make
    for each in made:
        each.session.close()


@pytest.fixture
def world(world_of: Callable[..., World]) -> World:
    return world_of()


class TestWithoutEntropy:
    """A request ends, flagged, when there is no entropy for it; the others go on."""

    def test_only_the_affected_requests_end(self, world: World) -> None:
        world.host.add(request_key="dead", entropy_source="other")
        world.host.add(request_key="alive")
        world.step()
        world.other.fail_with = "unplugged"
        rows = world.step()
        assert np.argmax(rows[0]) == END_TOKEN
        assert np.isfinite(rows[0]).sum() == 1
        (forced,) = world.kind("forced")
        assert (forced["request_key"], forced["position"]) == ("dead", 1)
        assert (forced["token_id"], forced["source"]) == (END_TOKEN, "other")
        assert "unplugged" in forced["reason"]
        assert [t["request_key"] for t in world.tokens()] == ["dead", "alive", "alive"]

    def test_a_shared_draw_that_fails_ends_nobody_who_can_be_served_alone(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(device=LapsingSource(largest=4 * 3))
        for line in range(4):
            world.host.add(request_key=f"row {line}")
        world.step()
        assert [t["request_key"] for t in world.tokens()] == [f"row {line}" for line in range(4)]
        assert world.device.requests == [16, 4, 4, 4, 4]

    def test_only_the_row_that_needs_the_refused_draw_ends(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(device=LapsingSource(largest=20))
        world.host.add(request_key="large", sample_count=64)
        for line in (1, 2):
            world.host.add(request_key=f"small {line}")
        world.step()
        kinds = sorted((line["kind"], line["request_key"]) for line in world.records())
        assert kinds == [("forced", "large"), ("token", "small 1"), ("token", "small 2")]

    def test_what_was_admitted_and_cannot_be_served_ends(self, world: World) -> None:
        """As where another process has admitted it, which has a component that this has not."""
        world.host.add(request_key="strange", temperature_strategy="elsewhere")
        world.host.add(request_key="ordinary")
        world.step()
        (forced,) = world.kind("forced")
        assert "qr_temperature_strategy='elsewhere'" in forced["reason"]
        assert [t["request_key"] for t in world.tokens()] == ["ordinary"]

    def test_that_ends_where_ordinary_fields_are_followed_too(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(follow_request=True)
        world.host.add(request_key="without fields")
        world.step()
        assert [line["kind"] for line in world.records()] == ["forced"]

    def test_a_source_that_serves_nobody_ends_all_who_draw_from_it(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(device=LapsingSource(largest=0))
        for line in range(4):
            world.host.add(request_key=f"row {line}")
        world.step()
        assert [line["kind"] for line in world.records()] == ["forced"] * 4

    def test_blocks_of_very_different_sizes_do_not_share_a_draw(self, world: World) -> None:
        for size in (4, 4096, 64, 65):
            world.host.add(sample_count=size)
        world.step()
        assert world.device.requests == [4 + 64, 65, 4096]

    def test_nothing_is_drawn_for_a_request_that_is_ending(
        self, world_of: Callable[..., World]
    ) -> None:
        """Not even when the source is back before the host has ended the request."""
        world = world_of(overlapping=True)
        world.host.add(request_key="a")
        world.device.fail_with = "unplugged"
        world.step()
        world.device.fail_with = None
        rows = world.step()
        assert np.argmax(rows[0]) == END_TOKEN
        assert [line["kind"] for line in world.records()] == ["forced"]
        assert world.device.requests == []

    def test_the_operator_can_have_the_engine_stop_instead(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(fallback_mode="error")
        world.host.add(request_key="served", sample_count=8)
        world.host.add(request_key="not served", entropy_source="other")
        world.other.fail_with = "unplugged"
        with pytest.raises(EntropyUnavailableError, match="unplugged"):
            world.step()
        (discard,) = world.records()
        assert (discard["kind"], discard["request_key"]) == ("discard", "served")
        assert (discard["block_bytes"], discard["reason"]) == (8, "step_failed")
        assert world.device.requests == [8]

    def test_a_row_that_cannot_be_forced_leaves_no_byte_unrecorded(
        self, world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = world_of()
        world.host.add(request_key="served", sample_count=8)
        world.host.add(request_key="masked")
        rows = logits(2)
        rows[1] = -math.inf
        read_only = RuntimeError("read-only")

        def refuse(*_: object) -> tuple[int, str]:
            raise read_only

        monkeypatch.setattr("qr_sampler.host.session.sampling_session.defect_of", refuse)
        with pytest.raises(RuntimeError, match="read-only"):
            world.step(rows)
        (discard,) = world.records()
        assert (discard["block_bytes"], discard["reason"]) == (8, "step_failed")


NOTHING_ALLOWED = np.full((1, VOCAB_SIZE), -math.inf, np.float32)


def row_with(token_id: int, value: float) -> Any:
    rows = logits(1)
    rows[0, token_id] = value
    return rows


class TestUndecidable:
    """A row without a finite maximum is an outcome like any other."""

    @pytest.mark.parametrize(
        ("rows", "token_id", "reason"),
        [
            (NOTHING_ALLOWED, 0, "masked"),
            (row_with(3, math.nan), 3, "nan"),
            (row_with(5, math.inf), 5, "infinite"),
        ],
    )
    def test_its_token_is_known_and_recorded(
        self, world_of: Callable[..., World], rows: Any, token_id: int, reason: str
    ) -> None:
        world = world_of(fallback_mode="error")
        world.host.add(request_key="a", trial="t")
        row = world.step(rows.copy())[0]
        assert np.flatnonzero(np.isfinite(row)).tolist() == [token_id]
        assert world.device.requests == []
        (record,) = world.kind("undecided")
        assert (record["token_id"], record["reason"], record["position"]) == (token_id, reason, 0)
        assert (record["request_key"], record["trial"], record["emitted"]) == ("a", "t", True)

    def test_its_neighbours_are_decided(self, world: World) -> None:
        for key in "ab":
            world.host.add(request_key=key)
        world.step(np.concatenate([NOTHING_ALLOWED, logits(1)]))
        kinds = sorted((line["request_key"], line["kind"]) for line in world.records())
        assert kinds == [("a", "undecided"), ("b", "token")]

    def test_it_ends_its_request_where_the_operator_ends_those_without_entropy(
        self, world: World
    ) -> None:
        request = world.host.add(request_key="a")
        world.step(NOTHING_ALLOWED.copy())
        assert request.output == [END_TOKEN]
        assert world.host.running == []

    def test_a_mean_and_a_link_go_on_from_the_last_token_that_entropy_chose(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(fallback_mode="error")
        world.device.commits = True
        world.host.add(request_key="a", **DRIFTING)
        for rows in (spread_logits(1.0), NOTHING_ALLOWED.copy(), spread_logits(2.0)):
            world.step(rows)
        first, second = world.tokens()
        assert second["running_entropy_nats"] == as_strategies_see(first)
        link = link_digest(bytes.fromhex(first["row_digest"]), first["token_id"], first["u"])
        assert second["row_digest"] == digest_of(second, world.session.run_id, link).hex()


def spread_logits(*spreads: float) -> Any:
    """Rows of different entropies, which a step can be told by."""
    return np.outer(spreads, logits(1)[0]).astype(np.float32)


DRIFTING = {
    "temperature_strategy": "varentropy",
    "varentropy_base_temp": 1.0,
    "varentropy_variance_weight": 0.0,
    "varentropy_drift_weight": 0.5,
    "varentropy_drift_rate": 0.25,
}


def as_strategies_see(token: dict[str, Any]) -> float:
    """Returns the entropy of a record rounded to a multiple of 2**-10."""
    return round(float(token["entropy_nats"]) * 1024.0) / 1024.0


def replayed(tokens: list[dict[str, Any]]) -> list[float]:
    """The running mean before each token of one request, recomputed from its records."""
    mean, before = RunningMean(rate=0.25), []
    for token in tokens:
        before.append(mean.value)
        mean.observe(as_strategies_see(token))
    return before


def digest_of(token: dict[str, Any], run_id: str, link: bytes) -> bytes:
    """Returns the row digest that a token must have."""
    return row_digest(
        RowContext(run_id, token["sequence"], token["position"], link),
        temperature=token["temperature"],
        entropy_nats=token["entropy_nats"],
        varentropy_nats2=token["varentropy_nats2"],
    )


def linked(run: list[dict[str, Any]], run_id: str) -> list[str]:
    """Returns the row digests that the tokens of one sequence must have, from the records alone."""
    link, digests = b"", []
    for token in run:
        digest = digest_of(token, run_id, link)
        digests.append(digest.hex())
        link = link_digest(digest, token["token_id"], token["u"])
    return digests


class TestCommitments:
    """What a source is told follows from the records, whatever else was sampled."""

    @pytest.fixture(autouse=True)
    def listening(self, world: World) -> None:
        world.device.commits = True

    def test_rows_are_linked_through_what_was_emitted(self, world: World) -> None:
        request = world.host.add(request_key="a")
        world.step(spread_logits(1.0))
        # This token is dropped, and with it the link that it made.
        world.host.step(spread_logits(2.0))
        world.host.preempt(request, lose=1)
        world.host.resume(request)
        world.step(spread_logits(3.0))
        world.step(spread_logits(4.0))
        run = [token for token in world.tokens() if token["emitted"]]
        assert len(run) == 3
        assert [token["row_digest"] for token in run] == linked(run, world.session.run_id)

    def test_every_row_of_a_step_is_in_its_commitment(self, world: World) -> None:
        for key in "abc":
            world.host.add(request_key=key)
        for step in range(3):
            world.step(spread_logits(0.5 + step, 2.5, 1.0))
        steps: dict[str, list[bytes]] = {}
        for token in world.tokens():
            steps.setdefault(token["commitment"], []).append(bytes.fromhex(token["row_digest"]))
        assert [len(rows) for rows in steps.values()] == [3, 3, 3]
        for told, rows in steps.items():
            assert step_commitment(rows).hex() == told

    def test_who_does_not_listen_is_told_nothing(self, world: World) -> None:
        world.device.commits = False
        world.host.add(request_key="a")
        world.step()
        (token,) = world.tokens()
        assert (token["commitment"], token["row_digest"], token["echo_verified"]) == ("", "", None)


class TestRunningEntropy:
    """The running mean is that of the emitted tokens, whatever else was sampled."""

    def test_each_request_has_its_own(self, world: World) -> None:
        for key in "ab":
            world.host.add(request_key=key, **DRIFTING)
        for step in range(4):
            world.step(spread_logits(0.5 + step, 2.5 - 0.5 * step))
        means = [
            replayed([token for token in world.tokens() if token["request_key"] == key])
            for key in "ab"
        ]
        np.testing.assert_array_equal(world.seen.running_entropy, np.transpose(means))
        assert len({mean for own in means for mean in own[1:]}) == 6

    def test_what_the_host_threw_away_does_not_count(self, world: World) -> None:
        request = world.host.add(request_key="a", **DRIFTING)
        for step, emits in enumerate((False, False, True, False, True, True)):
            world.host.step(spread_logits(0.5 + step), unfinished=[] if emits else [request])
        world.host.begin_step()
        assert len(world.records()) == 6
        before = replayed(world.tokens())
        np.testing.assert_array_equal(
            [mean for (mean,) in world.seen.running_entropy],
            [before[0], before[0], before[0], before[1], before[1], before[2]],
        )

    def test_a_token_that_was_dropped_does_not_count(self, world_of: Callable[..., World]) -> None:
        world = world_of(overlapping=True)
        request = world.host.add(request_key="a", **DRIFTING)
        world.host.step(spread_logits(1.0))
        world.host.step(spread_logits(2.0))
        world.host.preempt(request, lose=1)
        world.host.resume(request)
        world.host.step(spread_logits(3.0))
        token, dropped = world.tokens()
        assert (token["position"], dropped["position"]) == (0, 1)
        mean = as_strategies_see(token)
        np.testing.assert_array_equal(world.seen.running_entropy, [[np.nan], [mean], [mean]])

    def test_a_token_after_the_last_does_not_count(self, world_of: Callable[..., World]) -> None:
        world = world_of(overlapping=True)
        world.host.add(max_tokens=1, request_key="a", **DRIFTING)
        for spread in (2.0, 3.0):
            world.host.step(spread_logits(spread))
        (token,) = world.tokens()
        (discard,) = world.kind("discard")
        assert (discard["reason"], discard["position"]) == ("after_stop", 1)
        mean = as_strategies_see(token)
        np.testing.assert_array_equal(world.seen.running_entropy, [[np.nan], [mean]])

    def test_temperatures_follow_from_the_records(self, world: World) -> None:
        world.host.add(request_key="a", varentropy_entropy_weight=0.2, **DRIFTING)
        for step in range(2, 12):
            world.step(spread_logits(0.3 * step))
        tokens = world.tokens()
        assert len(tokens) == 10
        for token, before in zip(tokens, replayed(tokens), strict=True):
            drift = 0.0 if np.isnan(before) else as_strategies_see(token) - before
            expected = 1.0 + 0.2 * as_strategies_see(token) + 0.5 * drift
            assert token["temperature"] == pytest.approx(expected, rel=1e-14)


class TestRecordKeeping:
    """Records wait until it is known what became of a token, but not for ever."""

    def test_an_idle_host_writes_its_last_tokens_all_the_same(self, world: World) -> None:
        world.host.add(request_key="a")
        world.host.step(logits(1))
        world.host.write_overdue()
        assert world.records() == []
        world.host.write_overdue()
        assert [(t["position"], t["emitted"]) for t in world.tokens()] == [(0, None)]
        world.step()
        _, shown, second = world.records()
        assert (shown["kind"], shown["position"], shown["emitted"]) == ("emission", 0, True)
        assert (second["position"], second["emitted"]) == (1, True)
        assert shown["sequence"] == second["sequence"]

    def test_a_host_that_ends_writes_what_remains(self, world: World) -> None:
        world.host.add(request_key="a")
        world.host.step(logits(1))
        world.host.close()
        assert [(t["position"], t["emitted"]) for t in world.tokens()] == [(0, None)]

    def test_where_steps_overlap_the_next_one_shows_nothing(
        self, world_of: Callable[..., World]
    ) -> None:
        world = world_of(overlapping=True)
        request = world.host.add(request_key="a")
        for _ in range(4):
            world.host.step(logits(1))
        world.host.abort(request)
        shown = [(t["position"], t["emitted"]) for t in world.tokens()]
        assert shown == [(0, True), (1, True), (2, None), (3, None)]

    @pytest.mark.parametrize("lose", [0, 1])
    def test_the_token_on_the_way_of_a_preempted_sequence_is_settled_when_it_comes_back(
        self, world: World, lose: int
    ) -> None:
        request = world.host.add(request_key="a")
        world.step()
        world.host.step(logits(1))
        first, second = request.output
        world.host.preempt(request, lose=lose)
        world.host.resume(request)
        told = [(t["position"], t["token_id"], t["emitted"]) for t in world.tokens()]
        assert told == [(0, first, True), (1, second, None)]
        (later,) = world.kind("emission")
        assert (later["position"], later["token_id"]) == (1, second)
        assert later["emitted"] is (lose == 0)
        assert later["reason"] == ("dropped_on_resumption" if lose else "")

    def test_a_token_that_is_dropped_is_forgotten_and_its_bytes_are_discarded(
        self, world: World
    ) -> None:
        request = world.host.add(request_key="a")
        world.step()
        world.host.step(logits(1))
        assert request.sequence is not None
        world.session.record(request.sequence.drop("dropped", keep=1))
        assert request.sequence.tokens == request.output[:1]
        (discard,) = world.kind("discard")
        assert (discard["position"], discard["reason"], discard["block_bytes"]) == (1, "dropped", 4)

    def test_sequences_of_one_request_have_names_of_their_own(self, world: World) -> None:
        for _ in range(3):
            world.host.add(request_key="same")
        world.step()
        assert len({token["sequence"] for token in world.tokens()}) == 3

    def test_a_request_without_a_key_gets_a_unique_one(self, world: World) -> None:
        for _ in range(2):
            world.host.add()
        world.step()
        keys = {token["request_key"] for token in world.tokens()}
        assert len(keys) == 2
        assert all(keys)

    def test_what_is_left_to_the_host_costs_nothing(self, world: World) -> None:
        world.host.add(request_key="ours")
        world.host.add(request_key="theirs", bypass=1)
        after = world.step()
        np.testing.assert_array_equal(after[1], logits(2)[1])
        assert world.device.requests == [4]
        kinds = [(line["kind"], line["request_key"]) for line in world.records()]
        assert kinds == [("bypass", "theirs"), ("token", "ours")]
        assert world.session.status()["requests_left_to_engine"] == 1

    def test_each_source_is_asked_once_for_all_of_its_rows(self, world: World) -> None:
        for row, name in enumerate(("device", "other", "device")):
            world.host.add(request_key=str(row), entropy_source=name)
        world.step()
        by_row = {token["request_key"]: token["source"] for token in world.tokens()}
        assert by_row == {"0": "device", "1": "other", "2": "device"}
        assert (world.device.requests, world.other.requests) == ([8], [4])

    def test_a_host_without_rows_draws_nothing(self, world: World) -> None:
        world.host.step()
        assert world.device.requests == []


class TestDeparted:
    """An engine that resumes a sequence says what its tokens are, not which it is."""

    def gone(self, world: World, tokens: int, **options: Any) -> TokenSequence:
        request = world.host.add(request_key="a", **options)
        for _ in range(tokens):
            world.step()
        world.host.running.remove(request)
        assert request.sequence is not None
        return request.sequence

    def test_options_and_tokens_tell_it(self, world: World) -> None:
        departed = DepartedSequences(4)
        sequence, other = self.gone(world, 2), self.gone(world, 2, top_k=1)
        for each in (sequence, other):
            assert departed.add(each) == []
        assert departed.take(sequence.options, [VOCAB_SIZE, VOCAB_SIZE]) is None
        assert departed.take(sequence.options, [sequence.tokens[0], UNKNOWN_TOKEN]) is sequence
        assert departed.take(sequence.options, sequence.tokens) is None
        assert departed.take(other.options, other.tokens) is other

    def test_the_oldest_are_forgotten(self, world: World) -> None:
        departed = DepartedSequences(1)
        first, second = self.gone(world, 1), self.gone(world, 1)
        for each in (first, second):
            departed.add(each)
        assert departed.take(first.options, first.tokens) is second
        assert departed.take(first.options, first.tokens) is None

    def test_what_has_ended_does_not_come_back(self, world: World) -> None:
        request = world.host.add(max_tokens=1, request_key="a")
        world.step()
        assert request.sequence is not None
        departed = DepartedSequences(4)
        assert departed.add(request.sequence) == []
        assert departed.take(request.sequence.options, request.output) is None

    def test_it_holds_on_to_no_step(self, world_of: Callable[..., World]) -> None:
        """Sequences are remembered for long, because a preempted one may come back at any time."""
        block = 50_000
        world = world_of(overlapping=True)
        departed = DepartedSequences(4)
        for _ in range(3):
            request = world.host.add(request_key="a", sample_count=block)
            for _ in range(3):
                world.host.step(logits(1))
            steps = [each for each in reachable(request.sequence) if isinstance(each, StepResult)]
            assert steps
            for step in steps:
                # A thread that hashes holds the bytes until it has.
                assert step.data_digest is not None
                step.data_digest.result(60)
            assert largest(reachable(request.sequence)) < block
            assert largest(reachable(world.session._handover._entries)) < block
            world.host.running.remove(request)
            assert request.sequence is not None
            world.session.record(departed.add(request.sequence))
        remembered = reachable(departed)
        assert sum(isinstance(each, TokenSequence) for each in remembered) == 3
        assert not any(isinstance(each, StepResult) for each in remembered)


def reachable(root: Any) -> list[Any]:
    """Returns all objects that *root* keeps alive, but for classes, modules and functions."""
    reached: dict[int, Any] = {}
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in reached or isinstance(each, (type, ModuleType, FunctionType)):
            continue
        reached[id(each)] = each
        waiting += gc.get_referents(each)
    return list(reached.values())


def largest(objects: list[Any]) -> int:
    """Returns the size of the largest piece of data among *objects*, in bytes."""
    texts = [len(each) for each in objects if isinstance(each, (bytes, bytearray))]
    return max([*texts, *(each.nbytes for each in objects if isinstance(each, np.ndarray))])


class EndsAt:
    """Finds a stop string in the text that has so many tokens."""

    def __init__(self, count: int) -> None:
        self._ends_at, self._count = count, 0

    def found_with(self, token_id: int) -> bool:
        self._count += 1
        return self._count == self._ends_at

    def start_again(self, tokens: Any) -> None:
        self._count = len(tokens)


@pytest.mark.parametrize(
    ("conditions", "length"),
    [
        ({"token_ids": frozenset({4})}, 5),
        ({"max_tokens": 3}, 3),
        ({"max_length": 9, "prompt_length": 7}, 2),
        ({"repeats": lambda tokens: len(tokens) == 2, "min_tokens": 3}, 6),
        ({"repeats": lambda tokens: len(tokens) >= 2, "min_tokens": 3}, 3),
        ({"stop_strings": EndsAt(4)}, 4),
        ({}, 6),
    ],
)
def test_conditions_end_a_sequence(conditions: dict[str, Any], length: int) -> None:
    stop = StopConditions(**conditions)
    tokens: list[int] = []
    while len(tokens) < 6:
        tokens.append(len(tokens))
        if stop.end_with(tokens):
            break
    assert len(tokens) == length


def test_of_many_stop_tokens_the_ledger_has_a_digest() -> None:
    def told(token_ids: Sequence[int]) -> Any:
        return StopConditions(frozenset(token_ids)).as_dict()["token_ids"]

    assert told([7, -1]) == [-1, 7]
    for many in (range(MOST_IDS + 1), [2**63, 7], [-(2**63)]):
        text = json.dumps(sorted(many), separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert told(many) == {"count": len(many), "sha256": digest}


def test_conditions_go_on_from_what_was_taken_back() -> None:
    stop = StopConditions(stop_strings=EndsAt(3))
    assert [stop.end_with([1] * count) for count in (1, 2)] == [False, False]
    stop.start_again([1])
    assert [stop.end_with([1] * count) for count in (2, 3)] == [False, True]
