# SPDX-License-Identifier: Apache-2.0
"""Rung 3: by the clocks of the machine, logits came before the request for bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rungs.open_items import OpenDraw, OpenSequence
from qr_sampler_cli.audit.schema.run_lines import Clock, Genesis
from qr_sampler_cli.audit.schema.token_lines import Draw, Token, UsedUniform

__all__ = ["CLOCK_TOLERANCE_NS", "DRIFT", "Clocks"]

CLOCK_TOLERANCE_NS: Final = 1_000_000_000
"""How far the wall clock of a draw may be off the clock lines around it: two clocks are read one
after the other, and a busy machine may do something else in between."""

DRIFT: Final = 500e-6
"""Largest error of a clock's rate: what NTP corrects a clock by at most (RFC 5905, 500 ppm)."""

_MOST_DEVICES: Final = 1_000


@dataclass(slots=True)
class _DeviceClock:
    """The offsets from a device's clock to the monotonic one that all draws so far allow."""

    lowest: float
    highest: float
    latest_ns: int


class Clocks:
    """Compares the times of every draw with each other and with those around it.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self._began_ns = 0
        self._offset: int | None = None
        """Wall minus monotonic time at the latest clock line."""
        self._offset_before: int | None = None
        """The same at the line before."""
        self._waiting: list[tuple[int, int]] = []
        """Smallest and largest offset of the draws since, each with its place."""
        self._monotonic_ns = 0
        self._devices: dict[tuple[str, str], _DeviceClock] = {}

    def begin(self, genesis: Genesis) -> None:
        """Takes in the clocks at the beginning of the run, which every file of it repeats."""
        if self._offset is None:
            self._began_ns = genesis.monotonic_ns
            self._read(genesis.monotonic_ns, genesis.wall_time_ns, 0)

    def clock(self, line: Clock, place: int) -> None:
        """Takes in a clock line."""
        self._read(line.monotonic_ns, line.wall_time_ns, place)

    def _read(self, monotonic_ns: int, wall_time_ns: int, place: int) -> None:
        if monotonic_ns < self._monotonic_ns:
            self._rung.fail(place, "the monotonic clock shows an earlier time than before")
        self._monotonic_ns = monotonic_ns
        offset, before = wall_time_ns - monotonic_ns, self._offset
        self._judge_waiting(offset)
        self._offset_before, self._offset = offset if before is None else before, offset
        if before is not None and abs(offset - before) > CLOCK_TOLERANCE_NS:
            where = self._rung.places.name(place) or "a genesis"
            step = (offset - before) / 1e9
            self._rung.note(f"{where}: the wall clock was set by {step:+.3f} s")

    def _judge_waiting(self, offset: int | None) -> None:
        """Judges the draws since the latest clock line; *offset* is that of the next, if any."""
        if self._offset is None or self._offset_before is None:
            return
        # A line may be written a little after the draw that it tells of: also after a clock line.
        bounds = [self._offset_before, self._offset, self._offset if offset is None else offset]
        for seen, place in self._waiting:
            off = max(min(bounds) - seen, seen - max(bounds))
            if off <= CLOCK_TOLERANCE_NS:
                continue
            if offset is None:
                self._rung.cannot_say(
                    "whether the wall clock was set after the last clock line", place
                )
            else:
                self._rung.fail(
                    place,
                    f"its wall time is {off / 1e9:.3f} s off what the clock lines around it allow",
                )
        self._waiting.clear()

    def draw(self, line: Draw, place: int) -> None:
        """Judges the times of a draw."""
        rung = self._rung
        # A draw that preceded its logits is no failure of the clock; its tokens say so.
        logits_ns = line.t_request_ns if line.t_logits_ns is None else line.t_logits_ns
        if not logits_ns <= line.t_request_ns <= line.t_received_ns:
            rung.fail(
                place,
                f"draw {line.draw}: logits, request and answer have the times {line.t_logits_ns}, "
                f"{line.t_request_ns} and {line.t_received_ns}",
            )
        elif logits_ns < self._began_ns:
            rung.fail(place, f"draw {line.draw}: its logits are older than the run")
        self._wait(line.wall_time_ns - line.t_received_ns, place)
        if line.device_timestamp_ns is not None:
            self._judge_device(line, line.device_timestamp_ns, place)

    def _wait(self, offset: int, place: int) -> None:
        waiting = self._waiting
        if len(waiting) < 2:
            waiting.append((offset, place))
            waiting.sort()
        elif offset < waiting[0][0]:
            waiting[0] = (offset, place)
        elif offset > waiting[1][0]:
            waiting[1] = (offset, place)

    def _judge_device(self, line: Draw, device_ns: int, place: int) -> None:
        lowest, highest = line.t_request_ns - device_ns, line.t_received_ns - device_ns
        key = (line.source, line.device_id)
        clock = self._devices.get(key)
        if clock is None and len(self._devices) >= _MOST_DEVICES:
            self._rung.cannot_say("times of more devices than are remembered", place)
            return
        if clock is None:
            self._devices[key] = _DeviceClock(lowest, highest, line.t_received_ns)
            return
        drift = DRIFT * abs(line.t_received_ns - clock.latest_ns)
        clock.latest_ns = line.t_received_ns
        clock.lowest, clock.highest = clock.lowest - drift, clock.highest + drift
        off = max(lowest - clock.highest, clock.lowest - highest)
        if off > 0:
            self._rung.fail(
                place,
                f"draw {line.draw}: by the clock of {line.device_id[:40]!r} it was measured "
                f"{off / 1e6:.3f} ms outside of its request",
            )
            clock.lowest, clock.highest = lowest, highest
        else:
            clock.lowest, clock.highest = max(clock.lowest, lowest), min(clock.highest, highest)

    def token(self, sequence: OpenSequence, draw: OpenDraw, line: Token, place: int) -> None:
        """Judges that the row of a token came after the token before it, and before its draw."""
        logits_ns = line.t_logits_ns
        if logits_ns is None:
            logits_ns = draw.t_logits_ns
        if logits_ns is None:
            self._rung.cannot_say("when the logits of tokens were complete", place)
            return
        if line.uniforms is not None:
            self._judge_uniforms(line.uniforms, logits_ns, place)
        elif line.jit and logits_ns > draw.t_request_ns:
            self._rung.fail(place, "its bytes were asked for before its logits were complete")
        if sequence.draw == draw.number:
            return
        if logits_ns < sequence.received_ns:
            self._rung.fail(
                place,
                f"its logits were complete {(sequence.received_ns - logits_ns) / 1e6:.3f} ms "
                "before the token before it was chosen",
            )
        sequence.received_ns = draw.t_received_ns

    def _judge_uniforms(self, uniforms: list[UsedUniform], logits_ns: int, place: int) -> None:
        for each in uniforms:
            if not each.jit:
                self._rung.cannot_say(
                    "that logits came first of drafts, which are drawn before", place
                )
            elif each.t_request_ns is not None and each.t_request_ns < logits_ns:
                self._rung.fail(
                    place, f"the {each.role[:40]} was asked for before the logits were complete"
                )

    def finish(self) -> None:
        """Judges what waits for a clock line that does not come."""
        self._judge_waiting(None)
