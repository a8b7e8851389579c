# SPDX-License-Identifier: Apache-2.0
"""The status of engines as Prometheus metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from qr_sampler.host.status import DRAW_SECONDS
from qr_sampler_vllm.status.health import complaints
from qr_sampler_vllm.status.run_directory import published

__all__ = ["EngineCollector"]

Status = Mapping[str, Any]

HEALTH_STATES: Final = {"ok": 0.0, "suspect": 1.0, "failed": 2.0, "untested": -1.0}
"""The numbers by which a metric tells states of health, the worst of them the largest."""


class _Counter(NamedTuple):
    """A counter that stands in the statuses as it is, by engine and further labels."""

    name: str
    help: str
    key: str
    """Key of the status: of a number, or of a list of counts with labels."""
    labels: tuple[str, ...] = ()
    """The further labels, which are keys of each count."""
    number: str = "count"
    """Key of the number in each count."""

    def metric(self, statuses: Sequence[Status]) -> Metric:
        """Returns its samples of all engines."""
        metric = CounterMetricFamily(self.name, self.help, labels=["engine", *self.labels])
        for status in statuses:
            value = status[self.key]
            for entry in value if self.labels else [{self.number: value}]:
                labels = [_label(entry[label]) for label in self.labels]
                metric.add_metric([status["engine"], *labels], entry[self.number])
        return metric


_COUNTERS: Final = (
    _Counter(
        "qr_sampler_tokens",
        "Emitted tokens, by the source that decided them.",
        "tokens",
        ("source", "fallback"),
    ),
    _Counter(
        "qr_sampler_requests_left_to_vllm",
        "Requests whose tokens vLLM chose, each time that they were admitted.",
        "requests_left_to_engine",
    ),
    _Counter(
        "qr_sampler_forced_tokens",
        "Tokens that ended a request because no entropy was available.",
        "forced_tokens",
    ),
    _Counter(
        "qr_sampler_undecided_tokens",
        "Tokens of rows of logits without a finite maximum, by what was wrong with the row.",
        "undecided_tokens",
        ("reason",),
    ),
    _Counter("qr_sampler_token_bytes", "Bytes that decided emitted tokens.", "token_bytes"),
    _Counter(
        "qr_sampler_discarded_bytes",
        "Bytes that decided no emitted token, by the reason.",
        "discards",
        ("reason",),
        "bytes",
    ),
    _Counter(
        "qr_sampler_records_lost",
        "Records that the disk has refused, or that have gone with their file.",
        "records_lost",
    ),
)


class EngineCollector:
    """Collects what the engines of this front end report.

    Args:
        read: Returns their statuses.
    """

    def __init__(self, read: Callable[[], Sequence[Status]] = published) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Returns nothing: the metrics come and go with the engines."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of all engines."""
        statuses = _told_apart(self._read())
        yield _healthy(statuses)
        for counter in _COUNTERS:
            yield counter.metric(statuses)
        yield _draw_seconds(statuses)
        yield _source_available(statuses)
        yield _health_state(statuses)
        yield _health_alarms(statuses)
        yield _last_draw(statuses)


def _label(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def _told_apart(statuses: Sequence[Status]) -> list[Status]:
    """Returns *statuses* with a label of its own for each engine.

    Engines of one process that do not know of each other have the same number, and a scraper
    refuses two samples with the same labels.
    """
    before: Counter[int] = Counter()
    apart: list[Status] = []
    for status in statuses:
        number = status["engine"]
        same = before[number]
        before[number] += 1
        apart.append({**status, "engine": f"{number}.{same}" if same else str(number)})
    return apart


def _healthy(statuses: Sequence[Status]) -> Metric:
    text = "Whether /qr/status reports no complaint."
    return GaugeMetricFamily("qr_sampler_healthy", text, value=float(not complaints(statuses)))


def _draw_seconds(statuses: Sequence[Status]) -> Metric:
    metric = HistogramMetricFamily(
        "qr_sampler_draw_seconds",
        "Time from the request for entropy to its answer.",
        labels=["engine"],
    )
    bounds = [*map(str, DRAW_SECONDS), "+Inf"]
    for status in statuses:
        counts = accumulate(status["draws"]["buckets"])
        buckets = [(bound, float(count)) for bound, count in zip(bounds, counts, strict=True)]
        metric.add_metric([status["engine"]], buckets, status["draws"]["seconds"])
    return metric


def _source_available(statuses: Sequence[Status]) -> Metric:
    metric = GaugeMetricFamily(
        "qr_sampler_source_available",
        "Whether the next draw from a source is expected to succeed.",
        labels=["engine", "source"],
    )
    for status in statuses:
        for source in status["sources"]:
            labels = [status["engine"], source["name"]]
            metric.add_metric(labels, float(source["available"]))
    return metric


def _health_state(statuses: Sequence[Status]) -> Metric:
    metric = GaugeMetricFamily(
        "qr_sampler_health_state",
        "What the health tests say of a source: 0 ok, 1 suspect, 2 failed, -1 untested.",
        labels=["engine", "source"],
    )
    for status in statuses:
        for source in status["sources"]:
            number = HEALTH_STATES[source["health"]["state"]]
            metric.add_metric([status["engine"], source["name"]], number)
    return metric


def _health_alarms(statuses: Sequence[Status]) -> Metric:
    metric = CounterMetricFamily(
        "qr_sampler_health_alarms",
        "Draws that a health test has objected to, by source and test.",
        labels=["engine", "source", "test"],
    )
    for status in statuses:
        for source in status["sources"]:
            for test, count in sorted(source["health"]["alarms"].items()):
                metric.add_metric([status["engine"], source["name"], test], count)
    return metric


def _last_draw(statuses: Sequence[Status]) -> Metric:
    metric = GaugeMetricFamily(
        "qr_sampler_last_draw_timestamp_seconds",
        "When the last draw was complete, in seconds since the epoch.",
        labels=["engine"],
    )
    for status in statuses:
        if status["last_draw"] is not None:
            age_s = (time.monotonic_ns() - status["last_draw"]["monotonic_ns"]) / 1e9
            # By the wall clock as it is now, which readers compare it with.
            metric.add_metric([status["engine"]], time.time() - age_s)
    return metric
