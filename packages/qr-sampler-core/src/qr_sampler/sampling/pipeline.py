# SPDX-License-Identifier: Apache-2.0
"""One sampling step: logits in, tokens and their provenance out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.groups import AmplifiedRows, amplify_groups
from qr_sampler.arrays import ByteBlocks, IndexArray, Logits
from qr_sampler.components.amplifiers import amplifier_named
from qr_sampler.entropy.draw import DroppedBytes, EntropyDraw
from qr_sampler.entropy.source import EntropySource
from qr_sampler.rows import RowParameters, Rows
from qr_sampler.sampling.commitment import RowContext, step_commitment
from qr_sampler.sampling.data_digest import DataDigest, digest_of
from qr_sampler.sampling.kept_bytes import KeptBytes, keep
from qr_sampler.sampling.plan_digests import digests_of_rows
from qr_sampler.sampling.planner import StepPlan, StepPlanner
from qr_sampler.selection.selector import SelectionResult, Selector
from qr_sampler.settings import Settings

__all__ = ["SamplingPipeline", "StepResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The outcome of one step. Arrays have one entry per decided row."""

    plan: StepPlan
    """What was decided on; its selection is ``None`` by now."""
    draw: EntropyDraw
    """The one draw that served all rows, without its bytes: they have decided."""
    draw_bytes: int
    """How many bytes it brought."""
    amplification: AmplificationResult
    """u and the amplifier's statistic."""
    block_bytes: IndexArray
    """Number of bytes that decided each token."""
    block_sum: IndexArray
    """Sum of those bytes."""
    block_ones: IndexArray
    """Number of one bits among those bytes."""
    selection: SelectionResult
    """Tokens, ranks and probabilities."""
    row_digests: tuple[bytes, ...] = ()
    """What the source was told about each row, see :mod:`qr_sampler.sampling.commitment`; empty
    when it was told nothing."""
    commitment: bytes = b""
    """The digest of them all, which travelled with the request."""
    data_digest: DataDigest | None = None
    """SHA-256 of the bytes of the draw; ``None`` if nobody keeps it."""
    kept: KeptBytes | None = None
    """The bytes of the draw, for the ledger; ``None`` if nobody keeps them."""


class SamplingPipeline:
    """Temperature, one draw, amplification and selection for a batch of rows.

    The steps are callable one by one, so that an engine can put its logits-ready barrier between
    :meth:`prepare` and :meth:`complete`: no byte is asked for before the latter. All that comes
    before it is the work of :attr:`planner`, which has no source to draw from.

    Args:
        settings: The deployment's settings.
        source: Where the bytes come from, usually wrapped in a fallback.
        selector: Selects the tokens; :class:`FastSelector` if not given.
        count: Counts the bytes and bits of blocks.
        on_dropped: Called with bytes that were drawn but not used, because a later part of the step
            failed.
    """

    def __init__(
        self,
        settings: Settings,
        source: EntropySource,
        selector: Selector[Any, Any] | None = None,
        count: Callable[[ByteBlocks], BlockCounts] = BlockCounts,
        on_dropped: Callable[[DroppedBytes], object] | None = None,
    ) -> None:
        self._settings = settings
        self.source = source
        self._amplifier_by_name: dict[str, SignalAmplifier] = {}
        self.planner = StepPlanner(selector)
        self._count = count
        self._on_dropped = on_dropped
        self.reads_contexts = source.commits or source.serves_rows
        """Whether the source is told which tokens its bytes are going to decide."""
        self._keeps_digests = settings.ledger_dir is not None
        self._keeps_bytes = settings.ledger_blocks

    def sample(self, logits: Logits, rows: Rows) -> StepResult | None:
        """Returns the tokens of a batch, or ``None`` when no row can be decided.

        Args:
            logits: Shape ``(B, V)``, float32, complete. Not modified.
            rows: The parameters of the B rows.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
            ComponentError: When an amplifier or a temperature strategy fails.
        """
        plan = self.prepare(logits, rows)
        return self.complete(plan) if plan.lines.size else None

    @property
    def selector(self) -> Selector[Any, Any]:
        """What selects the tokens: the planner's."""
        return self.planner.selector

    def prepare(self, logits: Any, rows: Rows) -> StepPlan:
        """Returns everything that can be computed before the entropy is drawn.

        This is :meth:`StepPlanner.prepare`, of a planner that has no source.
        """
        return self.planner.prepare(logits, rows)

    def complete(self, plan: StepPlan, contexts: Sequence[RowContext] | None = None) -> StepResult:
        """Returns the tokens: draws once for all rows, amplifies and selects.

        Args:
            plan: What :meth:`prepare` returned. It can be completed once.
            contexts: Which tokens the B rows of the step are going to decide; needed where the
                pipeline :attr:`reads_contexts`. A source that takes a commitment is told their
                digest with the request, one that serves rows the contexts themselves.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
            ComponentError: When an amplifier fails; the bytes are dropped.
            ValueError: When *plan* is complete already.
        """
        if plan.selection is None:
            raise ValueError("this plan is complete already; prepare another one")
        rows = plan.rows
        sizes, total = rows.derived(_block_sizes)
        digests: tuple[bytes, ...] = ()
        commitment = b""
        if contexts and self.reads_contexts:
            draw, digests, commitment = self._told_draw(plan, contexts, sizes, total)
        else:
            draw = self.source.draw(total)
        try:
            amplified = self._amplify(draw, sizes, rows)
            selection = self.planner.selector.pick(plan.selection, amplified.amplification.u)
            # It may hold on to the logits, and records are made later.
            plan.selection = None
            return StepResult(
                plan=plan,
                draw=draw.without_data(),
                draw_bytes=len(draw.data),
                amplification=amplified.amplification,
                block_bytes=sizes,
                block_sum=amplified.sums,
                block_ones=amplified.ones,
                selection=selection,
                row_digests=digests,
                commitment=commitment,
                data_digest=digest_of(draw.data) if self._keeps_digests else None,
                kept=keep(draw.data) if self._keeps_bytes else None,
            )
        except BaseException:
            self._drop(draw)
            raise

    def _told_draw(
        self, plan: StepPlan, contexts: Sequence[RowContext], sizes: IndexArray, total: int
    ) -> tuple[EntropyDraw, tuple[bytes, ...], bytes]:
        """Returns the draw of a source that is told what it decides, row digests and commitment."""
        source = self.source
        if source.serves_rows:
            rows = [contexts[line] for line in plan.lines.tolist()]
            return source.draw_rows(rows, sizes.tolist()), (), b""
        digests = digests_of_rows(plan, contexts)
        commitment = step_commitment(digests)
        return source.committed_draw(total, commitment), digests, commitment

    def _drop(self, draw: EntropyDraw) -> None:
        if self._on_dropped is not None:
            count, now_ns = len(draw.data), time.time_ns()
            self._on_dropped(DroppedBytes(draw.source, count, "unfit", now_ns))

    def _amplify(self, draw: EntropyDraw, sizes: IndexArray, rows: Rows) -> AmplifiedRows:
        """Cuts *draw* into one block per row, in row order, and amplifies equal sizes together.

        A baseline describes the configured device, so it does not apply to a fallback's bytes.
        """
        groups = rows.derived(self._amplifiers)
        if draw.fallback:
            groups = [(amplifier.without_baseline(), lines) for amplifier, lines in groups]
        data = np.frombuffer(draw.data, dtype=np.uint8)
        return amplify_groups(data, sizes, groups, self._count)

    def _amplifiers(self, rows: RowParameters) -> list[tuple[SignalAmplifier, IndexArray]]:
        """Returns the amplifiers of *rows*, each with the rows of one block length."""
        groups = rows.groups("signal_amplifier_type", "sample_count")
        return [(self._amplifier(str(name)), lines) for (name, _), lines in groups.items()]

    def _amplifier(self, name: str) -> SignalAmplifier:
        if name not in self._amplifier_by_name:
            self._amplifier_by_name[name] = amplifier_named(name, self._settings)
        return self._amplifier_by_name[name]


def _block_sizes(rows: RowParameters) -> tuple[IndexArray, int]:
    """Returns how many bytes decide each row, and all rows together."""
    sizes = rows.column("sample_count").astype(np.intp)
    sizes.flags.writeable = False
    return sizes, int(sizes.sum())
