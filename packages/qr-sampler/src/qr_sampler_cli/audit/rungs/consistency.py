# SPDX-License-Identifier: Apache-2.0
"""Rung 4: numbers that follow from each other agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from qr_sampler_cli.audit.blocks.amplifiers import AmplifiedTokens, TokenNumbers
from qr_sampler_cli.audit.blocks.numbers import judge_numbers
from qr_sampler_cli.audit.blocks.stored import StoredBlocks
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rungs.commitments import Commitments
from qr_sampler_cli.audit.rungs.open_items import OpenDraw, OpenSequence
from qr_sampler_cli.audit.schema.run_lines import Genesis, NamedSource
from qr_sampler_cli.audit.schema.token_lines import Draw, Token

__all__ = ["Consistency"]


class Consistency:
    """Recomputes what can be recomputed from the records.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self.amplified = AmplifiedTokens(rung)
        self.commitments = Commitments(rung)
        self.stored = StoredBlocks(rung)
        self._sources: dict[str, NamedSource] | None = None
        self._health: Counter[tuple[str, str]] = Counter()
        """Number of draws by source and what its health tests say of them."""

    def begin(self, genesis: Genesis, place: int) -> None:
        """Takes in what the run was begun with."""
        for component in genesis.components:
            told, known = genesis.versions.get(component.distribution), component.settings
            if known is not None and told is not None and told != component.version:
                self._rung.fail(
                    place, f"the genesis has two versions of {component.distribution[:40]!r}"
                )
        self.commitments.run_id = genesis.run_id
        self.amplified.begin(genesis.settings)
        if genesis.sources:
            self._sources = {source.name: source for source in genesis.sources}

    def draw(self, line: Draw, place: int) -> None:
        """Judges what a draw says of its source."""
        if line.fallback != bool(line.fallback_reason):
            self._rung.fail(
                place, f"draw {line.draw}: fallback and fallback_reason contradict each other"
            )
        if line.echo_verified is not None and not line.commitment:
            self._rung.fail(
                place, f"draw {line.draw}: it has no commitment that could have been echoed"
            )
        if self._sources is None:
            return
        source = self._sources.get(line.source)
        if source is None:
            self._rung.fail(
                place, f"draw {line.draw}: the genesis has no source {line.source[:40]!r}"
            )
            return
        self._health[line.source, line.health] += 1
        if (source.distribution or "", source.version or "") != (
            line.source_distribution or "",
            line.source_version or "",
        ):
            self._rung.fail(
                place, f"draw {line.draw}: the genesis has another version of {line.source[:40]!r}"
            )
        elif source.tested == "nothing" and line.health != "untested":
            self._rung.fail(
                place,
                f"draw {line.draw}: it is {line.health}, and nothing of {line.source[:40]!r} is "
                "tested",
            )

    def token(self, sequence: OpenSequence, draw: OpenDraw | None, line: Token, place: int) -> None:
        """Judges a token."""
        rung = self._rung
        if line.rank >= line.candidates or not line.probability:
            rung.fail(
                place,
                f"rank {line.rank} of {line.candidates} candidates has the probability "
                f"{line.probability!r}",
            )
        fixed, top_k = sequence.fixed_temperature, sequence.top_k
        if fixed is not None and fixed != line.temperature:
            rung.fail(place, f"temperature is {line.temperature!r} and was fixed at {fixed!r}")
        if type(top_k) is int and 0 < top_k < line.candidates:
            rung.fail(place, f"{line.candidates} candidates are more than top_k {top_k}")
        self.commitments.token(sequence, draw, line, place)
        if line.uniforms is not None:
            if not any(each.u == line.u for each in line.uniforms if each.role == line.role):
                rung.fail(place, "u is not that of the number which decided it")
            return
        if draw is None:
            rung.cannot_say("u of tokens whose draw is not here", place)
            return
        if not draw.fallback and sequence.source is not None and draw.source != sequence.source:
            rung.fail(
                place,
                f"its request chose {str(sequence.source)[:40]!r}, its bytes are of "
                f"{draw.source[:40]!r} and are not flagged as a fallback's",
            )
        self.amplified.add(
            line.amplifier or (sequence.amplifier if isinstance(sequence.amplifier, str) else ""),
            line.block_bytes,
            draw.fallback,
            line.baseline,
            TokenNumbers(
                line.block_sum,
                line.block_ones,
                line.u,
                line.statistic,
                math.nan if line.lattice_step is None else line.lattice_step,
                place,
                None if draw.stored is None else draw.stored.block(line.offset, line.block_bytes),
            ),
        )

    def numbers(self, line: Token, blocks: Sequence[bytes | None], place: int) -> None:
        """Judges the numbers of a token that several have decided.

        Args:
            line: Its line.
            blocks: The bytes of each number; ``None`` where they are not there.
            place: Where the line stands.
        """
        judge_numbers(self._rung, line, blocks, place)

    def finish(self, place: int, *, closed: bool) -> None:
        """Judges what waits.

        Args:
            place: The last line.
            closed: Whether that is a ``close``.
        """
        self.amplified.finish()
        self.stored.finish(place, closed=closed)
        if self.stored.missing:
            self._rung.note(
                "data_sha256, sums and ones are not compared with the bytes, which are not beside "
                "the ledger"
            )
        if self.stored.compared:
            self._rung.note(f"data_sha256 of {self.stored.compared} draws is that of their bytes")
        self._note_health()

    def _note_health(self) -> None:
        """Notes what health tests have seen of the sources, and what they say of their draws."""
        drawn = {name for name, _ in self._health}
        for name, source in (self._sources or {}).items():
            if name in drawn and source.tested is not None:
                states = ("ok", "suspect", "untested")
                told = ", ".join(f"{self._health[name, state]} {state}" for state in states)
                self._rung.note(f"health of {name[:40]!r}: tested {source.tested}, draws {told}")
