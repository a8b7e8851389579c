# SPDX-License-Identifier: Apache-2.0
"""Hosts with one fault each, made from the adapter that ``docs/engines.md`` shows.

Collected by ``test_core_planted_faults.py``, in a process of its own, with the only clause that may
notice the fault.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, ClassVar

import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, FallbackEntropySource
from qr_sampler.host import (
    DiscardEntry,
    EngineFacts,
    SamplingSession,
    SequenceEnd,
    StepRows,
    TokenEntry,
)
from qr_sampler.testing import HostContract

PAGE = Path(__file__).resolve().parents[4] / "docs" / "engines.md"


def shown(name: str) -> Any:
    """Returns the module called *name* that the page shows."""
    module = ModuleType(name)
    sys.modules[name] = module
    pattern = rf"<!-- file: {name}\.py;[^>]*-->\n```python\n(.*?)```"
    (code,) = re.findall(pattern, PAGE.read_text("utf-8"), flags=re.DOTALL)
    exec(compile(code, f"{PAGE}:{name}", "exec"), module.__dict__)
    return module


SHOWN: Any = shown("my_host")
Driver: Any = shown("test_my_host").Driver
TimedBigrams: Any = sys.modules["test_my_host"].TimedBigrams


class Host(SHOWN.BigramHost):  # type: ignore[misc]
    """The sound one, which can also throw tokens away."""

    def __init__(self, model: Any, settings: Any, sources: Mapping[str, EntropySource]) -> None:
        super().__init__(model, settings, sources)
        self.to_throw: dict[int, int] = {}
        """By index of a text, after how many of its tokens one is thrown away."""
        self.begun: list[Any] = []
        """The texts of the latest call."""
        record = self.session.record
        self.session.record = lambda entries: record(self.kept(list(entries)))

    def kept(self, entries: list[Any]) -> list[Any]:
        return entries

    def generate(self, prompts: Any, max_tokens: Any, options: Any, on_token: Any) -> Any:
        self.begun = []
        return super().generate(prompts, max_tokens, options, on_token)

    def _begin(self, *arguments: Any) -> Any:
        text = super()._begin(*arguments)
        self.begun.append(text)
        return text

    def _step(self, running: list[Any]) -> list[Any]:
        return [text for text in super()._step(running) if not self.throws(text)]

    def throws(self, text: Any) -> bool:
        index = self.begun.index(text) if text in self.begun else -1
        if self.to_throw.get(index) != len(text.tokens):
            return False
        del self.to_throw[index]
        self.throw_away(text)
        return True

    def throw_away(self, text: Any) -> None:
        self.session.record(text.sequence.drop("thrown_away", keep=len(text.tokens)))

    def waste(self, texts: list[Any], reason: str) -> None:
        """Draws for *texts*, which get no token."""
        if texts:
            logits = self._model.forward([text.prompt for text in texts])
            sequences = [text.sequence for text in texts]
            lines = list(range(len(texts)))
            step = StepRows(lines, sequences, [len(text.tokens) for text in texts])
            for sequence, outcome in zip(sequences, self.session.decide(logits, step), strict=True):
                self.session.record(sequence.wasted(outcome, reason))


class Untimed(TimedBigrams):  # type: ignore[misc]
    forward = SHOWN.Bigrams.forward


class FaultyDriver(Driver):  # type: ignore[misc]
    """Drives a host of a given kind."""

    def __init__(self, settings: Any, sources: Any, kind: Any, model: Any) -> None:
        self._model = model()
        self._host = kind(self._model, settings, sources)

    def generate(self, requests: Any, on_token: Any) -> Any:
        self._host.to_throw = {
            index: request.throw_away_after
            for index, request in enumerate(requests)
            if request.throw_away_after is not None
        }
        return super().generate(requests, on_token)


class Checks(HostContract):
    engine = "bigrams"
    model = "table-64"
    kind: ClassVar[Any] = Host
    computes: ClassVar[Any] = TimedBigrams

    @pytest.fixture(autouse=True)
    def _hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is installed, its digests and waits for the disk would take most of the time."""
        monkeypatch.setattr("qr_sampler.records.genesis.code_digests", lambda *_: {})
        monkeypatch.setattr("qr_sampler.host.journal.foreign_components", lambda *_: [])
        monkeypatch.setattr("qr_sampler.records.files.append_file._sync_data", lambda *_: None)

    @pytest.fixture
    def start(self) -> Any:
        return partial(FaultyDriver, kind=self.kind, model=self.computes)


class TestSoundHost(Checks):
    caught_by = ""


class RecordsTwice(Host):
    def kept(self, entries: list[Any]) -> list[Any]:
        return [*entries, *(entry for entry in entries if isinstance(entry, TokenEntry))]


class TestRecordsTwice(Checks):
    kind = RecordsTwice
    caught_by = "test_each_token_handed_over_has_one_record"


class NamesNoEngine(Host):
    def __init__(self, *arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                SHOWN, "EngineFacts", lambda **facts: EngineFacts(**facts | {"engine": ""})
            )
            super().__init__(*arguments)


class TestNamesNoEngine(Checks):
    kind = NamesNoEngine
    caught_by = "test_the_ledger_names_the_engine_and_the_model"


class LeavesTheLedgerOpen(Host):
    def close(self) -> None:
        self.flush()


class TestLeavesTheLedgerOpen(Checks):
    kind = LeavesTheLedgerOpen
    caught_by = "test_the_ledger_is_closed_and_chained"


class DoesNotSettle(Host):
    def kept(self, entries: list[Any]) -> list[Any]:
        return [
            entry._replace(emitted=None) if isinstance(entry, TokenEntry) else entry
            for entry in entries
        ]


class TestDoesNotSettle(Checks):
    kind = DoesNotSettle
    caught_by = "test_records_say_what_was_emitted"


class MixesUpReaders(Host):
    def generate(self, prompts: Any, max_tokens: Any, options: Any, on_token: Any) -> Any:
        count = len(prompts)

        def hand_over(index: int, token_id: int) -> object:
            return on_token((index + 1) % count, token_id)

        return super().generate(prompts, max_tokens, options, hand_over)


class TestMixesUpReaders(Checks):
    kind = MixesUpReaders
    caught_by = "test_texts_of_a_batch_have_their_own_records"


class EndsTextsWithTheRun(Host):
    ends: ClassVar[list[Any]] = []

    def kept(self, entries: list[Any]) -> list[Any]:
        return [
            entry._replace(reason="closed") if isinstance(entry, SequenceEnd) else entry
            for entry in entries
        ]


class TestEndsTextsWithTheRun(Checks):
    kind = EndsTextsWithTheRun
    caught_by = "test_a_text_ends_once_in_the_ledger"


class DefersEnds(Host):
    """Keeps the ends of its texts until it ends itself."""

    def __init__(self, *arguments: Any) -> None:
        self.ends: list[Any] = []
        super().__init__(*arguments)

    def kept(self, entries: list[Any]) -> list[Any]:
        self.ends += [entry for entry in entries if isinstance(entry, SequenceEnd)]
        return [entry for entry in entries if not isinstance(entry, SequenceEnd)]

    def close(self) -> None:
        SamplingSession.record(self.session, self.ends)
        super().close()


class TestDefersEnds(Checks):
    kind = DefersEnds
    caught_by = "test_a_text_ends_once_in_the_ledger"


class SwapsPositions(Host):
    """Takes the positions of its first two texts for each other's while both get tokens."""

    def kept(self, entries: list[Any]) -> list[Any]:
        return [
            entry._replace(position=self.swapped(entry)) if isinstance(entry, TokenEntry) else entry
            for entry in entries
        ]

    def swapped(self, entry: TokenEntry) -> int:
        running = [text.sequence for text in self.begun[:2] if text in self._open]
        if len(running) < 2 or entry.sequence not in running:
            return entry.position
        other = running[1 - running.index(entry.sequence)]
        return len(other.tokens) - 1 if other.tokens else entry.position


class TestSwapsPositions(Checks):
    kind = SwapsPositions
    caught_by = "test_texts_of_a_batch_have_their_own_records"


class MixesUpOptions(Host):
    def generate(self, prompts: Any, max_tokens: Any, options: Any, on_token: Any) -> Any:
        mixed = [{**options[0], "qr_request_key": own["qr_request_key"]} for own in options]
        return super().generate(prompts, max_tokens, mixed, on_token)


class TestMixesUpOptions(Checks):
    kind = MixesUpOptions
    caught_by = "test_options_reach_their_row"


class DrawsAtItsStart(Host):
    def __init__(self, model: Any, settings: Any, sources: Mapping[str, EntropySource]) -> None:
        super().__init__(model, settings, sources)
        next(iter(sources.values())).get_random_bytes(16)


class TestDrawsAtItsStart(Checks):
    kind = DrawsAtItsStart
    caught_by = "test_nothing_is_drawn_without_a_request"


class DrawsForRowsThatHaveEnded(Host):
    def _step(self, running: list[Any]) -> list[Any]:
        self.waste([text for text in self.begun if text.sequence.ended], "after_stop")
        return super()._step(running)


class TestDrawsForRowsThatHaveEnded(Checks):
    kind = DrawsForRowsThatHaveEnded
    caught_by = "test_nothing_is_drawn_for_rows_that_emit_nothing"


class DrawsForUnreadPrompts(Host):
    def _step(self, running: list[Any]) -> list[Any]:
        served = super()._step(running)
        self.waste([text for text in running if text.read < len(text.prompt)], "not_emitted")
        return served


class TestDrawsForUnreadPrompts(Checks):
    kind = DrawsForUnreadPrompts
    caught_by = "test_nothing_is_drawn_for_rows_that_emit_nothing"


class ForgetsLateDiscards(DrawsForRowsThatHaveEnded):
    def kept(self, entries: list[Any]) -> list[Any]:
        return [entry for entry in entries if not isinstance(entry, DiscardEntry)]


class TestForgetsLateDiscards(Checks):
    kind = ForgetsLateDiscards
    late_steps = 5
    caught_by = "test_every_byte_is_in_a_record_or_a_discard"


class DrawsForEachRow(Host):
    def _step(self, running: list[Any]) -> list[Any]:
        return [served for text in running for served in super(DrawsForEachRow, self)._step([text])]


class TestDrawsForEachRow(Checks):
    kind = DrawsForEachRow
    caught_by = "test_rows_of_a_step_share_a_draw"


class Prefetched(EntropySource):
    """Hands out what was fetched before it was asked for."""

    name = "witness"
    blocks = False
    conditioning = "chosen"
    min_entropy_per_byte = 0.0

    def __init__(self, source: EntropySource) -> None:
        self._source = source
        self._fetched = b""

    def fetch(self, n: int) -> None:
        self._fetched = self._source.get_random_bytes(n)

    def get_random_bytes(self, n: int) -> bytes:
        fetched, self._fetched = self._fetched, b""
        return fetched or self._source.get_random_bytes(n)


class DrawsAhead(Host):
    def __init__(self, model: Any, settings: Any, sources: Any) -> None:
        self._ahead = None
        if sources["witness"].fail_after is None:
            self._ahead = Prefetched(sources["witness"])
            sources = {**sources, "witness": self._ahead}
        super().__init__(model, settings, sources)

    def _step(self, running: list[Any]) -> list[Any]:
        alone = len(running) == 1 and len(running[0].prompt) <= SHOWN.CHUNK
        if self._ahead is not None and alone and len(self._open) == 1:
            self._ahead.fetch(running[0].sequence.options.parameters.sample_count)
        return super()._step(running)


class TestDrawsAhead(Checks):
    kind = DrawsAhead
    caught_by = "test_records_give_the_times_of_their_draws"


class OneBehind(Prefetched):
    """Makes every draw when it is asked for, and hands out the one before."""

    def get_random_bytes(self, n: int) -> bytes:
        before, self._fetched = self._fetched, self._source.get_random_bytes(n)
        return before if len(before) == n else Random(n).randbytes(n)


class IsOneDrawBehind(Host):
    def __init__(self, model: Any, settings: Any, sources: Any) -> None:
        behind = {name: OneBehind(source) for name, source in sources.items() if name == "witness"}
        super().__init__(model, settings, {**sources, **behind})


class TestIsOneDrawBehind(Checks):
    kind = IsOneDrawBehind
    caught_by = "test_tokens_are_decided_by_bytes_of_their_own_draws"


class DoesNotWaitForLogits(Host):
    """Its engine is lazy: logits are complete when somebody looks at them, after the draw."""

    def _step(self, running: list[Any]) -> list[Any]:
        served = super()._step(running)
        self._model.times_ns.append(time.monotonic_ns())
        return served


class TestDoesNotWaitForLogits(Checks):
    kind = DoesNotWaitForLogits
    computes = Untimed
    caught_by = "test_nothing_is_drawn_before_logits_are_complete"


class CountsItsPromptsToo(DoesNotWaitForLogits):
    """Has logits of every prompt, which decide nothing, besides those that are late."""

    def _begin(self, *arguments: Any) -> Any:
        self._model.times_ns.append(time.monotonic_ns())
        return super()._begin(*arguments)


class TestCountsItsPromptsToo(Checks):
    kind = CountsItsPromptsToo
    computes = Untimed
    caught_by = "test_nothing_is_drawn_before_logits_are_complete"


class SwallowsForcedEnds(Host):
    def _step(self, running: list[Any]) -> list[Any]:
        served = super()._step(running)
        for text in [text for text in served if text.sequence.failure]:
            self.session.record(text.sequence.settle())
            self._open.remove(text)
        return [text for text in served if not text.sequence.failure]


class TestSwallowsForcedEnds(Checks):
    kind = SwallowsForcedEnds
    caught_by = "test_end_request_ends_texts_with_a_forced_token"


class EndsEverybody(Host):
    def _step(self, running: list[Any]) -> list[Any]:
        served = super()._step(running)
        failed = [text for text in served if text.sequence.failure]
        if not failed:
            return served
        for text in running:
            if text not in failed:
                self._end(text)
        return failed


class TestEndsEverybody(Checks):
    kind = EndsEverybody
    caught_by = "test_only_texts_without_entropy_end"


class HidesTheError(Host):
    def generate(self, *arguments: Any) -> Any:
        try:
            return super().generate(*arguments)
        except EntropyUnavailableError:
            return [text.tokens for text in self.begun]


class TestHidesTheError(Checks):
    kind = HidesTheError
    caught_by = "test_error_is_raised_to_the_caller"


class Unflagged(Prefetched):
    """Draws from another source under its own name."""

    def __init__(self, source: EntropySource, spare: EntropySource) -> None:
        super().__init__(FallbackEntropySource(source, spare))


class HidesTheFallback(Host):
    def __init__(self, model: Any, settings: Any, sources: Any) -> None:
        if "spare" in sources:
            sources = {**sources, "witness": Unflagged(sources["witness"], sources["spare"])}
        super().__init__(model, settings, sources)


class TestHidesTheFallback(Checks):
    kind = HidesTheFallback
    caught_by = "test_fallback_is_flagged_on_its_tokens"


class RefusesNothing(Host):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.session.check_request = lambda *_: None


class TestRefusesNothing(Checks):
    kind = RefusesNothing
    caught_by = "test_options_that_cannot_be_served_are_refused"


class ForgetsDiscards(Host):
    def throw_away(self, text: Any) -> None:
        text.sequence.drop("thrown_away", keep=len(text.tokens))


class TestForgetsDiscards(Checks):
    kind = ForgetsDiscards
    caught_by = "test_what_is_thrown_away_has_a_discard"


class ForgetsWhatWasHandedOver(Host):
    """Has a text that is aborted lose its latest token."""

    def generate(self, prompts: Any, max_tokens: Any, options: Any, on_token: Any) -> Any:
        def hand_over(index: int, token_id: int) -> object:
            stopped = on_token(index, token_id)
            if stopped:
                sequence = self.begun[index].sequence
                self.session.record(sequence.drop("aborted", keep=len(sequence.tokens) - 1))
            return stopped

        return super().generate(prompts, max_tokens, options, hand_over)


class TestForgetsWhatWasHandedOver(Checks):
    kind = ForgetsWhatWasHandedOver
    caught_by = "test_an_aborted_text_keeps_its_records"


class ReturnsAnotherToken(Host):
    """Has another token than its reader where a text was aborted."""

    def generate(self, prompts: Any, max_tokens: Any, *rest: Any) -> Any:
        texts = super().generate(prompts, max_tokens, *rest)
        failed = any(text.sequence.failure for text in self.begun)
        return [
            text if failed or len(text) == most else [*text[:-1], text[-1] ^ 1]
            for text, most in zip(texts, max_tokens, strict=True)
        ]


class TestReturnsAnotherToken(Checks):
    kind = ReturnsAnotherToken
    caught_by = "test_an_aborted_text_keeps_its_records"


class RecordsInTheEnd(Host):
    """Keeps its records until all texts have ended, unless an error of a reader comes first."""

    def __init__(self, *arguments: Any) -> None:
        self.waiting: list[Any] = []
        super().__init__(*arguments)

    def kept(self, entries: list[Any]) -> list[Any]:
        self.waiting += entries
        return []

    def generate(self, *arguments: Any) -> Any:
        try:
            return super().generate(*arguments)
        except EntropyUnavailableError:
            raise
        except BaseException:
            self.waiting.clear()
            raise

    def close(self) -> None:
        waiting, self.waiting = self.waiting, []
        SamplingSession.record(self.session, waiting)
        super().close()


class TestRecordsInTheEnd(Checks):
    kind = RecordsInTheEnd
    caught_by = "test_an_error_in_the_reader_loses_no_record"


class ConfirmsEndsAtOnce(Host):
    def _step(self, running: list[Any]) -> list[Any]:
        served = super()._step(running)
        for text in served:
            if text.sequence.ended:
                self.session.record(text.sequence.settle())
        return served


class TestConfirmsEndsAtOnce(Checks):
    kind = ConfirmsEndsAtOnce
    caught_by = "test_an_end_on_its_way_is_not_recorded_as_emitted"


class BreaksForGood(Host):
    broken = False

    def generate(self, *arguments: Any) -> Any:
        if self.broken:
            raise RuntimeError("broken")
        try:
            return super().generate(*arguments)
        except BaseException:
            self.broken = True
            raise


class TestBreaksForGood(Checks):
    kind = BreaksForGood
    caught_by = "test_the_host_goes_on_after_an_error"


class SharesItsReader(Host):
    reader: Any = None

    def generate(self, prompts: Any, max_tokens: Any, options: Any, on_token: Any) -> Any:
        self.reader = on_token

        def hand_over(index: int, token_id: int) -> object:
            return self.reader(index, token_id)

        return super().generate(prompts, max_tokens, options, hand_over)


class TestSharesItsReader(Checks):
    kind = SharesItsReader
    caught_by = "test_two_threads_keep_their_texts_apart"
