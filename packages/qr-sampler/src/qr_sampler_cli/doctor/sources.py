# SPDX-License-Identifier: Apache-2.0
"""Whether the sources of a deployment load and answer, and the load that a step puts on them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Final

from qr_sampler import create_source
from qr_sampler.components.failure_policy import health_options
from qr_sampler.entropy import EntropySource, GuardedSource, JitClass, SourceStatus
from qr_sampler.errors import QRSamplerError
from qr_sampler.settings import END_REQUEST, RAISE_ERROR, Settings
from qr_sampler_cli.findings.finding import Finding, ReportSection, examined

__all__ = ["SECTION", "findings_of_all", "source_findings"]

SECTION: Final = ReportSection("sources")

CONTROLS: Final = {
    JitClass.PSEUDO: "pseudo-random, no measurement",
    JitClass.BEACON: "public, everybody knows its numbers",
    JitClass.UNKNOWN: "the age of its bytes is not bounded",
}
"""Sources whose numbers do not come from a measurement made for the token."""

SECONDS_PER_DAY: Final = 86_400


def findings_of_all(
    settings: Settings | None, *, sequences: int | None, drafts: int, probe: bool
) -> list[Finding]:
    """Returns the findings of :func:`source_findings`, or that there are no settings for them.

    Args:
        settings: The deployment's settings, ``None`` if they are invalid.
        sequences: Largest number of sequences in a step, ``None`` if unknown.
        drafts: Number of drafts per sequence and step.
        probe: Draw one byte from the configured source.
    """
    if settings is None:
        return [SECTION.skipped("all", "the settings that name them are invalid")]
    return list(source_findings(settings, sequences=sequences, drafts=drafts, probe=probe))


def source_findings(
    settings: Settings, *, sequences: int | None, drafts: int, probe: bool
) -> Iterator[Finding]:
    """Yields findings about every source that the settings name.

    Nothing is drawn, except one byte from the configured source if *probe* is set.

    Args:
        settings: The deployment's settings.
        sequences: Largest number of sequences in a step, ``None`` if unknown.
        drafts: Number of drafts per sequence and step.
        probe: Draw one byte from the configured source.
    """
    rows = None if sequences is None else sequences * (1 + drafts)
    for name in settings.selectable_sources:
        is_primary = name == settings.entropy_source_type
        check = _Check(settings, name, rows=rows, probe=probe and is_primary)
        yield from examined(SECTION, name, check.findings)
    spare = settings.fallback_mode
    if spare not in (RAISE_ERROR, END_REQUEST, *settings.selectable_sources):
        check = _Check(settings, spare, rows=rows, probe=False)
        yield from examined(SECTION, spare, check.findings)


class _Check:
    """The examination of one source.

    Args:
        settings: The deployment's settings.
        name: Name of the source.
        rows: Largest number of rows in a step, ``None`` if unknown.
        probe: Draw one byte.
    """

    def __init__(self, settings: Settings, name: str, *, rows: int | None, probe: bool) -> None:
        self._settings = settings
        self._name = name
        self._block = settings.sample_count
        self._rows = rows or 1
        self._of_all_rows = rows is not None
        self._probe = probe

    def findings(self) -> Iterator[Finding]:
        """Yields findings about the source; its constructor may raise anything."""
        try:
            source = create_source(self._name)
        except QRSamplerError as error:
            remedy = "'qr-sampler sources' lists what is installed; the engine will not start"
            yield SECTION.problem(self._name, str(error), remedy)
            return
        guarded = GuardedSource(
            source, self._settings.draw_timeout_ms, health=health_options(self._settings)
        )
        with contextlib.closing(guarded):
            yield self._origin_finding(source, guarded)
            yield self._status_finding(guarded.probe() if self._probe else guarded.status())
            yield from self._limit_findings(source)

    def _origin_finding(self, source: EntropySource, guarded: GuardedSource) -> Finding:
        origin = f"{source.origin.distribution} {source.origin.version}".strip()
        kind = f"of the kind {source.origin.kind} " if source.origin.kind else ""
        about = (
            f"{kind}from {origin or 'an unknown package'}, just-in-time class "
            f"{source.jit_class.value} ({source.jit_class.name.lower()}), "
            f"conditioning {source.conditioning}"
        )
        if source.jit_class in CONTROLS:
            message = f"{about}: {CONTROLS[source.jit_class]}"
            return SECTION.warning(self._name, message, "use it for controls only")
        return SECTION.ok(self._name, about)

    def _status_finding(self, status: SourceStatus) -> Finding:
        remark = f": {status.reason}" if status.reason else ""
        asked = "asked for one byte" if self._probe else "without a draw"
        if status.available:
            return SECTION.ok(self._name, f"available, {asked}{remark}")
        message = f"not available, {asked}{remark}"
        remedy = "repair the source; until then QR_FALLBACK_MODE decides what happens to tokens"
        if self._name == self._settings.entropy_source_type:
            return SECTION.problem(self._name, message, remedy)
        return SECTION.warning(self._name, message, remedy)

    def _limit_findings(self, source: EntropySource) -> Iterator[Finding]:
        """Yields into how many requests a full step is split, and how long the quotas last."""
        limits = source.limits
        largest = limits.max_bytes_per_request
        size = self._rows * self._block
        requests = 1 if largest is None else math.ceil(size / largest)
        step = (
            f"a step of at most {self._rows} rows draws {size} bytes ({self._block} each)"
            if self._of_all_rows
            else f"a step draws {self._block} bytes for each of its rows (their largest number is "
            "unknown without --max-num-seqs), for one row"
        )
        if requests == 1:
            yield SECTION.ok(self._name, f"{step} in one request")
        else:
            yield SECTION.warning(
                self._name,
                f"{step} in {requests} requests of at most {largest} bytes, all within "
                f"{self._settings.draw_timeout_ms:g} ms (QR_DRAW_TIMEOUT_MS)",
                "raise the limit of the source if the device allows it, or lower QR_SAMPLE_COUNT "
                "or --max-num-seqs",
            )
        if limits.max_requests_per_minute is not None:
            steps = limits.max_requests_per_minute / requests
            yield self._quota_finding(
                f"{limits.max_requests_per_minute:g} requests a minute", steps, 60
            )
        if limits.max_bytes_per_day is not None:
            steps = limits.max_bytes_per_day / size
            yield self._quota_finding(
                f"{limits.max_bytes_per_day} bytes a day", steps, SECONDS_PER_DAY
            )

    def _quota_finding(self, quota: str, steps: float, seconds: int) -> Finding:
        """Returns the finding about a quota.

        Args:
            quota: The quota in words.
            steps: The number of full steps that it allows.
            seconds: The period after which it is renewed.
        """
        remedy = "lower QR_SAMPLE_COUNT or --max-num-seqs, or ask for a larger quota"
        if steps < 1:
            message = f"{quota} are not enough for one full step; it would fail every time"
            return SECTION.problem(self._name, message, remedy)
        rate = f"{steps * self._rows / seconds:.3g} tokens a second on average"
        return SECTION.warning(self._name, f"{quota} last for {rate}", remedy)
