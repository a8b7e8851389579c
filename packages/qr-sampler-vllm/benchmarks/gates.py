# SPDX-License-Identifier: Apache-2.0
"""What the benchmark demands, and whether it was met. Imports neither torch nor vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["BATCHES", "CLAIMS", "PLAIN_BATCH", "Claim", "Gate", "Outcome", "gates"]

BATCHES: Final = (1, 16, 64)
"""Rows per step."""

PLAIN_BATCH: Final = 0
"""Stands for a gate that does not depend on the batch."""

NATIVE: Final = "vLLM's sampler without filters"
FILTERED: Final = "vLLM's sampler with the same filters"
USUAL: Final = "vLLM's sampler on a typical row"


@dataclass(frozen=True, slots=True)
class Gate:
    """The largest value that one claim may have at one batch size."""

    claim: Claim
    """What is claimed."""
    batch: int
    """Rows per step, or PLAIN_BATCH."""
    bound: float
    """The largest permitted value."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that is measured and, where it has bounds, gated."""

    key: str
    """Short name."""
    what: str
    """What is measured."""
    against: str
    """What it is divided by; empty for a count."""
    bounds: tuple[float, ...]
    """One bound per batch size, or a single one for a claim that has no batch size."""

    @property
    def gates(self) -> Iterator[Gate]:
        """The gates of this claim."""
        batches = BATCHES if len(self.bounds) > 1 else (PLAIN_BATCH,)
        for batch, bound in zip(batches, self.bounds, strict=True):
            yield Gate(self, batch, bound)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one gate."""

    gate: Gate
    """The gate."""
    values: tuple[float, ...]
    """One value per set of logits; the largest is judged."""

    @property
    def passed(self) -> bool:
        """Whether the largest value is within the bound."""
        return max(self.values) <= self.gate.bound


CLAIMS: Final[Sequence[Claim]] = (
    Claim("fixed_1", "fixed temperature 1, no filter", NATIVE, (0.35, 0.40, 0.50)),
    Claim("fixed_07", "fixed temperature 0.7, no filter", NATIVE, (0.45, 0.50, 0.60)),
    Claim("edt", "temperature from the entropy (`edt`), no filter", NATIVE, (0.45, 0.50, 0.60)),
    Claim("filtered", "temperature 1, `top_k=50`, `top_p=0.9`", FILTERED, (0.04, 0.05, 0.06)),
    Claim("numpy", "fixed temperature 1 in NumPy alone", NATIVE, (0.45, 0.50, 0.60)),
    Claim("numpy_bare", "the same without the statistics", NATIVE, (0.35, 0.50, 0.60)),
    Claim("flat", "flat logits, temperature 1, no filter", NATIVE, (1.25, 1.25, 1.25)),
    Claim("tail", "u = 1 - 1e-10, temperature 1, no filter", NATIVE, (1.25, 1.25, 1.25)),
    Claim("worst", "slowest rows found, no filter", USUAL, (1.25,)),
    Claim("worst_typical", "slowest rows found, `typical_p=0.9`, in ms", "", (2.0,)),
    Claim("grpc", "`edt` with one draw from a gRPC server", NATIVE, (1.2, 0.6, 0.55)),
    Claim("amplify", "20,480 bytes per row to u", "`np.mean` row by row", (0.45, 0.25, 0.20)),
    Claim("exactness", "tokens other than the reference selector's", "", (0.0,)),
    Claim("allocations", "allocations above 64 KiB in a steady step", "", (0.0,)),
)


def gates() -> list[Gate]:
    """Returns every gate, in the order of the page."""
    return [gate for claim in CLAIMS for gate in claim.gates]
