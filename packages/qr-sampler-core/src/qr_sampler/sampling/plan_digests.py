# SPDX-License-Identifier: Apache-2.0
"""What a source is told of the rows of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from qr_sampler.sampling.commitment import RowContext, row_digest
from qr_sampler.sampling.planner import StepPlan

__all__ = ["digests_of_rows"]


def digests_of_rows(plan: StepPlan, contexts: Sequence[RowContext]) -> tuple[bytes, ...]:
    """Returns the digest of each decidable row.

    Args:
        plan: The rows.
        contexts: Which tokens all rows of the step are going to decide, the undecidable included.
    """
    settled = plan.temperature
    numbers = zip(
        plan.lines.tolist(),
        settled.temperature.tolist(),
        settled.entropy_nats.tolist(),
        settled.varentropy_nats2.tolist(),
        strict=True,
    )
    return tuple(
        row_digest(
            contexts[line],
            temperature=temperature,
            entropy_nats=entropy_nats,
            varentropy_nats2=varentropy_nats2,
        )
        for line, temperature, entropy_nats, varentropy_nats2 in numbers
    )
