# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping of both model runners, with stand-ins for vLLM's objects.

These tests run where neither vLLM nor torch is installed. The same code meets vLLM's own batch and
its real engines in ``tests/engine``.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest

from qr_sampler import (
    DiscardRecord,
    EmissionRecord,
    MemorySink,
    TokenSamplingRecord,
)
from qr_sampler.host import NumpyLogits, records_of
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_vllm.engine import session
from qr_sampler_vllm.runners import draft_rows, v2
from qr_sampler_vllm.runners.v1 import RunnerV1
from qr_sampler_vllm.runners.v2 import RunnerV2
from qr_sampler_vllm.testing import engine_config, sampling_params

VOCAB = 16


class Direction(Enum):
    """Same names as vLLM's ``MoveDirectionality``."""

    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass
class Update:
    """Same fields as vLLM's ``BatchUpdate``."""

    batch_size: int
    removed: list[int] = field(default_factory=list)
    added: list[Any] = field(default_factory=list)
    moved: list[Any] = field(default_factory=list)


class Journal(MemorySink):
    """Keeps records in memory."""

    run_id = "run"
    lost = 0
    keeps_prompts = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()

    def write(self, entries: Any) -> None:
        super().write(records_of(entries))


Sources: TypeAlias = "dict[str, ConstantEntropySource]"


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    """The sources of engines without vLLM, torch or files."""
    found = {name: ConstantEntropySource(name=name) for name in ("system", "other")}
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    monkeypatch.setenv("QR_SAMPLE_COUNT", "4")
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "1")
    monkeypatch.setenv("QR_REQUEST_ENTROPY_SOURCES", "other")
    monkeypatch.setattr(
        "qr_sampler.host.session.sampling_session.configured_sources",
        lambda *_: found,
    )
    monkeypatch.setattr("qr_sampler.host.session.session_records.Journal", Journal)
    monkeypatch.setattr("qr_sampler.components.pairing._integrates", lambda source, settings: False)
    monkeypatch.setattr(session, "warm_up", lambda **_: None)
    monkeypatch.setattr(session, "TensorLogits", lambda most_rows: NumpyLogits())
    monkeypatch.setattr(session.EngineSession, "stop_strings", stop_strings)
    monkeypatch.setattr(draft_rows, "_on_host", lambda context: context.table)
    return found


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_loops_are_compiled_for_where_the_logits_are(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, device_type: str
) -> None:
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(session, "warm_up", lambda **options: asked.append(options))
    config = engine_config()
    config.device_config.device_type = device_type
    RunnerV1(config).close()
    assert asked == [{"logits_on_host": device_type == "cpu"}]


class StopsAt:
    """Finds a stop string in the text whose last token is given."""

    def __init__(self, sampling_params: Any, history: Any) -> None:
        self._ends_at = int(sampling_params.stop[0])
        self.start_again(history)

    def found_with(self, token_id: int) -> bool:
        self._count += 1
        return self._count == self._ends_at

    def start_again(self, tokens: Any) -> None:
        self._count = len(tokens)


def stop_strings(_: Any, sampling_params: Any, prompt: Any, history: Any = ()) -> StopsAt:
    return StopsAt(sampling_params, history)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An engine in the caller's process, which emits what it has sampled."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return engine_config()


ORDINARY = {"stop", "stop_token_ids", "eos_token_id", "max_tokens"}
"""Fields of a request that tests change; everything else is a key of ours."""


def params(key: str | None = None, **changes: Any) -> SimpleNamespace:
    """A request; what vLLM does not know of *changes* becomes a ``qr_`` key."""
    arguments = {f"qr_{name}": value for name, value in changes.items() if name not in ORDINARY}
    if key is not None:
        arguments["qr_request_key"] = key
    own = {name: value for name, value in changes.items() if name in ORDINARY}
    return sampling_params(extra_args=arguments or None, **own)


def logits(rows: int) -> Any:
    return np.random.default_rng(0).normal(size=(rows, VOCAB)).astype(np.float32)


def records(runner: Any) -> list[Any]:
    """All records that are settled by now."""
    runner.flush()
    return list(runner.session._journal.records)


def tokens(runner: Any) -> list[TokenSamplingRecord]:
    return [record for record in records(runner) if isinstance(record, TokenSamplingRecord)]


def discards(runner: Any) -> list[DiscardRecord]:
    return [record for record in records(runner) if isinstance(record, DiscardRecord)]


class V1Batch:
    """vLLM's side of Model Runner V1 for rows that nothing but the test moves."""

    def __init__(self, vllm_config: Any = None) -> None:
        self.runner = RunnerV1(vllm_config or engine_config())
        self.outputs: dict[int, list[int]] = {}

    def add(self, row: int, sampling_params: Any, output: list[int] | None = None) -> None:
        """Puts a request into the batch."""
        self.outputs[row] = [] if output is None else output
        added = [(row, sampling_params, [1, 2, 3], self.outputs[row])]
        self.runner.update_state(Update(max(self.outputs) + 1, added=added))

    def step(self, *, emits: bool = True, rows: Any = None) -> Any:
        """Samples every row and appends what was sampled, as a placeholder."""
        rows = logits(max(self.outputs) + 1) if rows is None else rows
        self.runner.apply(rows)
        if emits:
            for output in self.outputs.values():
                output.append(-1)
        return rows

    def go_on(self) -> None:
        """Begins the next step with the same batch."""
        self.runner.update_state(None)

    def remove(self, row: int) -> None:
        """Takes a request out of the batch."""
        del self.outputs[row]
        self.runner.update_state(Update(max(self.outputs, default=-1) + 1, removed=[row]))


class TestRunnerV1:
    def test_a_token_is_recorded_when_vllm_goes_on_with_it(self) -> None:
        batch = V1Batch()
        batch.add(0, params("a"))
        batch.step()
        batch.runner.flush()
        assert records(batch.runner) == []
        batch.go_on()
        (record,) = tokens(batch.runner)
        assert (record.request_key, record.position) == ("a", 0)

    def test_a_token_is_recorded_at_once_where_nothing_can_intervene(
        self, at_once: SimpleNamespace
    ) -> None:
        batch = V1Batch(at_once)
        batch.add(0, params("a"))
        batch.step()
        batch.runner.flush()
        assert [record.position for record in tokens(batch.runner)] == [0]
        batch.remove(0)
        batch.runner.close()
        assert len(records(batch.runner)) == 1

    def test_the_last_token_of_an_aborted_request_is_recorded_in_the_step_that_shows_it(
        self,
    ) -> None:
        """Whether it was emitted cannot be known, and no exit hook is needed to say that."""
        batch = V1Batch()
        batch.add(0, params("a"))
        for _ in range(3):
            batch.step()
            batch.go_on()
        batch.step()
        batch.remove(0)
        batch.runner.session.write()
        found = batch.runner.session._journal.records  # type: ignore[attr-defined]
        assert [(t.kind, t.position, t.emitted) for t in found] == [
            ("token", 0, True),
            ("token", 1, True),
            ("token", 2, True),
            ("token", 3, None),
        ]
        batch.runner.close()
        assert len(records(batch.runner)) == 4

    def test_an_idle_engine_writes_its_last_tokens_all_the_same(self) -> None:
        batch = V1Batch()
        batch.add(0, params("a"))
        batch.step()
        batch.runner.write_overdue()
        batch.runner.write_overdue()
        assert [(t.position, t.emitted) for t in tokens(batch.runner)] == [(0, None)]

    def test_unfinished_prefill_becomes_a_discard(self) -> None:
        batch = V1Batch()
        batch.add(0, params("a"))
        batch.step(emits=False)
        batch.runner.flush()
        assert records(batch.runner) == []
        batch.go_on()
        batch.step()
        batch.go_on()
        discard, token = records(batch.runner)
        assert isinstance(discard, DiscardRecord)
        assert (discard.reason, discard.position, discard.block_bytes) == ("not_emitted", 0, 4)
        assert isinstance(token, TokenSamplingRecord)
        assert (token.position, token.sequence) == (0, discard.sequence)

    @pytest.mark.parametrize(
        "ends",
        [
            {"max_tokens": 2},
            {"stop": ("2",)},
            {"stop_token_ids": tuple(range(VOCAB))},
            {"eos": True},
        ],
    )
    def test_the_last_token_is_recorded_without_a_further_step(self, ends: dict[str, Any]) -> None:
        """And what is sampled before vLLM notices is not."""
        count = 2 if ends.keys() & {"max_tokens", "stop"} else 1
        if "eos" in ends:
            ends = {"eos_token_id": self.chosen()}
        batch = V1Batch()
        batch.add(0, params("a", **ends))
        for _ in range(count - 1):
            batch.step()
            batch.go_on()
        batch.step()
        batch.runner.flush()
        assert [record.position for record in tokens(batch.runner)] == list(range(count))
        batch.go_on()
        batch.step()
        batch.remove(0)
        batch.runner.close()
        assert [(d.reason, d.position) for d in discards(batch.runner)] == [("after_stop", count)]

    def chosen(self) -> int:
        batch = V1Batch()
        batch.add(0, params())
        return int(np.argmax(batch.step()[0]))

    def test_replaced_row_is_settled_for_its_old_occupant(self, at_once: SimpleNamespace) -> None:
        batch = V1Batch(at_once)
        batch.add(0, params("a"))
        batch.step()
        batch.add(0, params("b"))
        batch.step()
        batch.runner.flush()
        assert [record.request_key for record in tokens(batch.runner)] == ["a", "b"]

    def test_a_row_that_another_one_moves_onto_has_left(self) -> None:
        """vLLM lists neither its index as removed nor its request."""
        batch = V1Batch()
        for row in range(2):
            batch.add(row, params(str(row)))
        batch.step()
        batch.go_on()
        batch.step()
        del batch.outputs[0]
        batch.outputs = {0: batch.outputs.pop(1)}
        batch.runner.update_state(Update(1, moved=[(1, 0, Direction.UNIDIRECTIONAL)]))
        batch.step()
        batch.go_on()
        batch.runner.close()
        found = [(t.request_key, t.position, t.emitted) for t in tokens(batch.runner)]
        assert sorted(found, key=lambda one: one[:2]) == [
            ("0", 0, True),
            ("0", 1, None),
            ("1", 0, True),
            ("1", 1, True),
            ("1", 2, True),
        ]
        assert discards(batch.runner) == []

    def test_a_preempted_sequence_goes_on_where_it_was(self) -> None:
        batch = V1Batch()
        batch.add(0, params("a"))
        for _ in range(2):
            chosen = int(np.argmax(batch.step()[0]))
            batch.go_on()
        batch.remove(0)
        batch.add(0, params("a"), output=[chosen, chosen])
        batch.step()
        batch.go_on()
        found = tokens(batch.runner)
        assert [record.position for record in found] == [0, 1, 2]
        assert len({record.sequence for record in found}) == 1
        assert discards(batch.runner) == []

    def test_a_sequence_that_nobody_remembers_goes_on_all_the_same(self) -> None:
        batch = V1Batch()
        batch.add(0, params("a"), output=[5, 6, 7])
        batch.step()
        batch.go_on()
        assert [record.position for record in tokens(batch.runner)] == [3]

    def test_empty_batch_draws_nothing(self, sources: Sources) -> None:
        runner = RunnerV1(engine_config())
        runner.update_state(None)
        rows = logits(1)
        assert runner.apply(rows) is rows
        assert sources["system"].requests == []

    def test_each_row_obeys_its_own_overrides_after_a_swap(self) -> None:
        batch = V1Batch()
        batch.add(0, params("narrow", top_k=1))
        batch.add(1, params("wide"))
        batch.runner.update_state(Update(2, moved=[(0, 1, Direction.SWAP)]))
        batch.step()
        batch.go_on()
        candidates = {record.request_key: record.candidates for record in tokens(batch.runner)}
        assert candidates == {"narrow": 1, "wide": VOCAB}

    def test_rows_that_are_left_to_vllm_are_untouched_and_cost_nothing(
        self, sources: Sources
    ) -> None:
        batch = V1Batch()
        batch.add(0, params("ours"))
        batch.add(1, params("theirs", bypass=1))
        before = logits(2)
        after = batch.step()
        batch.go_on()
        np.testing.assert_array_equal(after[1], before[1])
        assert np.isfinite(after[0]).sum() == 1
        assert [(r.kind, r.request_key) for r in records(batch.runner)] == [
            ("bypass", "theirs"),
            ("token", "ours"),
        ]
        assert sources["system"].requests == [4]


class TestEndRequest:
    """A request ends, flagged, when no entropy is available for it; the others continue."""

    @pytest.fixture(autouse=True)
    def policy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QR_FALLBACK_MODE", "end_request")

    @pytest.mark.parametrize(("named", "forced"), [((-1, 3, VOCAB), 3), ((-1, VOCAB), 0)])
    def test_tokens_that_do_not_exist_end_nothing(
        self, sources: Sources, named: tuple[int, ...], forced: int
    ) -> None:
        batch = V1Batch(engine_config(vocab_size=VOCAB))
        batch.add(0, params("a", stop_token_ids=named, max_tokens=1))
        sources["system"].fail_with = "unplugged"
        batch.step()
        assert [(r.kind, r.token_id) for r in records(batch.runner)] == [("forced", forced)]

    def test_a_request_without_an_ending_token_is_flagged_until_its_length_ends_it(
        self, sources: Sources
    ) -> None:
        batch = V1Batch()
        batch.add(0, params("a", max_tokens=3))
        sources["system"].fail_with = "unplugged"
        for _ in range(3):
            batch.step()
            batch.go_on()
        forced = [(r.kind, r.position) for r in records(batch.runner)]
        assert forced == [("forced", 0), ("forced", 1), ("forced", 2)]


NOTHING_ALLOWED = np.full((1, VOCAB), -math.inf, np.float32)


def with_nan() -> Any:
    rows = logits(1)
    rows[0, 3] = math.nan
    return rows


class TestUndecidable:
    """A row without a finite maximum is an outcome like any other."""

    def test_what_follows_a_sequence_hears_of_its_token(self) -> None:
        """Or else a stop string is found in another place than vLLM finds it in."""
        batch = V1Batch()
        batch.add(0, params("a", stop=("3",)))
        batch.step(rows=NOTHING_ALLOWED.copy())
        batch.go_on()
        for _ in range(3):
            batch.step()
            batch.go_on()
        found = [(record.kind, record.position) for record in records(batch.runner)]
        assert found == [("undecided", 0), ("token", 1), ("token", 2), ("discard", 3)]

    def test_it_is_flagged_to_the_end_of_a_request_that_no_token_ends(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QR_FALLBACK_MODE", "end_request")
        batch = V1Batch()
        batch.add(0, params("a", max_tokens=2))
        for rows in (with_nan(), logits(1)):
            batch.step(rows=rows)
            batch.go_on()
        first, second = records(batch.runner)
        assert (first.kind, second.kind) == ("undecided", "forced")
        assert "no finite maximum (nan)" in second.reason

    def test_v2_records_it_too(self) -> None:
        runner = RunnerV2(engine_config(), states([2]))
        runner.add_request(0, params("a", stop=("2",)))
        runner.apply_staged_writes()
        for length, rows in ((2, with_nan()), (3, logits(1)), (4, logits(1))):
            runner.apply(rows, Context([0], [length]))
        found = [(record.kind, record.position) for record in records(runner)]
        assert found == [("undecided", 0), ("token", 1), ("discard", 2)]

    def test_a_draft_row_is_judged_like_any_other(self, sources: Sources) -> None:
        runner = RunnerV2(engine_config(speculative_config=SPECULATION), states([2]))
        runner.add_request(0, params("a", top_k=1))
        chosen = int(np.argmax(logits(1)[0]))
        rows = np.concatenate([logits(1), with_nan(), logits(1)])
        table = [[0, place, 1 + place, token] for place, token in enumerate((0, chosen, 3))]
        runner.apply(rows, SimpleNamespace(table=table))  # type: ignore[arg-type]
        runner.flush()
        drafted(runner, 0, 5, [])
        found = [(record.kind, record.position) for record in records(runner)]
        assert found == [("token", 0), ("undecided", 1), ("token", 2)]
        assert sources["system"].requests == [8, 4]


class Context(SimpleNamespace):
    """Same host fields as vLLM's ``LogitsContext``."""

    def __init__(self, slots: list[int], lengths: list[int]) -> None:
        super().__init__(idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=np.array(lengths))


class History:
    """Same as vLLM's ``all_token_ids``."""

    def __init__(self, slots: int) -> None:
        self.gpu = np.zeros((slots, 100), dtype=np.int32)


def states(prompt: list[int], prefill: list[int] | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        max_num_reqs=len(prompt),
        prompt_len=SimpleNamespace(np=np.array(prompt)),
        prefill_len=SimpleNamespace(np=np.array(prefill or prompt)),
        all_token_ids=History(len(prompt)),
    )


def try_lock(runner: Any) -> bool:
    """Returns whether this thread could have changed the state of *runner*."""
    got = bool(runner.lock.acquire(blocking=False))
    if got:
        runner.lock.release()
    return got


class TestRunnerV2:
    def test_positions_count_from_the_end_of_the_prompt(self, at_once: SimpleNamespace) -> None:
        runner = RunnerV2(at_once, states([0, 5, 0, 7]))
        assert runner.add_request(3, params("late"))
        assert runner.add_request(1, params("early"))
        runner.apply(logits(2), Context([3, 1], [7, 8]))
        found = {record.request_key: record.position for record in tokens(runner)}
        assert found == {"late": 0, "early": 3}

    def test_a_token_is_recorded_when_vllm_goes_on_with_it(self) -> None:
        runner = RunnerV2(engine_config(), states([2]))
        runner.add_request(0, params("a"))
        runner.apply(logits(1), Context([0], [2]))
        assert records(runner) == []
        runner.apply(logits(1), Context([0], [3]))
        assert [record.position for record in tokens(runner)] == [0]
        runner.close()
        assert [(t.position, t.emitted) for t in tokens(runner)] == [(0, True), (1, None)]
        assert discards(runner) == []

    def test_a_sequence_that_is_not_in_the_step_may_have_been_aborted(self) -> None:
        """Its slot may be taken over much later, or never."""
        runner = RunnerV2(engine_config(), states([2, 2]))
        for slot, key in enumerate("ab"):
            runner.add_request(slot, params(key))
        runner.apply(logits(2), Context([0, 1], [2, 2]))
        runner.apply(logits(1), Context([1], [3]))
        runner.session.write()
        found = runner.session._journal.records  # type: ignore[attr-defined]
        assert sorted((t.request_key, t.position, t.emitted) for t in found) == [
            ("a", 0, None),
            ("b", 0, True),
        ]
        runner.apply(logits(2), Context([0, 1], [3, 4]))
        later = [r for r in records(runner) if isinstance(r, EmissionRecord)]
        assert [(r.request_key, r.position, r.emitted) for r in later] == [("a", 0, True)]

    def test_an_idle_engine_writes_its_last_tokens_all_the_same(self) -> None:
        runner = RunnerV2(engine_config(), states([2]))
        runner.add_request(0, params("a"))
        runner.apply(logits(1), Context([0], [2]))
        runner.write_overdue()
        runner.write_overdue()
        assert [(t.position, t.emitted) for t in tokens(runner)] == [(0, None)]

    def test_nobody_sees_half_of_a_request_that_enters(self) -> None:
        """Another thread writes records at any time."""
        state = states([4], prefill=[9])
        runner = RunnerV2(engine_config(), state)
        runner.add_request(0, params("resumed"))
        held = []

        class Watched:
            def __getitem__(self, key: Any) -> Any:
                other = threading.Thread(target=lambda: held.append(try_lock(runner)))
                other.start()
                other.join()
                return state.all_token_ids.zeros[key]

        state.all_token_ids = SimpleNamespace(gpu=Watched(), zeros=np.zeros((1, 100), np.int32))
        runner.apply_staged_writes()
        assert held == [False]

    def test_unfinished_prefill_spends_nothing_and_leaves_the_row_alone(
        self, at_once: SimpleNamespace, sources: Sources
    ) -> None:
        runner = RunnerV2(at_once, states([32, 4]))
        runner.add_request(0, params("chunked"))
        runner.add_request(1, params("ready"))
        rows = logits(2)
        runner.apply(rows, Context([0, 1], [15, 4]))
        assert [record.request_key for record in tokens(runner)] == ["ready"]
        assert sources["system"].requests == [4]
        np.testing.assert_array_equal(rows[0], logits(2)[0])

    def test_a_preempted_sequence_goes_on_where_it_was(self) -> None:
        """In a slot of its own choice, while its old one may be empty or in use."""
        for taken_over in (True, False):
            state = states([2, 2])
            runner = RunnerV2(engine_config(), state)
            runner.add_request(0, params("a"))
            rows = logits(1)
            runner.apply(rows, Context([0], [2]))
            chosen = int(np.argmax(rows[0]))
            if taken_over:
                runner.add_request(0, params("b"))
            runner.apply(logits(1), Context([0], [2])) if taken_over else None
            runner._stepping = {0} if taken_over else set()
            state.prefill_len.np[1] = 3
            state.all_token_ids.gpu[1, :3] = [7, 7, chosen]
            runner.add_request(1, params("a"))
            runner.apply_staged_writes()
            runner.apply(logits(1), Context([1], [3]))
            runner.apply(logits(1), Context([1], [4]))
            found = [t for t in tokens(runner) if t.request_key == "a"]
            assert [record.position for record in found] == [0, 1]
            assert len({record.sequence for record in found}) == 1
            assert [d for d in discards(runner) if d.request_key == "a"] == []

    def test_a_resumed_sequence_that_nobody_remembers_goes_on_all_the_same(
        self, at_once: SimpleNamespace
    ) -> None:
        runner = RunnerV2(at_once, states([4], prefill=[9]))
        runner.add_request(0, params("resumed"))
        runner.apply_staged_writes()
        runner.apply(logits(1), Context([0], [8]))
        runner.apply(logits(1), Context([0], [9]))
        assert [record.position for record in tokens(runner)] == [5]

    def test_stop_strings_end_a_sequence(self) -> None:
        runner = RunnerV2(engine_config(), states([2]))
        runner.add_request(0, params("a", stop=("2",)))
        runner.apply_staged_writes()
        for length in (2, 3, 4):
            runner.apply(logits(1), Context([0], [length]))
        assert [record.position for record in tokens(runner)] == [0, 1]
        assert [(d.reason, d.position) for d in discards(runner)] == [("after_stop", 2)]

    def test_warm_up_draws_nothing(self, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(v2, "is_warming_up", lambda: True)
        runner = RunnerV2(engine_config(), states([3]))
        assert not runner.add_request(0, params("a"))
        rows = logits(1)
        assert runner.apply(rows, Context([0], [3])) is rows
        assert sources["system"].requests == []
        assert records(runner) == []

    def test_a_bypassed_request_is_declined(self, sources: Sources) -> None:
        runner = RunnerV2(engine_config(), states([3]))
        assert not runner.add_request(0, params("a", bypass=1))
        rows = logits(1)
        np.testing.assert_array_equal(runner.apply(rows, Context([0], [3])), logits(1))
        assert sources["system"].requests == []
        assert runner.session.status()["requests_left_to_engine"] == 1
        assert [(r.kind, r.request_key) for r in records(runner)] == [("bypass", "a")]

    def test_a_recycled_slot_forgets_its_last_request(self, at_once: SimpleNamespace) -> None:
        runner = RunnerV2(at_once, states([2]))
        runner.add_request(0, params("old", top_k=1))
        runner.apply(logits(1), Context([0], [2]))
        runner.add_request(0, params("new"))
        runner.apply(logits(1), Context([0], [2]))
        old, new = tokens(runner)
        assert (old.request_key, old.candidates) == ("old", 1)
        assert (new.request_key, new.candidates) == ("new", VOCAB)


DRIFTING = {
    "temperature_strategy": "varentropy",
    "varentropy_base_temp": 1.0,
    "varentropy_variance_weight": 0.0,
    "varentropy_drift_weight": 0.5,
    "varentropy_drift_rate": 0.25,
}

SPECULATION = SimpleNamespace(rejection_sample_method="standard")


def drafted(runner: RunnerV2, slot: int, length: int, drafts: list[int]) -> Any:
    """Makes a step of one request with *drafts* and returns the logits."""
    inputs = [0, *drafts]
    table = [[slot, place, length - 1 + place, token] for place, token in enumerate(inputs)]
    rows = logits(1).repeat(len(inputs), axis=0)
    runner.apply(rows, SimpleNamespace(table=table))  # type: ignore[arg-type]
    return rows


class TestDrafts:
    """Model Runner V2 with speculative decoding: one row for each draft."""

    def engine(self) -> RunnerV2:
        return RunnerV2(engine_config(speculative_config=SPECULATION), states([2, 2]))

    def chosen(self, **extra: Any) -> int:
        """The token that every row of these tests is decided on."""
        return int(np.argmax(drafted(self.started(**extra), 0, 2, [])[0]))

    def started(self, **extra: Any) -> RunnerV2:
        runner = self.engine()
        runner.add_request(0, params("a", **extra))
        return runner

    @pytest.mark.parametrize(
        ("right", "accepted"),
        [
            ((True, True), 3),
            ((True, False), 2),
            ((False, True), 1),
            ((False, False), 1),
        ],
    )
    def test_rows_after_the_first_wrong_draft_are_discards(
        self, right: tuple[bool, bool], accepted: int
    ) -> None:
        chosen = self.chosen()
        runner = self.started()
        drafted(runner, 0, 2, [chosen if hit else (chosen + 1) % VOCAB for hit in right])
        drafted(runner, 0, 2 + accepted, [])
        assert [record.position for record in tokens(runner)] == list(range(accepted))
        found = [(d.reason, d.position) for d in discards(runner)]
        assert found == [("rejected_draft", position) for position in range(accepted, 3)]

    def test_every_row_has_bytes_of_its_own(self, sources: Sources) -> None:
        drafted(self.started(), 0, 2, [1, 2])
        assert sources["system"].requests == [12]

    def test_places_without_a_draft_cost_nothing(self, sources: Sources) -> None:
        drafted(self.started(), 0, 2, [-1, 3])
        assert sources["system"].requests == [4]

    def test_accepted_drafts_after_the_end_are_discards(self) -> None:
        chosen = self.chosen()
        runner = self.started(max_tokens=2)
        drafted(runner, 0, 2, [chosen, chosen])
        assert [record.position for record in tokens(runner)] == [0, 1]
        assert [(d.reason, d.position) for d in discards(runner)] == [("after_stop", 2)]

    def test_what_vllm_did_not_go_on_from_is_a_discard(self) -> None:
        """Should vLLM reject a draft that we took for accepted, the records follow vLLM."""
        chosen = self.chosen()
        runner = self.started()
        drafted(runner, 0, 2, [chosen, chosen])
        drafted(runner, 0, 4, [])
        assert [record.position for record in tokens(runner)] == [0, 1]
        assert [(d.reason, d.position) for d in discards(runner)] == [("dropped", 2)]

    def test_running_means_are_those_of_sequential_decoding(self) -> None:
        chosen = self.chosen(**DRIFTING)
        one_by_one = self.started(**DRIFTING)
        for length in range(2, 6):
            drafted(one_by_one, 0, length, [])
        drafted(one_by_one, 0, 6, [])
        together = self.started(**DRIFTING)
        drafted(together, 0, 2, [chosen, chosen, chosen])
        drafted(together, 0, 6, [])
        found = [
            [
                (t.position, t.token_id, t.temperature, t.running_entropy_nats)
                for t in tokens(runner)
            ]
            for runner in (one_by_one, together)
        ]
        assert len(found[0]) == 4
        assert found[0] == found[1]

    def test_an_ending_request_ends_in_its_first_row(
        self, sources: Sources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QR_FALLBACK_MODE", "end_request")
        runner = self.started(eos_token_id=9)
        sources["system"].fail_with = "unplugged"
        rows = drafted(runner, 0, 2, [9, 4])
        assert np.argmax(rows, axis=1).tolist() == [9, 9, 9]
        assert [(r.kind, r.position) for r in records(runner)] == [("forced", 0)]
