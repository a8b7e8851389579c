# SPDX-License-Identifier: Apache-2.0
"""What the status of an engine counts, and what of it anybody may read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    DroppedBytes,
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
    ForcedRecord,
    GuardedSource,
    RequestOptions,
    Rows,
    SamplingPipeline,
    Settings,
    SourceStatus,
    UndecidedRecord,
    dropped_record,
)
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.health import HealthOptions
from qr_sampler.host import (
    DiscardEntry,
    EngineStatus,
    RecordedToken,
    StopConditions,
    TokenEntry,
    TokenSequence,
    records_of,
)
from qr_sampler.host.status import RECENT_TOKENS, REMEMBERED_DRAWS
from qr_sampler.sampling.columns import StepColumns
from qr_sampler.testing import ConstantEntropySource


def tokens(source: EntropySource, count: int) -> Iterator[TokenEntry]:
    """The tokens of *count* steps of one row."""
    settings = Settings.load(sample_count=4, max_ks_distance=1)
    pipeline = SamplingPipeline(settings, source)
    options = RequestOptions(parameters=settings.sampling, source=source.name)
    sequence = TokenSequence(options, StopConditions())
    logits, rows = np.zeros((1, 8), np.float32), Rows([settings.sampling])
    for position in range(count):
        step = pipeline.sample(logits, rows)
        assert step is not None
        yield TokenEntry(StepColumns(step), 0, sequence, position, None, True)


def forced(reason: str) -> ForcedRecord:
    return ForcedRecord(
        request_key="r",
        sequence="s",
        position=1,
        token_id=0,
        reason=reason,
        source="device",
        wall_time_ns=5,
    )


class Device:
    """A device with a spare, and the status of an engine that draws from it."""

    def __init__(self) -> None:
        self.primary = ConstantEntropySource(name="device")
        self.source = FallbackEntropySource(self.primary, ConstantEntropySource(name="spare"))
        self.status = EngineStatus({"pid": 7}, {"device": self.source})

    def sample(self, count: int) -> None:
        self.status.observe(tokens(self.source, count))

    def said(self, records_lost: int = 0) -> dict[str, Any]:
        said: dict[str, Any] = self.status.as_dict(records_lost=records_lost)
        assert json.loads(json.dumps(said, allow_nan=False)) == said
        return said


def test_a_status_counts_what_was_recorded() -> None:
    device = Device()
    device.sample(3)
    device.primary.fail_with = "unplugged"
    device.sample(2)
    device.status.observe([forced("gone"), dropped_record(DroppedBytes("device", 7, "late", 1))])
    said = device.said(records_lost=2)
    assert said["pid"] == 7
    assert said["tokens"] == [
        {"source": "device", "fallback": False, "count": 3},
        {"source": "spare", "fallback": True, "count": 2},
    ]
    assert (said["token_bytes"], said["forced_tokens"], said["records_lost"]) == (20, 1, 2)
    assert said["discards"] == [{"reason": "late", "count": 1, "bytes": 7}]
    assert sum(said["draws"]["buckets"]) == 5
    assert said["last_draw"]["source"] == "spare"
    assert 0.0 < said["last_draw"]["seconds"] <= said["draws"]["seconds"]
    assert said["last_failure"] == {"source": "device", "reason": "gone", "wall_time_ns": 5}
    unguarded = {
        "state": "untested",
        "tested": "nothing",
        "reason": "not guarded",
        "alarms": {},
    }
    assert said["sources"] == [
        {
            "name": "device",
            "available": False,
            "reason": "unplugged",
            "last_draw_failed": True,
            "health": unguarded,
        },
        # No request may choose it, and tokens depend on it all the same.
        {
            "name": "spare",
            "available": True,
            "reason": "",
            "last_draw_failed": False,
            "health": unguarded,
        },
    ]
    assert (said["recent_tokens"], said["recent_without_source"]) == (6, 3)


def test_only_the_latest_tokens_count_as_recent() -> None:
    device = Device()

    def recent() -> tuple[int, int]:
        said = device.said()
        return said["recent_tokens"], said["recent_without_source"]

    device.primary.fail_with = "unplugged"
    device.sample(RECENT_TOKENS + 5)
    assert recent() == (RECENT_TOKENS, RECENT_TOKENS)
    device.primary.fail_with = None
    device.sample(RECENT_TOKENS - 1)
    assert recent() == (RECENT_TOKENS, 1)
    device.sample(1)
    assert recent() == (RECENT_TOKENS, 0)


def test_the_last_failure_names_neither_host_nor_key_nor_request() -> None:
    device = Device()
    device.primary.fail_with = "no answer from qrng.internal:50051 with key s3cr3t7"
    device.sample(1)
    said = device.said()
    assert said["last_failure"]["reason"] == "no answer from … with key …"
    shown = json.dumps(said)
    assert not [text for text in ("qrng.internal", "s3cr3t7", '"r"') if text in shown]


def undecided(reason: str) -> UndecidedRecord:
    return UndecidedRecord(
        request_key="r", sequence="s", position=1, token_id=0, reason=reason, wall_time_ns=5
    )


def test_rows_that_could_not_be_decided_are_counted_and_blame_no_source() -> None:
    device = Device()
    device.status.observe([undecided("masked")] * 3)
    said = device.said()
    assert said["undecided_tokens"] == [{"reason": "masked", "count": 3}]
    assert (said["recent_tokens"], said["last_failure"]) == (0, None)


def test_rows_of_one_draw_are_one_draw() -> None:
    device = Device()
    device.status.observe(list(tokens(device.source, 1)) * 4)
    said = device.said()
    assert said["tokens"][0]["count"] == 4
    assert sum(said["draws"]["buckets"]) == 1


def test_every_draw_is_counted_once_in_whatever_order_its_rows_are_recorded() -> None:
    """A token is recorded when it is known to be emitted, for some rows steps after the others."""
    device = Device()
    entries = list(tokens(device.source, 3 * REMEMBERED_DRAWS))
    late = entries[-1:] + entries[-50:-1:-1] + entries[-50:]
    device.status.observe(entries[:-50] + late)
    device.status.observe(entries[:7])
    said = device.said()
    assert sum(said["draws"]["buckets"]) == len(entries)
    assert said["last_draw"]["wall_time_ns"] == entries[-1].record().wall_time_ns


def test_a_draw_that_was_wasted_is_a_draw() -> None:
    device = Device()
    (token,) = tokens(device.source, 1)
    wasted = DiscardEntry(token.step, token.row, token.sequence, 0, "aborted")
    device.status.observe([wasted, *records_of([wasted])])
    said = device.said()
    assert said["discards"] == [{"reason": "aborted", "count": 2, "bytes": 8}]
    assert sum(said["draws"]["buckets"]) == 1


def test_the_last_draw_tells_of_a_failure_that_the_source_does_not_admit() -> None:
    """A status of sources that remember nothing is always well."""
    device = Device()

    def has_failed() -> bool:
        source, _ = device.said()["sources"]
        assert source["available"]
        return bool(source["last_draw_failed"])

    device.sample(1)
    assert not has_failed()
    device.primary.fail_with = "unplugged"
    device.sample(1)
    device.primary.fail_with = None
    assert has_failed()
    assert device.said()["last_failure"]["reason"] == "unplugged"
    device.sample(1)
    assert not has_failed()
    device.status.observe([forced("gone")])
    assert has_failed()


def test_another_source_of_a_request_does_not_speak_for_the_configured_one() -> None:
    broken = ConstantEntropySource(name="other", fail_with="unplugged")
    other = FallbackEntropySource(broken, ConstantEntropySource(name="spare"))
    device = Device()
    device.status = EngineStatus({}, {"device": device.source, "other": other})
    device.sample(1)
    device.status.observe(tokens(other, 1))
    sources = device.said()["sources"]
    assert [source["name"] for source in sources] == ["device", "other", "spare"]
    assert [source["last_draw_failed"] for source in sources] == [False, True, False]


def test_what_takes_over_is_reported_with_its_health_and_its_breaker() -> None:
    class Hopeful(ConstantEntropySource):
        """Says that it is available: only its breaker knows better."""

        def status(self) -> SourceStatus:
            return SourceStatus(available=True)

    spare = GuardedSource(
        Hopeful(name="spare", fail_with="unplugged"), 60_000.0, breaker=BreakerOptions.checked()
    )
    device = FallbackEntropySource(ConstantEntropySource(name="device"), spare)
    status = EngineStatus({}, {"device": device})
    assert status.as_dict(records_lost=0)["sources"][1]["available"]
    for _ in range(10):
        with pytest.raises(EntropyUnavailableError):
            spare.draw(8)
    assert not status.as_dict(records_lost=0)["sources"][1]["available"]
    unlike_itself = HealthOptions(min_entropy=8.0)
    stuck = GuardedSource(ConstantEntropySource(7, name="spare"), 60_000.0, health=unlike_itself)
    status = EngineStatus({}, {"device": FallbackEntropySource(device.primary, stuck)})
    with pytest.raises(EntropyUnavailableError, match="health"):
        stuck.draw(8)
    _, said = status.as_dict(records_lost=0)["sources"]
    assert said["health"]["state"] == "failed"


def test_a_token_that_is_no_row_of_a_step_counts_like_any_other() -> None:
    device = Device()
    device.primary.fail_with = "it said: gone"
    (token,) = tokens(device.source, 1)
    record = token.record()
    device.status.observe([RecordedToken(record, "device"), record])
    said = device.said()
    assert said["tokens"] == [{"source": "spare", "fallback": True, "count": 2}]
    assert said["last_failure"]["reason"] == "it said: gone"


def test_a_source_without_a_status_costs_the_engine_nothing() -> None:
    class Broken(ConstantEntropySource):
        def status(self) -> SourceStatus:
            raise RuntimeError("secret")

    status = EngineStatus({}, {"device": Broken()}).as_dict(records_lost=0)
    (source,) = status["sources"]
    assert not source["available"]
    assert source["reason"] == "its status is not available (RuntimeError)"


def test_words_of_other_projects_stay_out_of_what_is_public() -> None:
    class Theirs(ConstantEntropySource):
        """Is of this module, hence not of the project."""

    theirs = GuardedSource(Theirs(name="device", fail_with="correct horse battery"), 60_000.0)
    ours = GuardedSource(ConstantEntropySource(name="spare", fail_with="unplugged"), 60_000.0)
    status = EngineStatus(
        {},
        {
            "device": theirs,
            "spare": ours,
            "both": FallbackEntropySource(ours, theirs),
        },
    )
    failures = []
    for name in ("device", "spare", "both", "unknown"):
        record = dataclasses.replace(forced("correct horse battery"), source=name)
        status.observe([record])
        failures.append(status.as_dict(records_lost=0)["last_failure"]["reason"])
    withheld, shown = "the reason is in the records", "correct horse battery"
    assert failures == [withheld, shown, withheld, withheld]
    reasons = [source["reason"] for source in status.as_dict(records_lost=0)["sources"]]
    assert reasons == [withheld, "unplugged", "unplugged"]
    theirs.source.fail_with = None  # type: ignore[attr-defined]
    assert status.as_dict(records_lost=0)["sources"][0]["reason"] == ""
