# SPDX-License-Identifier: Apache-2.0
"""Passes over rows of logits in plain torch operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from qr_sampler.selection.masses import EXPONENT_FLOOR, unit_exponent
from qr_sampler_accel.device.masses import MassBuffers, fill_exponents, fill_masses
from qr_sampler_accel.device.scratch import Scratch

__all__ = ["BINS", "BIN_BITS", "DeviceRows", "Passes", "TorchPasses"]

BIN_BITS: Final = 11
"""Bits of a key that one histogram resolves: three of them cover 32."""

BINS: Final = 2**BIN_BITS

PIECE_ELEMENTS: Final = 2**22
"""Logits that are worked on at a time: enough to fill a GPU, and a bound on the buffers."""


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """Rows of logits on a device, each with a finite maximum."""

    logits: torch.Tensor
    """Shape ``(D, V)``, float32, consecutive within a row."""
    maximum: torch.Tensor
    """Shape ``(D,)``, float32."""

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits and their maxima."""
        return self.logits, self.maximum

    @property
    def count(self) -> int:
        """Number of rows D."""
        return int(self.logits.shape[0])

    @property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return int(self.logits.shape[1])

    @property
    def unit(self) -> float:
        """The mass of the most probable token."""
        return float(2 ** unit_exponent(self.vocab_size))


class Passes(Protocol):
    """What a selection needs from whole rows. Nothing here makes the host wait for the device.

    The *key* of a logit is its float32 bit pattern, turned into a signed 32-bit integer that grows
    as the logit falls; the two zeros have one key.
    """

    def moments(self, rows: DeviceRows, out: torch.Tensor) -> None:
        """Finds the maxima, and adds up weights e = exp(d) with d the distance to the maximum.

        Distances are cut off at ``EXPONENT_FLOOR``, where e is 0.

        Args:
            rows: The D rows; *maximum* is filled in, and need not turn out to be finite.
            out: Shape ``(4, D)``, float64: receives the maxima and the sums of e, e d and e d**2.
        """

    def histogram(
        self,
        rows: DeviceRows,
        inverse: torch.Tensor | None,
        shift: int,
        base: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Adds up masses by key: *out* receives the total of each bin.

        A token is in bin ``(key >> shift) - base`` if that is one of the bins, else in none.

        Args:
            rows: The D rows.
            inverse: Shape ``(D,)``, float64, 1 / T; ``None`` to count tokens instead.
            shift: Number of bits to leave out.
            base: Shape ``(D,)``, int64.
            out: Shape ``(D, BINS)``, float64.
        """

    def masses(self, rows: DeviceRows, inverse: torch.Tensor, buffers: MassBuffers) -> None:
        """Sets *mass* of the buffers to the masses of all tokens.

        Args:
            rows: N rows.
            inverse: Shape ``(N,)``, float64, 1 / T.
            buffers: Memory for N rows, of which everything may be used up.
        """

    def masses_at(
        self, rows: DeviceRows, inverse: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the mass of the tokens above a logit, and of those at it.

        Args:
            rows: The D rows.
            inverse: Shape ``(D,)``, float64, 1 / T.
            value: Shape ``(D,)``, float32.

        Returns:
            Two tensors of shape ``(D,)``, float64.
        """

    def lowest(
        self,
        rows: DeviceRows,
        inverse: torch.Tensor,
        farthest: torch.Tensor,
        least: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the lowest logit that is near enough to the maximum and has enough mass.

        Args:
            rows: The D rows.
            inverse: Shape ``(D,)``, float64, 1 / T.
            farthest: Shape ``(D,)``, float32, at most 0: least distance that is near enough.
            least: Shape ``(D,)``, float64: least mass that is enough.

        Returns:
            Shape ``(D,)``, float32.
        """


class TorchPasses(Passes):
    """The passes in torch operations, some rows at a time.

    Args:
        rows: Largest number of rows D.
        columns: Number of tokens V.
        device: Where the logits are.
        scratch: Lends memory for results with one number per row.
    """

    def __init__(self, rows: int, columns: int, device: torch.device, scratch: Scratch) -> None:
        self.piece = max(1, min(rows, PIECE_ELEMENTS // columns))
        self._scratch = scratch
        self._buffers = MassBuffers(self.piece, columns, device)
        self._bins = torch.empty((self.piece, 2 * BINS), dtype=torch.float64, device=device)
        # Tokens outside all bins are spread over as many spare ones: a single bin for all of them
        # would be a single address for all additions of a row.
        spare = torch.arange(columns, dtype=torch.int64, device=device)
        self._spare = spare.bitwise_and_(BINS - 1).add_(BINS)[None, :]

    def pieces(self, rows: DeviceRows) -> Iterator[tuple[slice, torch.Tensor, MassBuffers]]:
        """Yields some rows at a time with buffers for them; *distance* is not filled in.

        Args:
            rows: The D rows.

        Yields:
            The indices of the rows, their logits and buffers of the same shape.
        """
        for start in range(0, rows.count, self.piece):
            lines = slice(start, min(start + self.piece, rows.count))
            yield lines, rows.logits[lines], self._buffers.leading(lines.stop - start)

    def buffers(self, count: int) -> MassBuffers:
        """Returns memory for *count* rows, no more than a piece, that everybody works in."""
        return self._buffers.leading(count)

    def moments(self, rows: DeviceRows, out: torch.Tensor) -> None:
        """As in :class:`Passes`."""
        torch.amax(rows.logits, dim=1, out=rows.maximum)
        out[0].copy_(rows.maximum)
        weight, first, second = out[1:]
        for lines, logits, buffers in self.pieces(rows):
            fill_exponents(buffers, logits, rows.maximum[lines])
            exponent, terms = buffers.exponent.clamp_(min=EXPONENT_FLOOR), buffers.mass
            torch.sum(torch.exp(exponent, out=terms), dim=1, out=weight[lines])
            torch.sum(terms.mul_(exponent), dim=1, out=first[lines])
            torch.sum(terms.mul_(exponent), dim=1, out=second[lines])

    def histogram(
        self,
        rows: DeviceRows,
        inverse: torch.Tensor | None,
        shift: int,
        base: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """As in :class:`Passes`."""
        for lines, logits, buffers in self.pieces(rows):
            if inverse is None:
                buffers.mass.fill_(1.0)
            else:
                fill_exponents(buffers, logits, rows.maximum[lines])
                fill_masses(buffers, inverse[lines], rows.unit)
            index = self._bin_indices(buffers, logits, shift, base[lines])
            bins = self._bins[: index.shape[0]].zero_()
            bins.scatter_add_(1, index, buffers.mass)
            out[lines].copy_(bins[:, :BINS])

    def masses(self, rows: DeviceRows, inverse: torch.Tensor, buffers: MassBuffers) -> None:
        """As in :class:`Passes`."""
        fill_exponents(buffers, rows.logits, rows.maximum)
        fill_masses(buffers, inverse, rows.unit)

    def masses_at(
        self, rows: DeviceRows, inverse: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in :class:`Passes`."""
        sums = self._scratch.floats(), self._scratch.floats()
        for lines, logits, buffers in self.pieces(rows):
            fill_exponents(buffers, logits, rows.maximum[lines])
            fill_masses(buffers, inverse[lines], rows.unit)
            for column, leave_out in zip(sums, (torch.le, torch.ne), strict=True):
                leave_out(logits, value[lines, None], out=buffers.flag)
                buffers.exponent.copy_(buffers.mass).masked_fill_(buffers.flag, 0.0)
                torch.sum(buffers.exponent, dim=1, out=column[lines])
        return sums

    def lowest(
        self,
        rows: DeviceRows,
        inverse: torch.Tensor,
        farthest: torch.Tensor,
        least: torch.Tensor,
    ) -> torch.Tensor:
        """As in :class:`Passes`."""
        lowest = self._scratch.take(torch.float32)
        for lines, logits, buffers in self.pieces(rows):
            fill_exponents(buffers, logits, rows.maximum[lines])
            fill_masses(buffers, inverse[lines], rows.unit)
            torch.lt(buffers.distance, farthest[lines, None], out=buffers.flag)
            buffers.distance.copy_(logits).masked_fill_(buffers.flag, torch.inf)
            torch.lt(buffers.mass, least[lines, None], out=buffers.flag)
            buffers.distance.masked_fill_(buffers.flag, torch.inf)
            torch.amin(buffers.distance, dim=1, out=lowest[lines])
        return lowest

    def counts_at(self, rows: DeviceRows, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the number of tokens above a logit, and of those at it.

        Args:
            rows: The D rows.
            value: Shape ``(D,)``, float32.

        Returns:
            Two tensors of shape ``(D,)``, int64.
        """
        counts = self._scratch.integers(), self._scratch.integers()
        for lines, logits, buffers in self.pieces(rows):
            for column, compare in zip(counts, (torch.gt, torch.eq), strict=True):
                compare(logits, value[lines, None], out=buffers.flag)
                torch.sum(buffers.flags_as_integers(), dim=1, out=column[lines])
        return counts

    def token_ids(self, rows: DeviceRows, value: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Returns the id of the token that is in some place among those with the same logit.

        Args:
            rows: The D rows.
            value: Shape ``(D,)``, float32, the logit.
            place: Shape ``(D,)``, int64, 1 for the lowest token id.

        Returns:
            Shape ``(D,)``, int64.
        """
        token_ids = self._scratch.integers()
        for lines, logits, buffers in self.pieces(rows):
            # The running count of equal logits stays below *place* as far as the token before.
            torch.eq(logits, value[lines, None], out=buffers.flag)
            running = buffers.scratch.view(torch.int64)
            torch.cumsum(buffers.flags_as_integers(), dim=1, out=running)
            torch.lt(running, place[lines, None], out=buffers.flag)
            torch.sum(buffers.flags_as_integers(), dim=1, out=token_ids[lines])
        return token_ids

    def _bin_indices(
        self, buffers: MassBuffers, logits: torch.Tensor, shift: int, base: torch.Tensor
    ) -> torch.Tensor:
        """Returns the bin of each token, int64; uses all buffers but *mass*."""
        # Adding 0 turns -0 into 0.
        bits = torch.add(logits, 0.0, out=buffers.distance).view(torch.int32)
        index, sign = buffers.scratch.view(torch.int64), buffers.exponent.view(torch.int64)
        index.copy_(bits)
        torch.bitwise_right_shift(index, 63, out=sign)
        index.bitwise_xor_(sign.bitwise_and_(0x7FFFFFFF)).bitwise_not_()
        index.bitwise_right_shift_(shift).sub_(base[:, None])
        torch.bitwise_right_shift(index, BIN_BITS, out=sign)
        torch.eq(sign, 0, out=buffers.flag)
        return torch.where(buffers.flag, index, self._spare, out=index)
